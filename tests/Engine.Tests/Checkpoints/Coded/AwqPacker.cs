using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as AutoAWQ's <c>WQLinear_GEMM</c> does (formats.md §3.5).</summary>
internal static class AwqPacker
{
    private static readonly int[] outputs = [0, 2, 4, 6, 1, 3, 5, 7];

    /// <summary>Draws the group size.</summary>
    public static PackedFormat Make(Random random)
    {
        int groupSize = new[] { -1, 16, 32, 64, 128 }[random.Next(5)];
        var config = new JsonObject { ["quant_method"] = "awq", ["bits"] = 4, ["group_size"] = groupSize, ["version"] = "gemm", ["zero_point"] = true };
        return new PackedFormat(
            config,
            (rows, columns) => rows % 8 == 0 && (groupSize == -1 || columns % groupSize == 0),
            (source, rows, columns, size) => Pack(source, rows, columns, size, groupSize == -1 ? columns : groupSize));
    }

    private static PackedModule Pack(Random random, int rows, int columns, float size, int groupColumns)
    {
        int groups = columns / groupColumns;
        int[] codes = Codes(random, columns * rows, 16), zeros = Codes(random, groups * rows, 16);
        float[] scales = [.. Enumerable.Range(0, groups * rows).Select(_ => Scale(random, PowerOfTwo(size / 8)))];
        float[] weights = new float[rows * columns];
        for (int i = 0; i < weights.Length; i++)
        {
            (int row, int column) = (i / columns, i % columns);
            int at = column / groupColumns * rows + row;
            weights[i] = (float)((codes[column * rows + row] - zeros[at]) * (double)scales[at]);
        }
        return new PackedModule(
        [
            Words("qweight", [columns, rows / 8], Interleaved(codes)),
            Words("qzeros", [groups, rows / 8], Interleaved(zeros)),
            Floats("scales", [groups, rows], scales, "F16"),
        ], weights);
    }

    /// <summary>Eight outputs in a word, nibble k of which is output k of the order.</summary>
    private static IEnumerable<uint> Interleaved(int[] codes) =>
        codes.Chunk(8).Select(static eight => Stream([.. outputs.Select(output => eight[output])], 4)[0]);
}
