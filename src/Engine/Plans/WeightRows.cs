using System.Collections.Immutable;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;

namespace Engine.Plans;

/// <summary>
/// The matrix that a <see cref="WeightRef"/> takes rows of, as backends read it: a slice is cut out of its tensor, and codes and scales that are stored apart are
/// joined to blocks, which takes memory until this is disposed.
/// </summary>
internal sealed unsafe class WeightRows : IDisposable
{
    private readonly UnmanagedBuffer? joined;
    private readonly ImmutableArray<int>? chosen; // Outputs of the whole that are left, where rows are read one by one.

    private WeightRows(
        TensorView tensor, long firstRow, int rowStep, bool transposed, UnmanagedBuffer? joined = null, ImmutableArray<int>? chosen = null)
    {
        Tensor = tensor;
        FirstRow = firstRow;
        RowStep = rowStep;
        Transposed = transposed;
        this.joined = joined;
        this.chosen = chosen;
    }

    /// <summary>The matrix [rows, columns], or [columns, rows] where transposed.</summary>
    public TensorView Tensor { get; }

    /// <summary>The matrix' row that is output 0.</summary>
    public long FirstRow { get; }

    /// <summary>Rows of the matrix from an output to the next.</summary>
    public int RowStep { get; }

    /// <summary>Rows are columns of the tensor.</summary>
    public bool Transposed { get; }

    /// <summary>Finds the matrix. Whether it has as many rows and columns as are wanted is for the caller to check.</summary>
    /// <param name="weight">What is wanted.</param>
    /// <param name="rows">How many rows of it.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <exception cref="EngineException">A tensor is missing, there is no such slice, or codes and scales do not fit each other.</exception>
    public static WeightRows Open(WeightRef weight, int rows, Checkpoint checkpoint)
    {
        TensorView whole = checkpoint[weight.Tensor], tensor = Slice(weight, whole, weight.Scales is null ? 2 : 3, checkpoint);
        if (whole.Coded is not null && weight.Slice is { } slice)
        {
            return new WeightRows(whole, FirstOfSlice(weight, rows, slice, tensor, checkpoint), weight.RowStep, weight.Transposed);
        }
        return weight.Scales is null
            ? new WeightRows(tensor, weight.FirstRow, weight.RowStep, weight.Transposed)
            : Join(weight, rows, tensor, Slice(weight, checkpoint[weight.Scales], 2, checkpoint), checkpoint);
    }

    /// <summary>
    /// Some of the rows, one behind the other as a matrix of their own, which takes memory until it is disposed; of codes and scales that are stored apart the same
    /// matrix, whose rows are found one by one.
    /// </summary>
    /// <param name="rows">Which, ascending.</param>
    /// <param name="count">Rows that there are.</param>
    /// <param name="checkpoint">For messages.</param>
    /// <exception cref="EngineException">They are not ascending or there are no such rows, or the matrix is not stored row by row.</exception>
    public WeightRows Gather(ImmutableArray<int> rows, int count, Checkpoint checkpoint)
    {
        if (Transposed)
        {
            throw new EngineException("rows of a matrix that is stored as [inputs, outputs] cannot be chosen", checkpoint.Path, Tensor.Name);
        }
        for (int i = 0, before = -1; i < rows.Length; before = rows[i++])
        {
            if (rows[i] <= before || rows[i] >= count)
            {
                throw new EngineException($"expected rows above {before} and below {count}, found {rows[i]}", checkpoint.Path, Tensor.Name);
            }
        }
        if (Tensor.Coded is not null)
        {
            return new WeightRows(Tensor, FirstRow, RowStep, false, chosen: rows);
        }
        long rowBytes = Tensor.RowBytes;
        var buffer = new UnmanagedBuffer(rows.Length * rowBytes);
        for (int i = 0; i < rows.Length; i++)
        {
            Tensor.Row(Row(rows[i])).CopyTo(new Span<byte>((byte*)buffer.Address + i * rowBytes, checked((int)rowBytes)));
        }
        Tensor.Evict();
        return new WeightRows(
            Tensor with { Shape = [rows.Length, Tensor.Columns], Address = buffer.Address, ByteLength = rows.Length * rowBytes, Owner = buffer }, 0, 1, false, buffer);
    }

    /// <summary>Where a row of the matrix is.</summary>
    public long Row(int output) => FirstRow + (long)(chosen?[output] ?? output) * RowStep;

    /// <summary>Reads the codes of outputs that follow each other to [count, stride]; the tensor is a <see cref="CodedMatrix"/>.</summary>
    public void ReadCodes(int firstOutput, int count, Span<byte> codes, int stride)
    {
        CodedMatrix coded = Tensor.Coded!;
        if (RowStep == 1 && chosen is null)
        {
            coded.ReadCodes(Row(firstOutput), count, codes, stride);
            return;
        }
        for (int i = 0; i < count; i++)
        {
            coded.ReadCodes(Row(firstOutput + i), codes.Slice(i * stride, coded.Columns));
        }
    }

    /// <summary>Rows from the first that <paramref name="count"/> of them span.</summary>
    public long Extent(int count) => count == 0 ? 0 : (count - 1L) * RowStep + 1;

    /// <inheritdoc/>
    public void Dispose() => joined?.Dispose();

    /// <summary>Without a slice the tensor itself.</summary>
    private static TensorView Slice(WeightRef weight, TensorView tensor, int dimensions, Checkpoint checkpoint)
    {
        if (weight.Slice is not { } slice)
        {
            return tensor;
        }
        if (tensor.Shape.Length != dimensions + 1 || slice < 0 || slice >= tensor.Shape[0])
        {
            throw new EngineException(
                $"expected {slice + 1} or more slices of {dimensions} dimensions, found the shape {tensor.DescribeShape()}", checkpoint.Path, tensor.Name);
        }
        long bytes = tensor.ByteLength / tensor.Shape[0];
        return tensor with { Shape = tensor.Shape[1..], Address = (nint)(tensor.Address + slice * bytes), ByteLength = bytes };
    }

    /// <summary>Rows of codes are not cut out, but found in the whole: the first that is wanted, all being within the slice.</summary>
    private static long FirstOfSlice(WeightRef weight, int rows, int slice, TensorView part, Checkpoint checkpoint)
    {
        long span = rows == 0 ? 0 : (rows - 1L) * weight.RowStep + 1;
        return weight.FirstRow >= 0 && weight.FirstRow <= part.Rows - span
            ? slice * part.Rows + weight.FirstRow
            : throw new EngineException(
                $"expected the shape [{weight.FirstRow + span} or more, …] of a slice, found {part.DescribeShape()}", checkpoint.Path, part.Name);
    }

    /// <summary>MXFP4 blocks of the wanted rows alone: what is joined is their order, and the matrix has no others.</summary>
    private static WeightRows Join(WeightRef weight, int rows, TensorView codes, TensorView scales, Checkpoint checkpoint)
    {
        const int CodeBytes = MXFP4Format.BlockElements / 2;
        if (weight.Transposed || codes.DType != DType.U8 || scales.DType is not (DType.U8 or DType.F8_E8M0)
            || codes.Shape is not [var all, var blocks, CodeBytes] || !scales.Shape.AsSpan().SequenceEqual([all, blocks]))
        {
            throw new EngineException(
                $"expected bytes [rows, blocks, {CodeBytes}] and scales [rows, blocks], found {codes.DescribeShape()} and {scales.DescribeShape()}",
                checkpoint.Path, codes.Name);
        }
        long span = rows == 0 ? 0 : (rows - 1L) * weight.RowStep + 1;
        if (weight.FirstRow < 0 || weight.FirstRow > all - span)
        {
            throw new EngineException($"expected the shape [{weight.FirstRow + span} or more, …], found {codes.DescribeShape()}", checkpoint.Path, codes.Name);
        }
        long rowBytes = blocks * MXFP4Format.BlockBytes;
        var buffer = new UnmanagedBuffer(rows * rowBytes);
        for (int row = 0; row < rows; row++)
        {
            long stored = weight.FirstRow + (long)row * weight.RowStep;
            MXFP4Format.Join(
                codes.Slice(stored * blocks * CodeBytes, checked((int)blocks * CodeBytes)), scales.Row(stored),
                new Span<byte>((byte*)buffer.Address + row * rowBytes, checked((int)rowBytes)));
        }
        codes.Evict();
        scales.Evict();
        var tensor = new TensorView(
            codes.Name, DType.MXFP4, [rows, blocks * MXFP4Format.BlockElements], buffer.Address, rows * rowBytes, buffer);
        return new WeightRows(tensor, 0, 1, false, buffer);
    }
}
