using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>
/// The rows of a <see cref="WeightRef"/>, decoded when they are asked for, so that a large model needs no memory beyond its file. Only a transposed
/// matrix is decoded as a whole, because its rows are columns of the file.
/// </summary>
internal sealed class ReferenceMatrix
{
    private static readonly float[] e2m1 = [0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0f, -0.5f, -1, -1.5f, -2, -3, -4, -6];

    private readonly TensorView view;
    private readonly TensorView? scales;
    private readonly long firstRow;
    private readonly int rowStep;
    private readonly float[]? transposed;

    /// <param name="rows">Rows wanted, or null for all there are.</param>
    public ReferenceMatrix(WeightRef weight, int? rows, int columns, Checkpoint checkpoint)
    {
        view = checkpoint[weight.Tensor];
        scales = weight.Scales is null ? null : checkpoint[weight.Scales];
        rowStep = weight.RowStep;
        // A slice is a matrix by itself; blocks of codes, [.., rows, blocks, 16], are rows of 32 each.
        int least = 2 + (weight.Slice is null ? 0 : 1) + (scales is null ? 0 : 1);
        (long fileRows, long fileColumns) = view.Shape.Length < least ? (0, 0)
            : scales is not null ? (view.Shape[^3], view.Shape[^2] * 32)
            : weight.Slice is not null ? (view.Shape[^2], view.Shape[^1]) : (view.Rows, view.Columns);
        long slice = fileRows * (weight.Slice ?? 0);
        (long rowsInFile, long columnsInFile) = weight.Transposed ? (fileColumns, fileRows) : (fileRows, fileColumns);
        Rows = rows ?? checked((int)(rowsInFile - weight.FirstRow));
        if (columnsInFile != columns || weight.FirstRow < 0 || Rows < 0 || rowsInFile < weight.FirstRow + (Rows == 0 ? 0 : (Rows - 1L) * rowStep + 1)
            || weight.Slice < 0 || weight.Slice >= view.Shape[0])
        {
            throw new EngineException(
                $"expected at least {(long)weight.FirstRow + Rows} rows of {columns} columns, found {rowsInFile} of {columnsInFile}",
                checkpoint.Path, weight.Tensor);
        }
        firstRow = slice + weight.FirstRow;
        if (weight.Transposed)
        {
            transposed = new float[(long)Rows * columns];
            var fileRow = new float[rowsInFile];
            for (int column = 0; column < columns; column++)
            {
                WeightCodec.Decode(view, slice + column, fileRow);
                for (int row = 0; row < Rows; row++)
                {
                    transposed[(long)row * columns + column] = fileRow[weight.FirstRow + row * rowStep];
                }
            }
        }
    }

    public int Rows { get; }

    /// <summary>Writes a row's weights as float32, which holds every format's values exactly.</summary>
    public void ReadRow(int row, Span<float> destination)
    {
        long stored = firstRow + (long)row * rowStep;
        if (transposed is not null)
        {
            transposed.AsSpan(row * destination.Length, destination.Length).CopyTo(destination);
        }
        else if (scales is not null)
        {
            // Byte j of a block holds elements 2j and 2j + 1 (transformers, integrations/mxfp4.py).
            for (int i = 0; i < destination.Length; i++)
            {
                byte pair = view.Row(stored * (destination.Length / 32) + i / 32)[i % 32 / 2];
                destination[i] = MathF.ScaleB(e2m1[i % 2 == 0 ? pair & 15 : pair >> 4], scales.Row(stored)[i / 32] - 127);
            }
        }
        else
        {
            WeightCodec.Decode(view, stored, destination);
        }
    }

    /// <summary>Reads a gain or bias of <paramref name="length"/> elements.</summary>
    public static float[] ReadVector(WeightRef weight, int length, Checkpoint checkpoint)
    {
        TensorView view = checkpoint[weight.Tensor];
        int row = weight.Slice ?? 0;
        if ((weight.Slice is null && view.Rows != 1) || row >= view.Rows || weight.FirstRow < 0
            || view.Columns < weight.FirstRow + (length - 1L) * weight.RowStep + 1)
        {
            throw new EngineException(
                $"expected a vector of {length} elements from {weight.FirstRow}, found [{string.Join(", ", view.Shape)}]",
                checkpoint.Path, weight.Tensor);
        }
        var all = new float[view.Columns];
        WeightCodec.Decode(view, row, all);
        return [.. Enumerable.Range(0, length).Select(i => all[weight.FirstRow + i * weight.RowStep])];
    }
}

/// <summary>Weights of the reference: nothing is packed.</summary>
internal abstract class ReferenceWeights : DeviceWeights
{
    public override long Bytes => 0;

    public override void Dispose()
    {
    }
}

internal sealed class ReferenceLinear(LinearPlan plan, Checkpoint checkpoint) : ReferenceWeights
{
    public LinearPlan Plan { get; } = plan;

    /// <summary>Per part: W [outputs, inputs], b [outputs], A [rank, inputs] and B [outputs, rank].</summary>
    public (LinearPart Part, ReferenceMatrix? Weight, float[]? Bias, ReferenceMatrix? A, ReferenceMatrix? B)[] Parts { get; } = [.. plan.Parts.Select(part => (
        part,
        part.Weight is null ? null : new ReferenceMatrix(part.Weight, part.Outputs, plan.Inputs, checkpoint),
        part.Bias is null ? null : ReferenceMatrix.ReadVector(part.Bias, part.Outputs, checkpoint),
        part.LowRank is null ? null : new ReferenceMatrix(part.LowRank.A, part.LowRank.Rank, plan.Inputs, checkpoint),
        part.LowRank is null ? null : new ReferenceMatrix(part.LowRank.B, part.Outputs, part.LowRank.Rank, checkpoint)))];
}

internal sealed class ReferenceHeads(HeadLinearPlan plan, Checkpoint checkpoint) : ReferenceWeights
{
    private readonly float[][] rows = Read(plan, checkpoint);

    public HeadLinearPlan Plan { get; } = plan;

    public double Weight(int head, int output, int input)
    {
        int row = Plan.Weight.FirstRow + head * Plan.RowsPerHead;
        return Plan.Weight.Transposed ? rows[row + input][output] : rows[row + output][input];
    }

    private static float[][] Read(HeadLinearPlan plan, Checkpoint checkpoint)
    {
        int count = plan.Weight.FirstRow + (plan.Heads - 1) * plan.RowsPerHead + plan.StoredRows;
        var matrix = new ReferenceMatrix(new WeightRef(plan.Weight.Tensor), count, plan.StoredColumns, checkpoint);
        var rows = new float[count][];
        for (int row = 0; row < count; row++)
        {
            matrix.ReadRow(row, rows[row] = new float[plan.StoredColumns]);
        }
        return rows;
    }
}

internal sealed class ReferenceEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint) : ReferenceWeights
{
    public int HiddenSize { get; } = hiddenSize;

    public ReferenceMatrix Tokens { get; } = new(plan.Tokens, null, hiddenSize, checkpoint);

    public ReferenceMatrix? Positions { get; } = plan.Positions is null ? null : new(plan.Positions, null, hiddenSize, checkpoint);
}

internal sealed class ReferenceNorm(NormPlan plan, int width, Checkpoint checkpoint) : ReferenceWeights
{
    public NormPlan Plan { get; } = plan;

    public float[] Gain { get; } = plan.Weight is null ? [.. Enumerable.Repeat(1f, width)] : ReferenceMatrix.ReadVector(plan.Weight, width, checkpoint);

    public float[]? Bias { get; } = plan.Bias is null ? null : ReferenceMatrix.ReadVector(plan.Bias, width, checkpoint);
}

internal sealed class ReferenceRope(RopePlan plan, int contextLength) : ReferenceWeights
{
    public RopePlan Plan { get; } = plan;

    public int ContextLength { get; } = contextLength;
}

internal sealed class ReferenceExperts(ExpertsPlan plan, Checkpoint checkpoint) : ReferenceWeights
{
    /// <summary>Per slot its plan and linear maps; null where its width is 0.</summary>
    public (FeedForwardPlan Plan, ReferenceLinear In, ReferenceLinear Down)?[] Slots { get; } = [.. plan.Slots.Select(
        slot => slot.Width == 0
            ? ((FeedForwardPlan, ReferenceLinear, ReferenceLinear)?)null
            : (slot, new ReferenceLinear(slot.In, checkpoint), new ReferenceLinear(slot.Down, checkpoint)))];
}
