using Engine.Plans;

namespace Engine.Execution;

/// <summary>The packed cell of recurrent routers, and its state of every row of a step. Rows stay what they are from the first of its layers to the last.</summary>
internal sealed class RouterCell
{
    private readonly DeviceArena arena;
    private readonly RecurrentCellPlan plan;
    private readonly DeviceWeights input, hidden;
    private readonly Activations state;
    private readonly int firstStep;

    /// <param name="arena">Holds what is loaded.</param>
    /// <param name="plan">What to compute.</param>
    /// <param name="firstStep">The first step of the <see cref="LayerMap"/> whose router has this cell: there the state is zero.</param>
    public RouterCell(DeviceArena arena, RecurrentCellPlan plan, int firstStep)
    {
        this.arena = arena;
        this.plan = plan;
        this.firstStep = firstStep;
        input = arena.Linear(plan.Input);
        hidden = arena.Linear(plan.Hidden);
        state = arena.Allocate(arena.MaxRows, plan.Width);
        arena.Scratch('I', plan.Input.Outputs);
        arena.Scratch('H', plan.Hidden.Outputs);
    }

    /// <summary>The next state of every row, [rows, width], valid until the next layer's.</summary>
    /// <param name="step">Index of the step that runs.</param>
    /// <param name="projected">u, [rows, width].</param>
    public Activations Advance(int step, Activations projected)
    {
        state.Rows = projected.Rows;
        if (step == firstStep)
        {
            arena.Backend.Clear(state);
        }
        Activations ofInput = arena.Scratch('I', plan.Input.Outputs, projected.Rows);
        Activations ofState = arena.Scratch('H', plan.Hidden.Outputs, projected.Rows);
        arena.Backend.Multiply(input, projected, ofInput);
        arena.Backend.Multiply(hidden, state, ofState);
        arena.Backend.Recur(plan.Kind, ofInput, ofState, state);
        return state;
    }
}
