namespace Engine.Sampling;

/// <summary>
/// <c>l ← l / θ</c> where l &gt; 0, <c>l · θ</c> elsewhere, once for every recent token however often it occurs. CTRL (Keskar et al.
/// 2019, section 4.1) divides always; the case for l ≤ 0, which makes θ &gt; 1 discourage in both, is how Hugging Face and llama.cpp
/// corrected it.
/// </summary>
internal sealed class RepetitionPenalty(float penalty) : ILogitStep
{
    public void Apply(Span<float> logits, ReadOnlySpan<TokenCount> recent)
    {
        foreach (TokenCount token in recent)
        {
            ref float logit = ref logits[token.Id];
            logit = logit > 0 ? logit / penalty : logit * penalty;
        }
    }
}
