using Engine;
using Engine.Plans;
using Host.CommandLine;
using Host.Measuring;
using Spectre.Console;

namespace Host.Commands;

/// <summary><c>bench --batch</c>: throughput of continuous batching.</summary>
internal static class BatchBench
{
    public static async Task RunAsync(
        ModelComparison setup, IReadOnlyList<int> batches, int tokensPerSlot, int meanLength, CancellationToken cancellationToken)
    {
        // Every model meets the same requests in a round, and other ones in the next.
        BatchLoad Load(int slots, int round = 0) => new(slots, slots * tokensPerSlot, meanLength, Seed: round);
        // Room for every sequence and its last page.
        long kvTokens = batches.Max() * (Load(1).LongestSequence + (long)setup.Options.PageTokens);
        using LoadedModels models = setup.Load(kvTokens, cancellationToken);
        List<BatchRow> rows = [];
        foreach (int slots in batches)
        {
            BatchMeasurement[][] measured = await setup.RunAsync(
                models, warmUp: false, (model, round) => ContinuousBatch.RunAsync(model, Load(slots, round), cancellationToken)).ConfigureAwait(false);
            for (int i = 0; i < models.Count; i++)
            {
                rows.Add(BatchRow.Of(models[i].Model, slots, measured[i], measured[0]));
            }
        }
        BatchResult result = new(
            models[0].Model.BackendDescription, tokensPerSlot, meanLength, Load(1).Deviation, rows);
        if (setup.Json)
        {
            Terminal.WriteJson(result, HostJson.Default.BatchResult);
        }
        else
        {
            Print(result);
        }
    }

    private static void Print(BatchResult result)
    {
        bool hasExperts = result.Rows.Any(static row => row.ExpertsPerToken is not null);
        Table table = new Table().AddColumns(
        [
            "model", "requests", "mean batch", "tokens/s", "× first", "tokens/CPU s", "× first", "mean depth", "layers/token",
            .. hasExperts ? ["experts/token", "expert MB/token"] : Array.Empty<string>(), "KV B/token", "saved", "KV B/token by depth", "weights MB", "KV MB",
        ]);
        foreach (BatchRow row in result.Rows)
        {
            string[] experts = hasExperts ? [$"{row.ExpertsPerToken:F1}", $"{row.ExpertBytesPerToken / 1e6:F1}"] : [];
            table.AddRow(
            [
                Markup.Escape(Terminal.Visible(Path.GetFileName(row.Path.TrimEnd('/')))), $"{row.Requests}", $"{row.MeanBatch:F1}",
                $"{row.TokensPerSecond.Median:F1} ({row.TokensPerSecond.Min:F1} … {row.TokensPerSecond.Max:F1})", $"{row.Ratio.Median:F2}",
                $"{row.TokensPerCpuSecond.Median:F1}", $"{row.CpuRatio.Median:F2}",
                row.MeanDepth is { } depth ? $"{depth:F2}" : "", $"{row.LayersPerToken:F2}", .. experts, $"{row.Kv.Stored:F0}",
                $"{row.Kv.Saved:P0}", string.Join(", ", row.Kv.PerDepth.Select(static bytes => $"{bytes:F0}")), $"{row.WeightBytes / 1e6:F0}",
                $"{row.KvBytes / 1e6:F0}",
            ]);
        }
        Terminal.Out.Write(table);
        Console.Out.WriteLine(
            $"lengths {result.MeanLength} ± {result.LengthDeviation:F0}, {result.TokensPerSlot} tokens measured per request outstanding; "
            + "everything counts: embedding, layers, head, sampling, keys and values, scheduling, streaming");
        Console.Out.WriteLine(result.Backend);
    }
}

/// <summary>What <c>bench --batch --json</c> prints.</summary>
/// <param name="Backend">Device, instruction set, threads.</param>
/// <param name="TokensPerSlot">Tokens measured in a round, divided by the requests outstanding.</param>
/// <param name="MeanLength">Mean output length.</param>
/// <param name="LengthDeviation">Standard deviation of the output lengths.</param>
/// <param name="Rows">One for each batch and model.</param>
internal sealed record BatchResult(
    string Backend, int TokensPerSlot, int MeanLength, double LengthDeviation, IReadOnlyList<BatchRow> Rows);

/// <summary>A model at a batch.</summary>
/// <param name="Path">The model.</param>
/// <param name="Requests">Requests outstanding.</param>
/// <param name="MeanBatch">Sequences in a forward pass, which memory may have limited; those whose tokens are all inside count too.</param>
/// <param name="TokensPerSecond">Throughput.</param>
/// <param name="Ratio">Throughput over the first model's of the same round.</param>
/// <param name="TokensPerCpuSecond">Throughput by processor time.</param>
/// <param name="CpuRatio">That over the first model's of the same round.</param>
/// <param name="MeanDepth">Recursions of a token; absent where the model has none.</param>
/// <param name="LayersPerToken">Layers run for a token.</param>
/// <param name="Reached">Share of the tokens that went through each depth.</param>
/// <param name="ExpertsPerToken">
/// Experts read for a token, of all layers together, shared ones included: one that serves several tokens of a step is read once. Absent without experts.
/// </param>
/// <param name="ExpertBytesPerToken">Their bytes.</param>
/// <param name="Kv">Keys and values of a token.</param>
/// <param name="WeightBytes">Packed weights.</param>
/// <param name="KvBytes">What all sequences together may hold.</param>
internal sealed record BatchRow(
    string Path,
    int Requests,
    double MeanBatch,
    Spread TokensPerSecond,
    Spread Ratio,
    Spread TokensPerCpuSecond,
    Spread CpuRatio,
    double? MeanDepth,
    double LayersPerToken,
    double[] Reached,
    double? ExpertsPerToken,
    double? ExpertBytesPerToken,
    KvPerToken Kv,
    long WeightBytes,
    long KvBytes)
{
    public static BatchRow Of(LanguageModel model, int requests, BatchMeasurement[] measured, BatchMeasurement[] first)
    {
        double Mean(Func<BatchMeasurement, double> of) => measured.Average(of);
        bool hasExperts = model.Plan.Experts().Any();
        double[] reached = [.. measured[0].Reached.Select((_, depth) => Mean(run => run.Reached[depth]))];
        return new BatchRow(
            model.Path, requests, Mean(static run => run.MeanBatch), Spread.Of(measured.Select(static run => run.TokensPerSecond)),
            ModelComparison.Ratio(measured, first, static run => run.TokensPerSecond),
            Spread.Of(measured.Select(static run => run.TokensPerCpuSecond)),
            ModelComparison.Ratio(measured, first, static run => run.TokensPerCpuSecond),
            model.Plan.Layers.Recursion?.Router is null ? null : reached.Sum(), Mean(static run => run.LayersPerToken), reached,
            hasExperts ? Mean(static run => run.ExpertsPerToken) : null, hasExperts ? Mean(static run => run.ExpertBytesPerToken) : null,
            KvPerToken.Of(model, reached), model.WeightBytes, model.KvBytes);
    }
}
