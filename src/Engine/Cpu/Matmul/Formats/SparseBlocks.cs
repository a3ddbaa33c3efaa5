using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>Finds matrices in a block format of which every row has at most two of every four neighbours other than zero.</summary>
internal static unsafe class SparseBlocks
{
    /// <summary>
    /// All rows conform, and at least one code in them is not zero. What a dense matrix has at its very beginning says no, so that only sparse ones are read.
    /// </summary>
    /// <param name="source">The matrix, in a format with an offset, which is the code of zero.</param>
    /// <param name="rows">Rows that are wanted of it.</param>
    public static bool Conform<TFormat>(WeightRows source, int rows)
        where TFormat : IBlockFormat
    {
        TensorView tensor = source.Tensor;
        DTypeInfo info = tensor.DType.Info();
        byte zero = (byte)(1 << TFormat.OffsetShift);
        byte* codes = stackalloc byte[256];
        bool any = false;
        for (int row = 0; row < rows; row++)
        {
            fixed (byte* blocks = tensor.Row(source.Row(row)))
            {
                for (long block = 0; block < tensor.Columns / info.BlockElements; block++)
                {
                    TFormat.ReadCodes(blocks + block * info.BlockBytes, codes);
                    var span = new ReadOnlySpan<byte>(codes, info.BlockElements);
                    if (!SparseGroups.Conform(span, zero))
                    {
                        return false;
                    }
                    any |= span.ContainsAnyExcept(zero);
                }
            }
        }
        return any;
    }
}
