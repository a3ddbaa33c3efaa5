using Engine.Plans;

namespace Engine.Execution;

/// <summary>The packed router of a mixture of experts: from rows to logits.</summary>
internal sealed class ExpertRouter
{
    private readonly DeviceArena arena;
    private readonly RouterPlan plan;
    private readonly DeviceWeights? logits, projection;
    private readonly RouterCell? cell;

    /// <param name="arena">Holds what is loaded.</param>
    /// <param name="mixture">The mixture whose router it is.</param>
    /// <param name="cell">The cell of a recurrent router; null for all others.</param>
    /// <exception cref="EngineException">The router has no logits, and something depends on them; or a tensor does not fit.</exception>
    public ExpertRouter(DeviceArena arena, ExpertsPlan mixture, RouterCell? cell)
    {
        this.arena = arena;
        this.cell = cell;
        plan = mixture.Router;
        bool draws = plan is { Choice: ExpertChoice.Random, Weight: ExpertWeight.One } && mixture.Shared.All(static shared => shared.Gate is null);
        if (plan.Logits.Parts.IsEmpty && !draws)
        {
            throw new EngineException("a router without logits draws its experts, and each of them counts one", item: "router");
        }
        logits = plan.Logits.Parts.IsEmpty ? null : arena.Linear(plan.Logits);
        arena.Scratch('g', plan.Outputs);
        if (plan.Recurrence is { } recurrence)
        {
            projection = arena.Linear(recurrence.Projection);
            arena.Scratch('u', recurrence.Projection.Outputs);
        }
    }

    /// <summary>Logits of every row, [rows, <see cref="RouterPlan.Outputs"/>], valid until the next router's; undefined where nothing depends on them.</summary>
    /// <param name="step">Index of the step that runs.</param>
    /// <param name="normed">The layer's input, [rows, hidden].</param>
    public Activations Logits(int step, Activations normed)
    {
        Activations result = arena.Scratch('g', plan.Outputs, normed.Rows);
        if (logits is not null)
        {
            arena.Backend.Multiply(logits, cell is null ? normed : Advance(cell, step, normed), result);
        }
        return result;
    }

    private Activations Advance(RouterCell cell, int step, Activations normed)
    {
        Activations projected = arena.Scratch('u', plan.Recurrence!.Projection.Outputs, normed.Rows);
        arena.Backend.Multiply(projection!, normed, projected);
        return cell.Advance(step, projected);
    }
}
