using Engine.Plans;

namespace Host.Inspection;

/// <summary>What a layer has; 0 for what it lacks.</summary>
/// <param name="Heads">Query heads.</param>
/// <param name="KvHeads">Key and value heads.</param>
/// <param name="FeedForwardWidth">Inner width of the feed-forward.</param>
internal sealed record LayerShape(int Heads, int KvHeads, int FeedForwardWidth)
{
    /// <summary>Those of a plan whose layers differ; null where all are alike, or where some have experts.</summary>
    public static IReadOnlyList<LayerShape>? Of(ModelPlan plan)
    {
        LayerShape[] shapes =
        [
            .. plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block])
                .Select(static block => new LayerShape(block.Attention?.Heads ?? 0, block.Attention?.KvHeads ?? 0, block.FeedForward?.Width ?? 0)),
        ];
        return plan.Experts().Any() || shapes.Distinct().Count() == 1 ? null : shapes;
    }

    /// <summary>In a line: the least and the most of each, and what is gone.</summary>
    public static string Describe(IReadOnlyList<LayerShape> shapes)
    {
        int[] heads = [.. shapes.Select(static shape => shape.Heads)], widths = [.. shapes.Select(static shape => shape.FeedForwardWidth)];
        return $"layers differ: heads {Range(heads)}/{Range([.. shapes.Select(static shape => shape.KvHeads)])}, feed-forward {Range(widths)}"
            + Without(heads, "attention") + Without(widths, "feed-forward");
    }

    private static string Range(int[] counts)
    {
        int[] present = [.. counts.Where(static count => count > 0)];
        return present.Length == 0 ? "0" : present.Min() == present.Max() ? $"{present[0]}" : $"{present.Min()}–{present.Max()}";
    }

    private static string Without(int[] counts, string what) => counts.Count(static count => count == 0) is > 0 and var gone ? $"; {gone} without {what}" : "";
}
