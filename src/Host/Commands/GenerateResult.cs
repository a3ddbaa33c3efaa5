using Engine.Generation;
using Engine.Sampling;

namespace Host.Commands;

/// <summary>What <c>generate --json</c> prints.</summary>
/// <param name="PromptIds">The prompt as the model saw it.</param>
/// <param name="Ids">The tokens generated, an end-of-sequence token included.</param>
/// <param name="Text">Their text, without a stop string.</param>
/// <param name="FinishReason"><c>stop</c> or <c>length</c>.</param>
/// <param name="Usage">Token counts.</param>
/// <param name="Timings">Times and speeds.</param>
/// <param name="Seed">Repeats the run.</param>
/// <param name="Logprobs">For every token, if asked for.</param>
/// <param name="Depth">
/// Recursions of each token of the prompt and then of each generated token but the last, which was not fed; absent where the model does not route
/// tokens to depths.
/// </param>
/// <param name="StreamWeights">For every generated token, if asked for: what the gate gave each stream at the row it was chosen from.</param>
internal sealed record GenerateResult(
    int[] PromptIds,
    IReadOnlyList<int> Ids,
    string Text,
    string FinishReason,
    UsageResult Usage,
    TimingsResult Timings,
    ulong? Seed,
    IReadOnlyList<LogprobsResult>? Logprobs,
    IReadOnlyList<int>? Depth,
    IReadOnlyList<IReadOnlyList<float>>? StreamWeights)
{
    /// <summary>The words of OpenAI's API.</summary>
    public static string NameOf(FinishReason? reason) => reason == Engine.Generation.FinishReason.Length ? "length" : "stop";
}

/// <summary>A token and what else was likely.</summary>
internal sealed record LogprobsResult(int Id, float Logprob, TokenLogprob[] Top);

/// <summary>Token counts.</summary>
internal sealed record UsageResult(int PromptTokens, int CachedTokens, int CompletionTokens, int TotalTokens)
{
    public static UsageResult From(Usage usage) =>
        new(usage.PromptTokens, usage.CachedTokens, usage.CompletionTokens, usage.PromptTokens + usage.CompletionTokens);
}

/// <summary>Times in milliseconds and speeds in tokens per second; a speed is absent where nothing was timed.</summary>
/// <param name="LoadMs">Loading the model.</param>
/// <param name="PromptMs">From the start to the first token.</param>
/// <param name="PromptTokensPerSecond">Prompt tokens over that time.</param>
/// <param name="CompletionMs">From the first token to the last.</param>
/// <param name="CompletionTokensPerSecond">Tokens after the first over that time.</param>
internal sealed record TimingsResult(
    double LoadMs, double PromptMs, double? PromptTokensPerSecond, double CompletionMs, double? CompletionTokensPerSecond)
{
    public static TimingsResult From(Usage usage, TimeSpan loadTime) => new(
        loadTime.TotalMilliseconds,
        usage.PromptTime.TotalMilliseconds,
        Rate(usage.PromptTokens - usage.CachedTokens, usage.PromptTime),
        usage.CompletionTime.TotalMilliseconds,
        Rate(usage.CompletionTokens - 1, usage.CompletionTime));

    private static double? Rate(int tokens, TimeSpan time) => tokens > 0 && time > TimeSpan.Zero ? tokens / time.TotalSeconds : null;
}
