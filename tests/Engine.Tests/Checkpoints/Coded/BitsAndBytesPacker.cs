using System.Text;
using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as bitsandbytes' <c>Linear4bit</c> and <c>Linear8bitLt</c> are saved (formats.md §3.6).</summary>
internal static class BitsAndBytesPacker
{
    /// <summary>Draws whether the largest values of blocks are themselves quantized, and the block's size.</summary>
    public static PackedFormat MakeFourBits(Random random, string type)
    {
        bool nested = random.Next(2) == 0;
        int blockSize = new[] { 64, 128, 256 }[random.Next(3)];
        var config = new JsonObject
        {
            ["quant_method"] = "bitsandbytes",
            ["load_in_4bit"] = true,
            ["bnb_4bit_quant_type"] = type,
            ["bnb_4bit_use_double_quant"] = nested,
            ["llm_int8_skip_modules"] = null,
        };
        return new PackedFormat(
            config, static (_, _) => true, (source, rows, columns, size) => PackFourBits(source, rows, columns, size, type, nested, blockSize));
    }

    /// <summary>Integers with the largest value of each output.</summary>
    public static PackedFormat MakeIntegers() =>
        new(new JsonObject { ["quant_method"] = "bitsandbytes", ["load_in_8bit"] = true }, static (_, _) => true, PackIntegers);

    private static PackedModule PackFourBits(Random random, int rows, int columns, float size, string type, bool nested, int blockSize)
    {
        int count = rows * columns, blocks = Ceiling(count, blockSize);
        int[] codes = Codes(random, count, 16);
        float[] map = [.. Enumerable.Range(0, 16).Select(_ => (float)(2 * random.NextDouble() - 1))];
        float power = PowerOfTwo(size);
        var state = new JsonObject { ["quant_type"] = type, ["blocksize"] = blockSize, ["dtype"] = "bfloat16", ["shape"] = new JsonArray(rows, columns) };
        var flat = new byte[(count + 1) / 2];
        for (int i = 0; i < count; i++)
        {
            flat[i / 2] |= (byte)(i % 2 == 0 ? codes[i] << 4 : codes[i]);
        }
        List<RawTensor> tensors =
        [
            new("weight", "U8", [flat.Length, 1], flat),
            new("weight.quant_map", "F32", [16], Bytes(map)),
        ];
        float[] largest;
        if (nested)
        {
            const int nestedSize = 256;
            // Powers of two and few bits: the sum is exact, in whatever order it is computed.
            int[] indices = Codes(random, blocks, 256);
            float[] nestedMap = [.. Enumerable.Range(0, 256).Select(static i => (i - 128) / 128f)];
            float[] nestedLargest = [.. Enumerable.Range(0, Ceiling(blocks, nestedSize)).Select(_ => power * (1 + random.Next(4)))];
            float offset = 2 * power;
            largest = [.. indices.Select((index, block) => nestedMap[index] * nestedLargest[block / nestedSize] + offset)];
            state["nested_blocksize"] = nestedSize;
            state["nested_dtype"] = "float32";
            state["nested_offset"] = offset;
            tensors.Add(new RawTensor("weight.absmax", "U8", [blocks], [.. indices.Select(static index => (byte)index)]));
            tensors.Add(new RawTensor("weight.nested_absmax", "F32", [nestedLargest.Length], Bytes(nestedLargest)));
            tensors.Add(new RawTensor("weight.nested_quant_map", "F32", [256], Bytes(nestedMap)));
        }
        else
        {
            largest = [.. Enumerable.Range(0, blocks).Select(_ => Scale(random, power))];
            tensors.Add(new RawTensor("weight.absmax", "F32", [blocks], Bytes(largest)));
        }
        byte[] json = Encoding.UTF8.GetBytes(state.ToJsonString());
        tensors.Add(new RawTensor($"weight.quant_state.bitsandbytes__{type}", "U8", [json.Length], json));
        return new PackedModule(tensors, [.. codes.Select((code, i) => (float)(map[code] * (double)largest[i / blockSize]))]);
    }

    private static PackedModule PackIntegers(Random random, int rows, int columns, float size)
    {
        int[] codes = Codes(random, rows * columns, 255);
        // 127 times a number of few bits: the quotient is exact.
        float[] largest = [.. Enumerable.Range(0, rows).Select(_ => 127 * Scale(random, PowerOfTwo(size / 128)))];
        return new PackedModule(
        [
            new("weight", "I8", [rows, columns], Bytes(codes.Select(static code => (sbyte)(code - 127)))),
            new("SCB", "F32", [rows], Bytes(largest)),
            new("weight_format", "U8", [], [0]),
        ], [.. codes.Select((code, i) => (float)((code - 127) * ((double)largest[i / columns] / 127)))]);
    }
}
