namespace Engine.Sampling;

/// <summary>A step that changes logits by id: biases and penalties. It runs before anything is truncated.</summary>
internal interface ILogitStep
{
    /// <summary>Changes logits in place.</summary>
    /// <param name="logits">[vocabularySize].</param>
    /// <param name="recent">The distinct tokens of the penalty window, ascending by id.</param>
    void Apply(Span<float> logits, ReadOnlySpan<TokenCount> recent);
}

/// <summary>A step that removes or rescales candidates. Any order of steps is valid; each sees what the one before it left.</summary>
internal interface ICandidateStep
{
    /// <summary>Changes the candidates; at least one stays.</summary>
    void Apply(ref Candidates candidates);
}
