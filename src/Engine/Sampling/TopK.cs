namespace Engine.Sampling;

/// <summary>Keeps the k likeliest (Fan et al. 2018, "Hierarchical neural story generation"); a k beyond the candidates keeps all.</summary>
internal sealed class TopK(int k) : ICandidateStep
{
    public void Apply(ref Candidates candidates)
    {
        if (k < candidates.Count)
        {
            candidates.KeepLikeliest(k);
        }
    }
}
