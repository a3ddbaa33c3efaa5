namespace Engine.Sampling;

/// <summary>
/// Divides logits by T &gt; 0: p_i ∝ exp(logit_i / T) (Ackley et al. 1985). The maximum is moved to 0, which changes no probability.
/// </summary>
internal sealed class Temperature(float temperature) : ICandidateStep
{
    public void Apply(ref Candidates candidates) => candidates.Scale(temperature);
}
