namespace Engine.Sampling;

/// <summary><c>l ← l − α</c> for every recent token, however often it occurs (OpenAI API, <c>presence_penalty</c>).</summary>
internal sealed class PresencePenalty(float penalty) : ILogitStep
{
    public void Apply(Span<float> logits, ReadOnlySpan<TokenCount> recent)
    {
        foreach (TokenCount token in recent)
        {
            logits[token.Id] -= penalty;
        }
    }
}
