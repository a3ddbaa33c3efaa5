using Engine.Sampling;

namespace Engine.Generation;

/// <summary>What to generate. Give either <see cref="Prompt"/> or <see cref="PromptIds"/>.</summary>
public sealed record GenerationRequest
{
    /// <summary>Text to continue; tokenized with the model's special tokens (beginning of sequence where the model adds one).</summary>
    public string? Prompt { get; init; }

    /// <summary>Token ids to continue, taken as they are; at least one.</summary>
    public IReadOnlyList<int>? PromptIds { get; init; }

    /// <summary>The most tokens to generate; the context's end is the other limit. Null: until the context is full.</summary>
    public int? MaxTokens { get; init; }

    /// <summary>How tokens are chosen.</summary>
    public SamplingOptions Sampling { get; init; } = new();

    /// <summary>Text that ends the generation; it is not part of the output.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    /// <summary>
    /// Parallel streams, for models that have them: one of the counts that were loaded (ParScale's P). Null: those of the first set.
    /// </summary>
    public int? Streams { get; init; }

    /// <summary>Fills <see cref="GeneratedToken.StreamWeights"/>.</summary>
    public bool ReportStreamWeights { get; init; }

    /// <summary>Goes on through end-of-sequence tokens (for benchmarks).</summary>
    public bool IgnoreEndOfSequence { get; init; }
}

/// <summary>Why a generation ended.</summary>
public enum FinishReason
{
    /// <summary>The model produced an end-of-sequence or end-of-turn token.</summary>
    EndOfSequence,
    /// <summary>The text reached one of the stop strings.</summary>
    StopString,
    /// <summary><see cref="GenerationRequest.MaxTokens"/> or the end of the context.</summary>
    Length,
}

/// <summary>Token counts of a generation.</summary>
/// <param name="PromptTokens">Tokens of the prompt.</param>
/// <param name="CachedTokens">How many of them were found in the prefix cache and not computed again.</param>
/// <param name="CompletionTokens">Tokens generated, an end-of-sequence token included.</param>
/// <param name="PromptTime">From admission to the first token.</param>
/// <param name="CompletionTime">From the first token to the last.</param>
public sealed record Usage(int PromptTokens, int CachedTokens, int CompletionTokens, TimeSpan PromptTime, TimeSpan CompletionTime)
{
    /// <summary>
    /// In a model that routes tokens to depths, how many recursions each token went through: prompt and completion but the last token, which nobody fed. Else empty.
    /// </summary>
    public IReadOnlyList<int> Depths { get; init; } = [];
}

/// <summary>One generated token.</summary>
/// <param name="Id">Token id.</param>
/// <param name="Text">
/// Text that became complete with this token: never half a character, and not what may still become a stop string; so it may lag behind the ids.
/// </param>
/// <param name="Logprob">Natural logarithm of the token's probability under the model, before any sampling step.</param>
/// <param name="Top">The most probable tokens, as many as <see cref="SamplingOptions.Logprobs"/> asks for; else empty.</param>
/// <param name="Finish">Set on the last token.</param>
/// <param name="Usage">Set on the last token.</param>
public readonly record struct GeneratedToken(
    int Id, string Text, float Logprob, IReadOnlyList<TokenLogprob> Top, FinishReason? Finish, Usage? Usage)
{
    /// <summary>Recursions that the token before this one went through, from whose logits this was chosen; 1 in a model without recursion.</summary>
    public int Depth { get; init; }

    /// <summary>
    /// With the first token of a model that routes tokens to depths: how many recursions each token of the prompt went through. Else empty.
    /// </summary>
    public IReadOnlyList<int> PromptDepths { get; init; } = [];

    /// <summary>
    /// What the gate gave each stream at the token before this one, where <see cref="GenerationRequest.ReportStreamWeights"/> asks for it; else empty.
    /// </summary>
    public IReadOnlyList<float> StreamWeights { get; init; } = [];
}
