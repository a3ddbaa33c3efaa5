using Engine.Plans;

namespace Engine.Execution;

/// <summary>A packed linear map and its plan.</summary>
internal sealed record LinearWeights(LinearPlan Plan, DeviceWeights Weights);

/// <summary>
/// The residual stream of the selected rows. It has the width of the embedding and stays where it is, but for matrices that some models have between sublayers
/// (<see cref="LayerStep.AttentionResidual"/>): behind one it has another width, and is in another buffer.
/// </summary>
internal sealed class ResidualStream
{
    private readonly DeviceArena arena;
    private readonly Activations entered;
    private int loadedWidth;

    /// <param name="arena">Holds buffers and matrices.</param>
    /// <param name="hiddenSize">Width at which rows enter.</param>
    public ResidualStream(DeviceArena arena, int hiddenSize)
    {
        this.arena = arena;
        loadedWidth = hiddenSize;
        entered = Current = arena.Scratch('x', hiddenSize);
    }

    /// <summary>The rows as they are now.</summary>
    public Activations Current { get; private set; }

    /// <summary>Packs what stands before a sublayer's output, in the order of the layers, and makes room for what becomes of the stream.</summary>
    /// <returns>The width that the sublayer reads, and the matrix, null where there is none.</returns>
    public (int Width, LinearWeights? Change) Load(LinearPlan? plan)
    {
        int width = loadedWidth;
        if (plan is null)
        {
            return (width, null);
        }
        loadedWidth = plan.Outputs;
        arena.Scratch(plan.Outputs == width ? 'y' : 'x', plan.Outputs);
        arena.Scratch('x', plan.Outputs);
        return (width, new LinearWeights(plan, arena.Linear(plan)));
    }

    /// <summary>Begins a pass.</summary>
    public void Enter(int rows)
    {
        Current = entered;
        Current.Rows = rows;
    }

    /// <summary>Multiplies the stream with a matrix, where there is one.</summary>
    public void Change(LinearWeights? change)
    {
        if (change is null)
        {
            return;
        }
        Activations before = Current;
        Current = arena.Scratch('x', change.Plan.Outputs, before.Rows);
        if (ReferenceEquals(Current, before))
        {
            Current = arena.Scratch('y', change.Plan.Outputs, before.Rows);
        }
        arena.Backend.Multiply(change.Weights, before, Current);
    }
}
