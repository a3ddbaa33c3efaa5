using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as compressed-tensors' <c>pack-quantized</c> does, in the layout of older files and in that of newer ones (formats.md §3.2).</summary>
internal static class PackQuantizedPacker
{
    /// <summary>Draws layout, symmetry, and what a scale is for.</summary>
    public static PackedFormat Make(Random random, int bits)
    {
        string strategy = new[] { "tensor", "channel", "group" }[random.Next(3)];
        int groupSize = new[] { 1, 5, 16, 32, 64, 128 }[random.Next(6)];
        bool symmetric = random.Next(2) == 0, padded = random.Next(2) == 0, byActivation = strategy == "group" && random.Next(2) == 0;
        var config = CompressedTensorsSettings.Of("pack-quantized", new JsonObject
        {
            ["num_bits"] = bits,
            ["type"] = "int",
            ["symmetric"] = symmetric,
            ["strategy"] = strategy,
            ["group_size"] = strategy == "group" ? groupSize : null,
            ["actorder"] = byActivation ? "group" : null,
        });
        // Of few columns both layouts may have as many words, and then other modules say which it is.
        return new PackedFormat(config, (_, columns) => 32 % bits == 0 || Words(columns, bits, true) != Words(columns, bits, false), (source, rows, columns, size) =>
        {
            int groupColumns = strategy == "group" ? groupSize : columns;
            return Pack(source, rows, columns, size, bits, groupColumns, strategy == "tensor", symmetric, padded, byActivation);
        });
    }

    /// <summary>Packs a module of chosen layout.</summary>
    public static PackedModule Pack(
        Random random, int rows, int columns, float size, int bits, int groupColumns, bool whole, bool symmetric, bool padded, bool byActivation)
    {
        int groups = Ceiling(columns, groupColumns), half = 1 << (bits - 1), scaleRows = whole ? 1 : rows;
        int[] groupOf = [.. Enumerable.Range(0, columns).Select(column => column / groupColumns)];
        groupOf = byActivation ? Shuffled(random, groupOf) : groupOf;
        int[] codes = Codes(random, rows * columns, 1 << bits);
        int[] zeros = symmetric ? [.. Enumerable.Repeat(half, scaleRows * groups)] : Codes(random, scaleRows * groups, 1 << bits);
        float[] scales = [.. Enumerable.Range(0, scaleRows * groups).Select(_ => Scale(random, PowerOfTwo(size / half)))];
        List<RawTensor> tensors =
        [
            RawValues.Words("weight_packed", [rows, Words(columns, bits, padded)],
                Enumerable.Range(0, rows).SelectMany(row => Packed([.. codes.Skip(row * columns).Take(columns)], bits, padded))),
            Floats("weight_scale", [scaleRows, groups], scales, new[] { "F32", "F16", "BF16" }[random.Next(3)]),
            random.Next(2) == 0
                ? new("weight_shape", "I64", [2], Bytes<long>([rows, columns]))
                : new("weight_shape", "I32", [2], Bytes<int>([rows, columns])),
        ];
        if (!symmetric)
        {
            tensors.Add(whole ? new("weight_zero_point", "I8", [1], Bytes([(sbyte)(zeros[0] - half)])) : PackZeros(zeros, rows, groups, bits, padded));
        }
        if (byActivation)
        {
            tensors.Add(new("weight_g_idx", "I32", [columns], Bytes(groupOf)));
        }
        var weights = new float[rows * columns];
        for (int i = 0; i < weights.Length; i++)
        {
            int at = (whole ? 0 : i / columns * groups) + groupOf[i % columns];
            weights[i] = (float)((codes[i] - zeros[at]) * (double)scales[at]);
        }
        return new PackedModule(tensors, weights);
    }

    private static int Words(int codes, int bits, bool padded) => padded ? Ceiling(codes, 32 / bits) : Ceiling(codes * bits, 32);

    private static uint[] Packed(int[] codes, int bits, bool padded) =>
        padded ? [.. codes.Chunk(32 / bits).Select(word => Stream(word, bits)[0])] : Stream(codes, bits);

    /// <summary>Down the rows: the words of a group are a column.</summary>
    private static RawTensor PackZeros(int[] zeros, int rows, int groups, int bits, bool padded)
    {
        uint[][] columns = [.. Enumerable.Range(0, groups).Select(group => Packed([.. Enumerable.Range(0, rows).Select(row => zeros[row * groups + group])], bits, padded))];
        return RawValues.Words("weight_zero_point", [columns[0].Length, groups], Enumerable.Range(0, columns[0].Length).SelectMany(word => columns.Select(column => column[word])));
    }
}
