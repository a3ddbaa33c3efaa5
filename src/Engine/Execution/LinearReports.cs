using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// Hands the inputs of linear maps to an observer. A backend runs a mixture of experts as one operation, so its slots are run a second time here, one by one and
/// as ordinary feed-forwards, which packs what is watched once more.
/// </summary>
internal sealed class LinearReports(DeviceArena arena)
{
    private readonly Dictionary<FeedForwardPlan, DeviceWeights> experts = new(ReferenceEqualityComparer.Instance);

    /// <summary>Shows the rows that are about to be multiplied.</summary>
    public void Report(ILinearObserver observer, LinearPlan linear, Activations input)
    {
        if (input.Rows == 0 || !observer.Wants(linear))
        {
            return;
        }
        float[] rows = new float[input.Rows * input.Width];
        arena.Backend.ReadRows(input, rows);
        observer.Take(linear, input.Rows, rows);
    }

    /// <summary>Shows what goes into the linear maps of the slots that rows were sent to.</summary>
    public void Report(ILinearObserver observer, ExpertsPlan plan, Activations input, ExpertSelection selection)
    {
        if (!plan.Slots.Any(slot => observer.Wants(slot.In) || observer.Wants(slot.Down)))
        {
            return;
        }
        int places = selection.Rows * selection.Most;
        int[] slots = new int[places];
        arena.Backend.ReadSelection(selection, slots, new float[places]);
        foreach (IGrouping<int, int> chosen in Enumerable.Range(0, places).Where(place => slots[place] >= 0).GroupBy(place => slots[place]))
        {
            FeedForwardPlan slot = plan.Slots[chosen.Key];
            if (slot.Width > 0)
            {
                Report(observer, slot, input, [.. chosen.Select(place => place / selection.Most)]);
            }
        }
    }

    private void Report(ILinearObserver observer, FeedForwardPlan slot, Activations input, int[] rows)
    {
        Activations chosen = arena.Scratch('X', slot.In.Inputs, rows.Length);
        arena.Backend.Gather(input, rows, chosen);
        Report(observer, slot.In, chosen);
        if (!observer.Wants(slot.Down))
        {
            return;
        }
        if (!experts.TryGetValue(slot, out DeviceWeights? weights))
        {
            experts[slot] = weights = arena.Linear(slot.In);
        }
        Activations inner = arena.Scratch('I', slot.In.Outputs, rows.Length), activated = arena.Scratch('F', slot.Width, rows.Length);
        arena.Backend.Multiply(weights, chosen, inner);
        arena.Backend.Activate(slot.Activation, inner, activated, slot.Clamp);
        Report(observer, slot.Down, activated);
    }
}
