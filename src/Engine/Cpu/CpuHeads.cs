using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// The linear maps of heads as float32, [heads, panels, inputs, panelOutputs]: a panel is what one pass over the tokens reads, row after row. The last panel of
/// a head is filled up with zeros.
/// </summary>
internal sealed unsafe class CpuHeads : DeviceWeights
{
    /// <summary>Outputs of a panel: with 128 inputs, a panel is a first-level cache.</summary>
    public const int PanelOutputs = 64;

    private readonly NativeBuffer memory;

    /// <param name="plan">What to pack.</param>
    /// <param name="checkpoint">Where the tensor is.</param>
    /// <param name="forEach">Runs a body for 0 … n − 1 on all threads.</param>
    /// <exception cref="EngineException">The tensor is missing, its shape does not fit, or it holds a number that is not finite.</exception>
    public CpuHeads(HeadLinearPlan plan, Checkpoint checkpoint, Action<int, Action<int>> forEach)
    {
        Plan = plan;
        TensorView view = checkpoint[plan.Weight.Tensor];
        long rows = plan.Weight.FirstRow + (plan.Heads - 1L) * plan.RowsPerHead + plan.StoredRows;
        if (!plan.Weight.IsPlain || plan.Heads < 1 || plan.Inputs < 1 || plan.Outputs < 1 || plan.Carried < 0 || plan.Weight.FirstRow < 0 || plan.RowsPerHead < 0
            || view.Shape.Length < 2 || view.Columns != plan.StoredColumns || view.Rows < rows)
        {
            throw new EngineException(
                $"expected at least {rows} rows of {plan.StoredColumns} columns for {plan.Heads} heads, found [{string.Join(", ", view.Shape)}]",
                checkpoint.Path, plan.Weight.Tensor);
        }
        memory = new NativeBuffer(checked(plan.Heads * HeadFloats * sizeof(float)), "heads' linear maps");
        try
        {
            forEach(plan.Heads, head => Pack(view, head, checkpoint.Path));
        }
        catch
        {
            memory.Dispose();
            throw;
        }
        view.Evict();
    }

    public HeadLinearPlan Plan { get; }

    /// <summary>Panels of a head.</summary>
    public int Panels => (Plan.Outputs + PanelOutputs - 1) / PanelOutputs;

    public float* Address => (float*)memory.Address;

    /// <inheritdoc/>
    public override long Bytes => memory.Bytes;

    private long PanelFloats => (long)Plan.Inputs * PanelOutputs;

    private long HeadFloats => Panels * PanelFloats;

    /// <inheritdoc/>
    public override void Dispose() => memory.Dispose();

    private void Pack(TensorView view, int head, string? path)
    {
        float* panels = Address + head * HeadFloats;
        for (int panel = 0; panel < Panels; panel++)
        {
            new Span<float>(panels + panel * PanelFloats, checked((int)PanelFloats)).Clear();
        }
        var values = new float[Plan.StoredColumns];
        long first = Plan.Weight.FirstRow + (long)head * Plan.RowsPerHead;
        for (int row = 0; row < Plan.StoredRows; row++)
        {
            view.DecodeRow(first + row, values);
            for (int column = 0; column < values.Length; column++)
            {
                if (!float.IsFinite(values[column]))
                {
                    throw new EngineException($"element {column} of row {first + row} is {values[column]}, expected a finite number", path, Plan.Weight.Tensor);
                }
                (int output, int input) = Plan.Weight.Transposed ? (column, row) : (row, column);
                (int panel, int inPanel) = Math.DivRem(output, PanelOutputs);
                panels[panel * PanelFloats + (long)input * PanelOutputs + inPanel] = values[column];
            }
        }
    }
}
