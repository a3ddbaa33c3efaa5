using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs floats of 8 and 4 bits as DeepSeek-V3, vLLM and ModelOpt save them (formats.md §3.7).</summary>
internal static class Float8Packer
{
    private static readonly string[] floats = ["F32", "F16", "BF16"];

    /// <summary>A scale for each block of rows and columns, whose size is drawn.</summary>
    public static PackedFormat MakeBlocks(Random random)
    {
        (int height, int width) = (new[] { 1, 3, 16, 128 }[random.Next(4)], new[] { 8, 20, 32, 128 }[random.Next(4)]);
        var config = new JsonObject
        {
            ["quant_method"] = "fp8",
            ["fmt"] = "e4m3",
            ["activation_scheme"] = "dynamic",
            ["weight_block_size"] = new JsonArray(height, width),
        };
        return new PackedFormat(config, static (_, _) => true, (source, rows, columns, size) =>
        {
            (int down, int across) = (Ceiling(rows, height), Ceiling(columns, width));
            return Pack(source, rows, columns, size, "weight_scale_inv", [down, across], i => i / columns / height * across + i % columns / width);
        });
    }

    /// <summary>A scale for a matrix, or for each of its rows.</summary>
    public static PackedFormat MakeScalars(Random random)
    {
        int kind = random.Next(4);
        return new PackedFormat(
            new JsonObject { ["quant_method"] = "fp8", ["activation_scheme"] = "static" },
            static (_, _) => true,
            (source, rows, columns, size) => kind switch
            {
                0 => Pack(source, rows, columns, size, "weight_scale", [], static _ => 0),
                1 => Pack(source, rows, columns, size, "weight_scale", [1], static _ => 0),
                2 => Pack(source, rows, columns, size, "weight_scale", [rows], i => i / columns),
                _ => Pack(source, rows, columns, size, "weight_scale", [rows, 1], i => i / columns),
            });
    }

    /// <summary>ModelOpt's NVFP4: a scale of 8 bits for 16 columns, and one of 32 bits for the matrix, which multiplies.</summary>
    public static PackedFormat MakeNvfp4()
    {
        var config = new JsonObject { ["quant_method"] = "modelopt", ["quant_algo"] = "NVFP4", ["group_size"] = 16 };
        return new PackedFormat(config, static (_, columns) => columns % 16 == 0, PackNvfp4);
    }

    private static PackedModule Pack(Random random, int rows, int columns, float size, string name, long[] shape, Func<int, int> scaleOf)
    {
        int[] codes = [.. Enumerable.Range(0, rows * columns).Select(_ => FiniteE4M3(random))];
        // Numbers go up to 448, but are mostly below 1.
        float[] scales = [.. Enumerable.Range(0, (int)shape.Aggregate(1L, static (a, b) => a * b)).Select(_ => Scale(random, PowerOfTwo(size / 32)))];
        return new PackedModule(
        [
            new("weight", "F8_E4M3", [rows, columns], [.. codes.Select(static code => (byte)code)]),
            Floats(name, shape, scales, floats[random.Next(3)]),
            new("input_scale", "F32", [], Bytes([1f])),
        ], [.. codes.Select((code, i) => (float)(E4M3(code) * scales[scaleOf(i)]))]);
    }

    private static PackedModule PackNvfp4(Random random, int rows, int columns, float size)
    {
        const int group = 16;
        int[] codes = Codes(random, rows * columns, 16), scales = [.. Enumerable.Range(0, rows * columns / group).Select(_ => 0x28 + random.Next(0x20))];
        float whole = Scale(random, PowerOfTwo(size / 4));
        var packed = new byte[codes.Length / 2];
        for (int i = 0; i < codes.Length; i++)
        {
            packed[i / 2] |= (byte)(codes[i] << 4 * (i % 2));
        }
        return new PackedModule(
        [
            new("weight", "U8", [rows, columns / 2], packed),
            new("weight_scale", "F8_E4M3", [rows, columns / group], [.. scales.Select(static scale => (byte)scale)]),
            new("weight_scale_2", "F32", [], Bytes([whole])),
            new("input_scale", "F32", [], Bytes([1f])),
        ], [.. codes.Select((code, i) => (float)(E2M1(code) * (double)(float)(E4M3(scales[i / group]) * whole)))]);
    }
}
