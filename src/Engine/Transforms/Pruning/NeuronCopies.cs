using Engine.Checkpoints;

namespace Engine.Transforms.Pruning;

/// <summary>Copies what belongs to some neurons out of the matrices of a feed-forward; bytes behind them stay zero.</summary>
internal static class NeuronCopies
{
    /// <summary>Rows of gate or up: [width, hidden].</summary>
    public static unsafe void Rows(TensorView matrix, int[] kept, UnmanagedBuffer target)
    {
        long rowBytes = matrix.RowBytes;
        for (int i = 0; i < kept.Length; i++)
        {
            matrix.Row(kept[i]).CopyTo(new Span<byte>((byte*)target.Address + i * rowBytes, checked((int)rowBytes)));
        }
        matrix.Evict();
    }

    /// <summary>Columns of down, [hidden, width], or elements of a bias.</summary>
    public static unsafe void Columns(TensorView matrix, int[] kept, int width, UnmanagedBuffer target)
    {
        int bytes = matrix.DType.Info().BlockBytes;
        for (long row = 0; row < matrix.Rows; row++)
        {
            ReadOnlySpan<byte> from = matrix.Row(row);
            var to = new Span<byte>((byte*)target.Address + row * width * bytes, width * bytes);
            for (int i = 0; i < kept.Length; i++)
            {
                from.Slice(kept[i] * bytes, bytes).CopyTo(to[(i * bytes)..]);
            }
        }
        matrix.Evict();
    }
}
