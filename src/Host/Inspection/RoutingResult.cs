using Engine;

namespace Host.Inspection;

/// <summary>What <c>inspect --routing --json</c> prints.</summary>
/// <param name="Path">The model.</param>
/// <param name="Family">Its family.</param>
/// <param name="Tokens">Tokens of the text.</param>
/// <param name="Layers">Layers with experts, in order.</param>
/// <param name="Summary">All layers together.</param>
internal sealed record RoutingResult(string Path, string Family, int Tokens, IReadOnlyList<LayerRoutingResult> Layers, RoutingSummary Summary)
{
    /// <summary>What a recorder has counted.</summary>
    public static RoutingResult Of(LanguageModel model, int tokens, RoutingRecorder recorder, int? perToken)
    {
        LayerRoutingResult[] layers = [.. recorder.Layers.Select(layer => LayerRoutingResult.Of(layer.Layer, layer.Routing, perToken))];
        LayerRoutingResult busiest = layers.MaxBy(static layer => layer.Busiest.Share)!;
        return new RoutingResult(model.Path, model.Plan.Family, tokens, layers, new RoutingSummary(
            layers.Average(static layer => layer.EntropyBits), layers.Average(static layer => layer.EntropyFraction), busiest.Layer, busiest.Busiest,
            layers.Sum(static layer => layer.Unused.Count), layers.Sum(static layer => layer.Experts - layer.Dropped)));
    }
}

/// <summary>What one router has chosen.</summary>
/// <param name="Layer">Which layer, from 0: an application of a block, in the order in which they run.</param>
/// <param name="Experts">Experts that the router knows.</param>
/// <param name="Dropped">Those of them that were dropped.</param>
/// <param name="Slots">Distinct feed-forwards that they stand for.</param>
/// <param name="PerToken">Experts that a token is sent to.</param>
/// <param name="Tokens">Tokens that came.</param>
/// <param name="Counts">[slots]: how often each was chosen.</param>
/// <param name="Weights">[slots]: what it counted in sum.</param>
/// <param name="Map">The slot of each expert, −1 for a dropped one; absent where it has the expert's number.</param>
/// <param name="EntropyBits">Of the distribution of choices over slots.</param>
/// <param name="EntropyFraction">Of log₂ slots, which is the most; 1 where there is one slot.</param>
/// <param name="Busiest">Which was chosen most.</param>
/// <param name="Unused">Experts, not dropped, that no token was sent to.</param>
internal sealed record LayerRoutingResult(
    int Layer,
    int Experts,
    int Dropped,
    int Slots,
    int PerToken,
    long Tokens,
    IReadOnlyList<long> Counts,
    IReadOnlyList<double> Weights,
    IReadOnlyList<int>? Map,
    double EntropyBits,
    double EntropyFraction,
    BusiestExpert Busiest,
    IReadOnlyList<int> Unused)
{
    public static LayerRoutingResult Of(int layer, LayerRouting routing, int? perToken)
    {
        int[] map = [.. routing.Plan.Map];
        double total = routing.Counts.Sum();
        double entropy = routing.Counts.Where(static count => count > 0).Sum(count => -count / total * Math.Log2(count / total));
        int slot = routing.Counts.Index().MaxBy(static count => count.Item).Index;
        int slots = map.Where(static place => place >= 0).Distinct().Count();
        return new LayerRoutingResult(
            layer, map.Length, map.Count(static place => place < 0), slots, Engine.Plans.Mixtures.PerToken(routing.Plan, perToken), routing.Rows,
            routing.Counts, routing.Weights, map.SequenceEqual(Enumerable.Range(0, map.Length)) ? null : map,
            entropy, slots == 1 ? 1 : entropy / Math.Log2(slots), new BusiestExpert(Array.IndexOf(map, slot), routing.Counts[slot] / total),
            [.. Enumerable.Range(0, map.Length).Where(expert => map[expert] >= 0 && routing.Counts[map[expert]] == 0)]);
    }

    /// <summary>
    /// How often an expert was chosen over how often it would be if all were chosen alike; merged experts are one. Null for one that was dropped.
    /// </summary>
    public double? RelativeLoad(int expert)
    {
        int slot = Map is null ? expert : Map[expert];
        return slot < 0 ? null : Counts[slot] * (double)Slots / Counts.Sum();
    }
}

/// <summary>The expert that is chosen most.</summary>
/// <param name="Expert">Which; of merged ones the first.</param>
/// <param name="Share">Of all choices of the layer; at most 1 / experts per token where none were merged.</param>
internal sealed record BusiestExpert(int Expert, double Share);

/// <summary>All layers together.</summary>
/// <param name="EntropyBits">Mean over the layers.</param>
/// <param name="EntropyFraction">Mean over the layers.</param>
/// <param name="BusiestLayer">The layer with the busiest expert.</param>
/// <param name="Busiest">That expert.</param>
/// <param name="Unused">Experts of all layers that no token was sent to.</param>
/// <param name="Experts">Experts of all layers, without dropped ones.</param>
internal sealed record RoutingSummary(
    double EntropyBits, double EntropyFraction, int BusiestLayer, BusiestExpert Busiest, int Unused, int Experts);
