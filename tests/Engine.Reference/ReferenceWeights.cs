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
    private readonly TensorView view;
    private readonly int firstRow;
    private readonly float[]? transposed;

    /// <param name="rows">Rows wanted, or null for all there are.</param>
    public ReferenceMatrix(WeightRef weight, int? rows, int columns, Checkpoint checkpoint)
    {
        view = checkpoint[weight.Tensor];
        firstRow = weight.FirstRow;
        long rowsInFile = weight.Transposed ? view.Columns : view.Rows;
        long columnsInFile = weight.Transposed ? view.Rows : view.Columns;
        Rows = rows ?? checked((int)(rowsInFile - firstRow));
        if (view.Shape.Length < 2 || columnsInFile != columns || firstRow < 0 || Rows < 0 || rowsInFile < (long)firstRow + Rows)
        {
            throw new EngineException(
                $"expected at least {(long)firstRow + Rows} rows of {columns} columns, found {rowsInFile} of {columnsInFile}",
                checkpoint.Path, weight.Tensor);
        }
        if (weight.Transposed)
        {
            transposed = new float[(long)Rows * columns];
            var fileRow = new float[rowsInFile];
            for (int column = 0; column < columns; column++)
            {
                WeightCodec.Decode(view, column, fileRow);
                for (int row = 0; row < Rows; row++)
                {
                    transposed[(long)row * columns + column] = fileRow[firstRow + row];
                }
            }
        }
    }

    public int Rows { get; }

    /// <summary>Writes a row's weights as float32, which holds every format's values exactly.</summary>
    public void ReadRow(int row, Span<float> destination)
    {
        if (transposed is null)
        {
            WeightCodec.Decode(view, firstRow + row, destination);
        }
        else
        {
            transposed.AsSpan(row * destination.Length, destination.Length).CopyTo(destination);
        }
    }

    /// <summary>Reads a gain or bias of <paramref name="length"/> elements.</summary>
    public static float[] ReadVector(WeightRef weight, int length, Checkpoint checkpoint)
    {
        TensorView view = checkpoint[weight.Tensor];
        if (view.Rows != 1 || weight.FirstRow < 0 || view.Columns < (long)weight.FirstRow + length)
        {
            throw new EngineException(
                $"expected a vector of {length} elements from {weight.FirstRow}, found [{string.Join(", ", view.Shape)}]",
                checkpoint.Path, weight.Tensor);
        }
        var all = new float[view.Columns];
        WeightCodec.Decode(view, 0, all);
        return all.AsSpan(weight.FirstRow, length).ToArray();
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

    /// <summary>Per part: W [outputs, inputs] and b [outputs].</summary>
    public (ReferenceMatrix Weight, float[]? Bias)[] Parts { get; } = [.. plan.Parts.Select(part => (
        new ReferenceMatrix(part.Weight, part.Outputs, plan.Inputs, checkpoint),
        part.Bias is null ? null : ReferenceMatrix.ReadVector(part.Bias, part.Outputs, checkpoint)))];
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

    public float[] Gain { get; } = ReferenceMatrix.ReadVector(plan.Weight, width, checkpoint);

    public float[]? Bias { get; } = plan.Bias is null ? null : ReferenceMatrix.ReadVector(plan.Bias, width, checkpoint);
}

internal sealed class ReferenceRope(RopePlan plan, int contextLength) : ReferenceWeights
{
    public RopePlan Plan { get; } = plan;

    public int ContextLength { get; } = contextLength;
}
