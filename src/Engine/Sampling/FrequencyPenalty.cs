namespace Engine.Sampling;

/// <summary><c>l ← l − count · α</c> for every recent token (OpenAI API, <c>frequency_penalty</c>).</summary>
internal sealed class FrequencyPenalty(float penalty) : ILogitStep
{
    public void Apply(Span<float> logits, ReadOnlySpan<TokenCount> recent)
    {
        foreach (TokenCount token in recent)
        {
            logits[token.Id] -= token.Count * penalty;
        }
    }
}
