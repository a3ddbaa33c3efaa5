using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as AutoGPTQ's and GPTQModel's <c>QuantLinear.pack</c> do (formats.md §3.4).</summary>
internal static class GptqPacker
{
    private enum Grouping
    {
        Runs,
        ByActivation,
        Uneven,
    }

    /// <summary>Draws version, symmetry, group size and grouping.</summary>
    public static PackedFormat Make(Random random, int bits)
    {
        int groupSize = new[] { -1, 8, 16, 32, 64, 128 }[random.Next(6)];
        bool version2 = random.Next(2) == 0, symmetric = random.Next(2) == 0, indices = random.Next(4) > 0;
        Grouping grouping = groupSize == -1 || !indices ? Grouping.Runs : (Grouping)random.Next(3);
        var config = new JsonObject
        {
            ["quant_method"] = "gptq",
            ["bits"] = bits,
            ["group_size"] = groupSize,
            ["desc_act"] = grouping != Grouping.Runs,
            ["sym"] = symmetric,
            ["checkpoint_format"] = version2 ? "gptq_v2" : "gptq",
        };
        return new PackedFormat(
            config,
            (rows, columns) => columns * bits % 32 == 0 && rows * bits % 32 == 0,
            (source, rows, columns, size) => Pack(source, rows, columns, size, bits, groupSize, version2, symmetric, indices, grouping));
    }

    private static PackedModule Pack(
        Random random, int rows, int columns, float size, int bits, int groupSize, bool version2, bool symmetric, bool indices, Grouping grouping)
    {
        int groupColumns = groupSize == -1 ? columns : groupSize, groups = Ceiling(columns, groupColumns);
        int[] groupOf = [.. Enumerable.Range(0, columns).Select(column => column / groupColumns)];
        groupOf = grouping switch
        {
            Grouping.ByActivation => Shuffled(random, groupOf),
            // Each group has a column at least.
            Grouping.Uneven => Shuffled(random, [.. Enumerable.Range(0, groups), .. Codes(random, columns - groups, groups)]),
            _ => groupOf,
        };
        int[] codes = Codes(random, rows * columns, 1 << bits);
        // Often 0: where 1 is subtracted from it, the neighbour is borrowed from.
        int[] zeros = [.. Enumerable.Range(0, groups * rows).Select(_ => symmetric ? 1 << (bits - 1) : random.Next(3) == 0 ? 0 : random.Next(1 << bits))];
        float[] scales = [.. Enumerable.Range(0, groups * rows).Select(_ => Scale(random, PowerOfTwo(size / (1 << (bits - 1)))))];
        uint[][] streams = [.. Enumerable.Range(0, rows).Select(row => Stream([.. codes.Skip(row * columns).Take(columns)], bits))];
        IEnumerable<uint> packed = Enumerable.Range(0, streams[0].Length).SelectMany(word => streams.Select(stream => stream[word]));
        List<RawTensor> tensors =
        [
            Words("qweight", [streams[0].Length, rows], packed),
            Words("qzeros", [groups, rows * bits / 32], Enumerable.Range(0, groups).SelectMany(group => Zeros([.. zeros.Skip(group * rows).Take(rows)], bits, version2))),
            Floats("scales", [groups, rows], scales, random.Next(3) == 0 ? "BF16" : "F16"),
        ];
        if (indices)
        {
            tensors.Add(new RawTensor("g_idx", "I32", [columns], Bytes(groupOf)));
        }
        float[] weights = new float[rows * columns];
        for (int i = 0; i < weights.Length; i++)
        {
            int at = groupOf[i % columns] * rows + i / columns;
            weights[i] = (float)((codes[i] - zeros[at]) * (double)scales[at]);
        }
        return new PackedModule(tensors, weights);
    }

    /// <summary>Version 1 subtracts 1 from every field: from words as a whole, so that a 0 borrows from its neighbour; from 3-bit fields one by one.</summary>
    private static uint[] Zeros(int[] zeros, int bits, bool version2)
    {
        if (version2)
        {
            return Stream(zeros, bits);
        }
        if (bits == 3)
        {
            return Stream([.. zeros.Select(static zero => (zero + 7) % 8)], bits);
        }
        uint ones = Stream([.. Enumerable.Repeat(1, 32 / bits)], bits)[0];
        return [.. Stream(zeros, bits).Select(word => unchecked(word - ones))];
    }
}
