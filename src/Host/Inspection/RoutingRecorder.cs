using Engine.Execution;
using Engine.Plans;

namespace Host.Inspection;

/// <summary>Counts what routers of experts choose, by layer and slot. Shared experts, which nobody chooses, are left out.</summary>
internal sealed class RoutingRecorder : IExpertObserver
{
    private readonly LayerRouting?[] layers;

    public RoutingRecorder(ModelPlan plan)
    {
        layers = [.. plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block].Experts is { } experts ? new LayerRouting(experts) : null)];
    }

    /// <summary>Layers that have experts, and their numbers.</summary>
    public IEnumerable<(int Layer, LayerRouting Routing)> Layers =>
        layers.Index().Where(static layer => layer.Item is not null).Select(static layer => (layer.Index, layer.Item!));

    public void Chosen(int layer, int most, ReadOnlySpan<int> slots, ReadOnlySpan<float> weights) =>
        layers[layer]!.Add(most, slots, weights);
}

/// <summary>What one layer's router has chosen.</summary>
internal sealed class LayerRouting(ExpertsPlan plan)
{
    private readonly bool[] routed = [.. Enumerable.Range(0, plan.Map.Max() + 1).Select(slot => plan.Map.Contains(slot))];
    private readonly long[] counts = new long[plan.Map.Max() + 1];
    private readonly double[] weights = new double[plan.Map.Max() + 1];

    /// <summary>The mixture.</summary>
    public ExpertsPlan Plan => plan;

    /// <summary>Rows that came.</summary>
    public long Rows { get; private set; }

    /// <summary>How often each slot was chosen: [slots that can be].</summary>
    public IReadOnlyList<long> Counts => counts;

    /// <summary>What it counted in sum.</summary>
    public IReadOnlyList<double> Weights => weights;

    public void Add(int most, ReadOnlySpan<int> slots, ReadOnlySpan<float> rowWeights)
    {
        Rows += slots.Length / most;
        for (int place = 0; place < slots.Length; place++)
        {
            int slot = slots[place];
            if ((uint)slot < (uint)counts.Length && routed[slot])
            {
                counts[slot]++;
                weights[slot] += rowWeights[place];
            }
        }
    }
}
