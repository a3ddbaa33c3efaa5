namespace Engine.Plans;

/// <summary>
/// Which of LongRoPE's two tables of factors a model is run with (Ding et al. 2024). Keys are cached rotated, so one table serves all sequences, and the context
/// that is asked for chooses it when a model is loaded, as in llama.cpp: more than the original context takes the long factors. transformers changes tables in the
/// middle of a sequence that grows, and leaves the keys that it has cached as they were.
/// </summary>
public static class LongContext
{
    /// <summary>The plan for a context: as it is, or with the long rotations in place of the short ones.</summary>
    /// <param name="plan">A plan.</param>
    /// <param name="contextLength">The longest sequence that is asked for; null for the usual one.</param>
    public static ModelPlan Apply(ModelPlan plan, int? contextLength)
    {
        ArgumentNullException.ThrowIfNull(plan);
        if (plan.LongContextLength is not { } extended || contextLength is null || contextLength <= plan.ContextLength)
        {
            return plan;
        }
        // Layers that share attention go on sharing it: what is the same object is loaded once.
        var attentions = new Dictionary<AttentionPlan, AttentionPlan>(ReferenceEqualityComparer.Instance);
        return plan with
        {
            ContextLength = extended,
            LongContextLength = null,
            Layers = plan.Layers with { Blocks = [.. plan.Layers.Blocks.Select(block => block with { Attention = Extend(block.Attention) })] },
        };

        AttentionPlan? Extend(AttentionPlan? attention)
        {
            if (attention?.Rope is not { Long: { } rope })
            {
                return attention;
            }
            attentions.TryAdd(attention, attention with { Rope = rope });
            return attentions[attention];
        }
    }
}
