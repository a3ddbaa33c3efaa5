namespace Engine.Sampling;

/// <summary>A token that was chosen.</summary>
/// <param name="Id">Token id.</param>
/// <param name="Logprob">Natural logarithm of its probability in the model's own distribution, before bias, penalties, truncation and
/// temperature.</param>
public readonly record struct SampledToken(int Id, float Logprob);

/// <summary>A token that could have been chosen.</summary>
/// <param name="Id">Token id.</param>
/// <param name="Logprob">As in <see cref="SampledToken.Logprob"/>.</param>
public readonly record struct TokenLogprob(int Id, float Logprob);
