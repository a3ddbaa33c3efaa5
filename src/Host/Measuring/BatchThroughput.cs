using System.Diagnostics;
using Engine;
using Engine.Generation;
using Engine.Sampling;

namespace Host.Measuring;

/// <summary>
/// Continuous batching as a server sees it (Bae et al. 2025, appendix E): requests of one token wait in a queue, a fixed number run, and whenever one ends the next begins.
/// Lengths are drawn from Normal(mean, mean / 4). Everything counts: embedding, layers, head, sampling, keys and values, scheduling.
/// </summary>
internal sealed class BatchThroughput(LanguageModel model, int batch, int meanLength)
{
    private readonly Random random = new(1);
    private readonly Lock gate = new();
    private int waiting, tokens, first, counted;
    private long depths, fed, start, end, executionsAtStart, executionsAtEnd;

    /// <summary>Runs three times as many requests as run at once; timed from a full batch in its stride until the queue is empty.</summary>
    public async Task<BatchResult> RunAsync(CancellationToken cancellationToken)
    {
        waiting = 3 * batch;
        first = batch * Math.Max(2, meanLength / 4);
        await Task.WhenAll(Enumerable.Range(0, batch).Select(_ => WorkAsync(cancellationToken))).ConfigureAwait(false);
        double seconds = Stopwatch.GetElapsedTime(start, end).TotalSeconds;
        return new BatchResult(
            batch, meanLength, counted / seconds, fed == 0 ? 1 : (double)depths / fed, (double)(executionsAtEnd - executionsAtStart) / counted, model.Preemptions);
    }

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        while (Next() is { } request)
        {
            await foreach (GeneratedToken token in model.GenerateAsync(request, cancellationToken).ConfigureAwait(false))
            {
                Count(token);
            }
        }
    }

    private GenerationRequest? Next()
    {
        lock (gate)
        {
            if (waiting == 0)
            {
                if (end == 0)
                {
                    (end, counted, executionsAtEnd) = (Stopwatch.GetTimestamp(), tokens - first, model.LayerExecutions);
                }
                return null;
            }
            waiting--;
            double normal = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
            return new GenerationRequest
            {
                PromptIds = [random.Next(model.Plan.VocabularySize)],
                MaxTokens = Math.Clamp((int)(meanLength * (1 + normal / 4)), 1, model.ContextLength - 1),
                IgnoreEndOfSequence = true,
                Sampling = new SamplingOptions { Temperature = 1, Seed = (ulong)random.Next() },
            };
        }
    }

    private void Count(GeneratedToken token)
    {
        lock (gate)
        {
            tokens++;
            if (tokens == first)
            {
                (start, executionsAtStart) = (Stopwatch.GetTimestamp(), model.LayerExecutions);
            }
            if (end == 0 && tokens > first)
            {
                depths += token.Depth;
                fed++;
            }
        }
    }
}

/// <summary>What a batch gave.</summary>
/// <param name="Batch">Sequences at once.</param>
/// <param name="MeanLength">Mean length of a sequence in tokens.</param>
/// <param name="TokensPerSecond">Of all sequences together.</param>
/// <param name="MeanDepth">Recursions of a token on average; 1 in a model without recursion.</param>
/// <param name="LayersPerToken">Layer executions per token on average.</param>
/// <param name="Preemptions">How often a sequence had to give its pages back.</param>
internal sealed record BatchResult(int Batch, int MeanLength, double TokensPerSecond, double MeanDepth, double LayersPerToken, int Preemptions);
