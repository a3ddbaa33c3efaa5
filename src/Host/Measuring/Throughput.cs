using System.Diagnostics;
using Engine;
using Engine.Generation;
using Engine.Sampling;

namespace Host.Measuring;

/// <summary>Tokens per second of a model, through its public interface.</summary>
internal static class Throughput
{
    /// <summary>One prompt of random tokens into an empty cache; the head runs for the last token only.</summary>
    public static double Prompt(LanguageModel model, int tokens, Random random)
    {
        int[] ids = RandomIds(model, tokens, random);
        using LogitsSession session = model.CreateLogitsSession();
        long start = Stopwatch.GetTimestamp();
        session.Feed(ids);
        return tokens / Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    /// <summary>Greedy generation from one random token, sampling and streaming included; the first token is not timed.</summary>
    public static async Task<double> GenerationAsync(LanguageModel model, int tokens, Random random, CancellationToken cancellationToken)
    {
        GenerationRequest request = new()
        {
            PromptIds = RandomIds(model, 1, random),
            MaxTokens = tokens + 1,
            Sampling = SamplingOptions.Greedy,
            IgnoreEndOfSequence = true,
        };
        Usage? usage = null;
        await foreach (GeneratedToken token in model.GenerateAsync(request, cancellationToken).ConfigureAwait(false))
        {
            usage = token.Usage ?? usage;
        }
        return (usage!.CompletionTokens - 1) / usage.CompletionTime.TotalSeconds;
    }

    private static int[] RandomIds(LanguageModel model, int count, Random random) =>
        [.. Enumerable.Range(0, count).Select(_ => random.Next(model.Plan.VocabularySize))];
}
