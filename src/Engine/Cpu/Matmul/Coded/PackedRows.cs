using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>The codes of a coded matrix as they are packed, a row at a time, to look for zeros in them.</summary>
internal static class PackedRows
{
    /// <summary>Reads rows: integers are moved by the zero points of their own groups, and −0 of 4-bit floats is 0.</summary>
    /// <param name="source">The matrix: integers, or 4-bit floats.</param>
    /// <param name="packing">For integers, how zero points move them.</param>
    public static CodeSurvey.RowReader Of(WeightRows source, CodePacking packing)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        if (coded.Numbers == CodeNumbers.E2M1)
        {
            return (row, codes) =>
            {
                coded.ReadCodes(source.Row(row), codes);
                codes.Replace(E2M1Table.NegativeZero, E2M1Table.Zero);
            };
        }
        int[] constant = [.. Enumerable.Repeat(coded.Zero ?? 0, coded.Groups)];
        return (row, codes) =>
        {
            int[] zeros = constant;
            if (coded.Zero is null)
            {
                zeros = new int[coded.Groups];
                coded.ReadScales(source.Row(row), new float[coded.Groups], zeros);
            }
            coded.ReadCodes(source.Row(row), codes);
            packing.Move(codes, zeros, coded.GroupColumns);
        };
    }
}
