namespace Engine.Sampling;

/// <summary>
/// Keeps candidates whose probability is at least p times the largest (Nguyen et al. 2024, "Turning up the heat: min-p sampling").
/// </summary>
internal sealed class MinP(float p) : ICandidateStep
{
    // p_i ≥ p · p_max in logits, where no normalisation is needed.
    private readonly float distance = MathF.Log(p);

    public void Apply(ref Candidates candidates) => candidates.KeepAtLeast(candidates.Maximum + distance);
}
