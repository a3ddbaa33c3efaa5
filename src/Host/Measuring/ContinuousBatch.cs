using System.Diagnostics;
using Engine;
using Engine.Execution;
using Engine.Generation;
using Engine.Sampling;

namespace Host.Measuring;

/// <summary>What a batch is asked for.</summary>
/// <param name="Slots">Requests that are outstanding at any time; how many of them run together is the model's decision.</param>
/// <param name="Tokens">Tokens that are measured, of all requests together.</param>
/// <param name="MeanLength">Mean of the output lengths, which are normally distributed with a quarter of it as deviation (256 ± 64).</param>
/// <param name="Seed">Chooses lengths, first tokens and draws.</param>
internal sealed record BatchLoad(int Slots, int Tokens, int MeanLength, int Seed)
{
    /// <summary>Standard deviation of the output lengths.</summary>
    public double Deviation => MeanLength / 4.0;

    /// <summary>Tokens before the measurement: two for every slot at least.</summary>
    public int WarmUpTokens => Math.Max(Tokens / 4, 2 * Slots);

    /// <summary>Tokens that a slot's longest sequence holds, four deviations above the mean.</summary>
    public int LongestSequence => 1 + MeanLength + (int)(4 * Deviation);
}

/// <summary>What a batch did.</summary>
/// <param name="TokensPerSecond">Tokens of all sequences over the time in which they came, everything included.</param>
/// <param name="TokensPerCpuSecond">Tokens over the processor time of the whole process: what other programs on the machine disturb less.</param>
/// <param name="MeanBatch">Sequences in a forward pass.</param>
/// <param name="LayersPerToken">Layers that were run for a token.</param>
/// <param name="Reached">Share of the tokens that went through each depth; one entry of 1 in a model without depths.</param>
/// <param name="ExpertsPerToken">Experts read over tokens, of all layers together: one that tokens of a step share is read once.</param>
/// <param name="ExpertBytesPerToken">Their bytes over tokens.</param>
internal sealed record BatchMeasurement(
    double TokensPerSecond, double TokensPerCpuSecond, double MeanBatch, double LayersPerToken, double[] Reached, double ExpertsPerToken,
    double ExpertBytesPerToken);

/// <summary>
/// Throughput of continuous batching through the public interface, as Bae et al. (2025, appendix E) have it: no prompt beyond one token, a queue of requests
/// whose lengths vary, and a new request as soon as one ends. Tokens are drawn at temperature 1, so that they vary too. The clock starts after a warm-up, while
/// all slots are busy, stops while they still are, and counts everything: embedding, layers, head, sampling, keys and values, scheduling, streaming.
/// </summary>
internal sealed class ContinuousBatch
{
    private readonly LanguageModel model;
    private readonly BatchLoad load;
    private readonly Random random;
    private readonly Lock gate = new();
    private readonly long[] depths;
    private int tokens;
    private long start, end;
    private TimeSpan startCpu, endCpu;
    private WorkDone before, after;

    private ContinuousBatch(LanguageModel model, BatchLoad load)
    {
        this.model = model;
        this.load = load;
        random = new Random(load.Seed);
        depths = new long[(model.Plan.Layers.Recursion?.Router is null ? 1 : model.Plan.Layers.Recursion.Depths) + 1];
    }

    /// <summary>Serves requests until enough tokens are measured.</summary>
    public static async Task<BatchMeasurement> RunAsync(LanguageModel model, BatchLoad load, CancellationToken cancellationToken)
    {
        ContinuousBatch batch = new(model, load);
        using CancellationTokenSource done = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task[] slots = [.. Enumerable.Range(0, load.Slots).Select(slot => batch.ServeAsync(slot, done))];
        try
        {
            await Task.WhenAll(slots).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // Measured, or one of them failed; what was still being generated is of no interest.
        }
        await Task.WhenAll(slots.Where(static slot => slot.IsFaulted)).ConfigureAwait(false);
        return batch.Result();
    }

    private async Task ServeAsync(int slot, CancellationTokenSource done)
    {
        try
        {
            await GenerateAsync(slot, done).ConfigureAwait(false);
        }
        finally
        {
            await done.CancelAsync().ConfigureAwait(false);
        }
    }

    private async Task GenerateAsync(int slot, CancellationTokenSource done)
    {
        // The first of a slot ends early by so much that slots do not end together.
        for (GenerationRequest request = Next((slot + 1.0) / load.Slots); ; request = Next(1))
        {
            await foreach (GeneratedToken token in model.GenerateAsync(request, done.Token).ConfigureAwait(false))
            {
                if (IsLast(token.Depth))
                {
                    return;
                }
            }
        }
    }

    private GenerationRequest Next(double share)
    {
        lock (gate)
        {
            // Box and Muller (1958).
            double normal = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
            double length = Math.Clamp(load.MeanLength + load.Deviation * normal, 1, Math.Min(load.LongestSequence, model.ContextLength) - 1);
            return new GenerationRequest
            {
                PromptIds = [random.Next(model.Plan.VocabularySize)],
                MaxTokens = Math.Max(1, (int)(length * share)),
                Sampling = new SamplingOptions { Temperature = 1, TopK = 0, TopP = 1, MinP = 0, Seed = (ulong)random.NextInt64() },
                IgnoreEndOfSequence = true,
            };
        }
    }

    /// <summary>Counts a token; true for the one with which the measurement ends.</summary>
    private bool IsLast(int depth)
    {
        lock (gate)
        {
            tokens++;
            if (tokens == load.WarmUpTokens)
            {
                (start, startCpu, before) = (Stopwatch.GetTimestamp(), Environment.CpuUsage.TotalTime, model.Work);
            }
            else if (tokens > load.WarmUpTokens && tokens <= load.WarmUpTokens + load.Tokens)
            {
                depths[Math.Min(depth, depths.Length - 1)]++;
            }
            if (tokens != load.WarmUpTokens + load.Tokens)
            {
                return false;
            }
            (end, endCpu, after) = (Stopwatch.GetTimestamp(), Environment.CpuUsage.TotalTime, model.Work);
            return true;
        }
    }

    private BatchMeasurement Result()
    {
        double[] reached = new double[depths.Length - 1];
        for (int depth = 0; depth < reached.Length; depth++)
        {
            reached[depth] = depths[(depth + 1)..].Sum() / (double)load.Tokens;
        }
        return new BatchMeasurement(
            load.Tokens / Stopwatch.GetElapsedTime(start, end).TotalSeconds,
            load.Tokens / (endCpu - startCpu).TotalSeconds,
            (double)(after.SequenceSteps - before.SequenceSteps) / (after.Steps - before.Steps),
            (double)(after.RowsRun - before.RowsRun) / (after.Tokens - before.Tokens),
            reached,
            (double)(after.Experts.Slots - before.Experts.Slots) / (after.Tokens - before.Tokens),
            (double)(after.Experts.Bytes - before.Experts.Bytes) / (after.Tokens - before.Tokens));
    }
}
