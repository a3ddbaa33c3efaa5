using Engine.Checkpoints;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>What holds for every coded matrix.</summary>
internal static class CodedChecks
{
    /// <summary>
    /// Codes, scales, zero points and order are in their ranges and, read alone and by several threads at once, make these weights, [rows, columns].
    /// </summary>
    public static void AssertConsistent(CodedMatrix coded, float[] weights)
    {
        Assert.Equal(coded.Rows * coded.Columns, weights.Length);
        Assert.Equal(coded.Parts.Sum(static part => part.ByteLength), coded.StoredBytes);
        Assert.InRange(coded.GroupColumns, 1, coded.Columns);
        Assert.Equal(coded.Numbers == CodeNumbers.Integer ? 0 : 1 << coded.Bits, coded.Table.Length);
        if (!coded.Order.IsEmpty)
        {
            Assert.Equal(Enumerable.Range(0, coded.Columns), coded.Order.Order());
        }
        AssertRuns(coded);
        Parallel.For(0, coded.Rows, row => AssertRow(coded, row, weights.AsSpan((int)row * coded.Columns, coded.Columns)));
    }

    /// <summary>Rows that are read together are those that are read one by one, and nothing is written between them.</summary>
    private static void AssertRuns(CodedMatrix coded)
    {
        int stride = coded.Columns + 3;
        byte[] alone = new byte[coded.Columns];
        foreach (int count in new[] { 1, 5, 16 }.Where(count => count <= coded.Rows))
        {
            for (long first = 0; first + count <= coded.Rows; first += 3)
            {
                byte[] together = new byte[count * stride];
                Array.Fill(together, (byte)0xEE);
                coded.ReadCodes(first, count, together, stride);
                for (int row = 0; row < count; row++)
                {
                    coded.ReadCodes(first + row, alone);
                    Assert.True(together.AsSpan(row * stride, coded.Columns).SequenceEqual(alone), $"row {first + row} of {count} from {first}");
                    Assert.Equal(3, together.AsSpan(row * stride + coded.Columns, 3).Count((byte)0xEE));
                }
            }
        }
    }

    private static void AssertRow(CodedMatrix coded, long row, ReadOnlySpan<float> weights)
    {
        byte[] codes = new byte[coded.Columns];
        float[] scales = new float[coded.Groups];
        int[] zeros = new int[coded.Groups];
        coded.ReadCodes(row, codes);
        coded.ReadScales(row, scales, zeros);
        for (int place = 0; place < codes.Length; place++)
        {
            Assert.InRange(codes[place], 0, (1 << coded.Bits) - 1);
            int group = place / coded.GroupColumns, column = coded.Order.IsEmpty ? place : coded.Order[place];
            double number = coded.Table.IsEmpty ? codes[place] : coded.Table[codes[place]];
            Assert.Equal((float)((number - (coded.Zero ?? zeros[group])) * scales[group]), weights[column]);
        }
    }
}
