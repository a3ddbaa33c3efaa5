using Engine.Plans;

namespace Host.Measuring;

/// <summary>Bytes of weights that one decoded token reads, as they are stored.</summary>
internal static class WeightTraffic
{
    /// <summary>What every token reads: all matrices of every step but experts, and the rows of the embedding that it looks up.</summary>
    public static long DenseBytesPerToken(ModelPlan plan, WeightBytes sizes)
    {
        long bytes = sizes.Of(plan.Head) + sizes.Row(plan.Embedding.Tokens) + sizes.Row(plan.Embedding.Positions) + sizes.Of(plan.FinalNorm);
        foreach (LayerStep step in plan.Layers.Steps)
        {
            BlockPlan block = plan.Layers.Blocks[step.Block];
            bytes += sizes.Of(step.AttentionNorm) + sizes.Of(step.FeedForwardNorm);
            bytes += block.Attention is null ? 0 : sizes.Of(block.Attention);
            bytes += block.FeedForward is null ? 0 : sizes.Of(block.FeedForward);
            bytes += block.Linears.Sum(sizes.Of) + step.Residuals.Sum(sizes.Of);
            bytes += block.Experts is null ? 0 : sizes.Of(block.Experts.Router);
        }
        return bytes;
    }

    /// <summary>What a token reads of the experts that it is sent to, and of shared ones.</summary>
    /// <param name="plan">What is run.</param>
    /// <param name="sizes">How it is stored.</param>
    /// <param name="perToken">Experts that a token is sent to; null for the plan's number.</param>
    public static long ExpertBytesPerToken(ModelPlan plan, WeightBytes sizes, int? perToken) =>
        plan.Experts().Sum(experts => sizes.PerToken(experts, perToken));
}
