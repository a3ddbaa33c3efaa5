using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as compressed-tensors' <c>nvfp4-pack-quantized</c>, <c>mxfp4-pack-quantized</c> and <c>mxfp8-quantized</c> do (formats.md §3.2).</summary>
internal static class SmallFloatPacker
{
    /// <summary>Scales of 8 bits, divided by one of 32 bits.</summary>
    public static PackedFormat MakeNvfp4()
    {
        const int group = 16;
        return new PackedFormat(Settings("nvfp4-pack-quantized", 4, "tensor_group", group), static (_, columns) => columns % group == 0, static (random, rows, columns, size) =>
        {
            int[] codes = Codes(random, rows * columns, 16), scales = [.. Enumerable.Range(0, rows * columns / group).Select(_ => 0x28 + random.Next(0x20))];
            float whole = Scale(random, PowerOfTwo(4 / size));
            return new PackedModule(
            [
                new("weight_packed", "U8", [rows, columns / 2], Nibbles(codes)),
                new("weight_scale", "F8_E4M3", [rows, columns / group], [.. scales.Select(static scale => (byte)scale)]),
                new("weight_global_scale", "F32", [1], Bytes([whole])),
                new("input_scale", "F32", [1], Bytes([1f])),
            ], [.. codes.Select((code, i) => (float)(E2M1(code) * (double)(float)(E4M3(scales[i / group]) / whole)))]);
        });
    }

    /// <summary>A power of two for 32 columns.</summary>
    public static PackedFormat MakeMx(int bits)
    {
        const int group = 32;
        return new PackedFormat(
            Settings(bits == 4 ? "mxfp4-pack-quantized" : "mxfp8-quantized", bits, "group", group), (_, columns) => columns % group == 0, (random, rows, columns, size) =>
            {
                int[] codes = bits == 4 ? Codes(random, rows * columns, 16) : [.. Enumerable.Range(0, rows * columns).Select(_ => FiniteE4M3(random))];
                int middle = 127 + (int)Math.Round(Math.Log2(size / (bits == 4 ? 4 : 32)));
                byte[] powers = [.. Enumerable.Range(0, rows * columns / group).Select(_ => (byte)(middle + random.Next(-2, 2)))];
                RawTensor weight = bits == 4
                    ? new("weight_packed", "U8", [rows, columns / 2], Nibbles(codes))
                    : new("weight", "F8_E4M3", [rows, columns], [.. codes.Select(static code => (byte)code)]);
                return new PackedModule(
                    [weight, new("weight_scale", random.Next(2) == 0 ? "U8" : "F8_E8M0", [rows, columns / group], powers)],
                    [.. codes.Select((code, i) => (float)((bits == 4 ? E2M1(code) : E4M3(code)) * Math.Pow(2, powers[i / group] - 127)))]);
            });
    }

    private static JsonObject Settings(string format, int bits, string strategy, int group) => CompressedTensorsSettings.Of(format, new JsonObject
    {
        ["num_bits"] = bits,
        ["type"] = "float",
        ["symmetric"] = true,
        ["strategy"] = strategy,
        ["group_size"] = group,
    });

    /// <summary>Two to a byte, the even one low.</summary>
    private static byte[] Nibbles(int[] codes) => [.. codes.Chunk(2).Select(static pair => (byte)(pair[0] | pair[1] << 4))];
}
