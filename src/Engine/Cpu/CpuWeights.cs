using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// Gain and bias of a norm as float32, [width] each. With a sum of squares s over w elements, x / √(s/m + ε) = √(m/w) · x / √(s/w + ε·m/w): a mean over another width is
/// in gain and epsilon.
/// </summary>
internal sealed unsafe class CpuNorm : DeviceWeights
{
    private readonly NativeBuffer memory;

    /// <exception cref="EngineException">A tensor is missing, too short, or holds a number that is not finite.</exception>
    public CpuNorm(NormPlan plan, int width, Checkpoint checkpoint)
    {
        Plan = plan;
        Width = width;
        double wider = (double)(plan.MeanWidth ?? width) / width;
        Epsilon = (float)(plan.Epsilon * wider);
        memory = new NativeBuffer((long)width * sizeof(float) * (plan.Bias is null ? 1 : 2), "norm");
        try
        {
            var gain = new Span<float>(Gain, width);
            if (plan.Weight is null)
            {
                gain.Fill(1);
            }
            else
            {
                ReadVector(plan.Weight, gain, checkpoint);
            }
            if (plan.MeanWidth is not null)
            {
                TensorPrimitives.Multiply(gain, (float)Math.Sqrt(wider), gain);
            }
            if (plan.Bias is not null)
            {
                ReadVector(plan.Bias, new Span<float>(Bias, width), checkpoint);
            }
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    public NormPlan Plan { get; }

    public int Width { get; }

    /// <summary>Added to the mean over the width.</summary>
    public float Epsilon { get; }

    public float* Gain => (float*)memory.Address;

    /// <summary>Null where the norm has none.</summary>
    public float* Bias => Plan.Bias is null ? null : Gain + Width;

    public override long Bytes => memory.Bytes;

    public override void Dispose() => memory.Dispose();

    private static void ReadVector(WeightRef weight, Span<float> destination, Checkpoint checkpoint)
    {
        TensorView view = checkpoint[weight.Tensor];
        if (!weight.IsPlain || view.Rows != 1 || weight.FirstRow < 0 || view.Columns < (long)weight.FirstRow + destination.Length)
        {
            throw new EngineException(
                $"expected a vector of {destination.Length} elements from {weight.FirstRow}, found [{string.Join(", ", view.Shape)}]",
                checkpoint.Path, weight.Tensor);
        }
        var all = new float[view.Columns];
        view.DecodeRow(0, all);
        ReadOnlySpan<float> wanted = all.AsSpan(weight.FirstRow, destination.Length);
        for (int i = 0; i < wanted.Length; i++)
        {
            if (!float.IsFinite(wanted[i]))
            {
                throw new EngineException($"element {weight.FirstRow + i} is {wanted[i]}, expected a finite number", checkpoint.Path, weight.Tensor);
            }
        }
        wanted.CopyTo(destination);
        view.Evict();
    }
}

/// <summary>Rows of a table that are decoded where they lie in the file: nothing is copied or expanded.</summary>
internal sealed class MappedTable
{
    private readonly TensorView view;
    private readonly int firstRow;

    /// <exception cref="EngineException">The tensor is missing or its shape does not fit.</exception>
    public MappedTable(WeightRef weight, int columns, Checkpoint checkpoint)
    {
        view = checkpoint[weight.Tensor];
        if (!weight.IsPlain || weight.Transposed || view.Shape.Length != 2 || view.Columns != columns || weight.FirstRow < 0 || weight.FirstRow >= view.Rows)
        {
            throw new EngineException(
                $"expected a table of rows of {columns} elements from row {weight.FirstRow}, found [{string.Join(", ", view.Shape)}]"
                + (weight.Transposed ? " transposed" : ""),
                checkpoint.Path, weight.Tensor);
        }
        firstRow = weight.FirstRow;
        Rows = (int)Math.Min(int.MaxValue, view.Rows - firstRow);
    }

    public int Rows { get; }

    public void DecodeRow(int row, Span<float> destination) => view.DecodeRow((long)firstRow + row, destination);
}
