using Engine;
using Host.CommandLine;
using Host.Measuring;
using Spectre.Console;

namespace Host.Commands;

/// <summary><c>bench</c> with several models: latency of one sequence, in turns.</summary>
internal static class LatencyBench
{
    public static async Task RunAsync(ModelComparison setup, int promptTokens, int tokens, CancellationToken cancellationToken)
    {
        using LoadedModels models = setup.Load(kvTokens: null, cancellationToken);
        Random random = new(1);
        Latency[][] measured = await setup.RunAsync(models, warmUp: true, MeasureAsync).ConfigureAwait(false);
        LatencyResult result = new(models[0].Model.BackendDescription, promptTokens, tokens, [.. models.Select(Row)]);
        if (setup.Json)
        {
            Terminal.WriteJson(result, HostJson.Default.LatencyResult);
        }
        else
        {
            Print(result);
        }

        async Task<Latency> MeasureAsync(LanguageModel model, int round)
        {
            cancellationToken.ThrowIfCancellationRequested();
            double prompt = promptTokens == 0 ? 0 : promptTokens / Throughput.Prompt(model, promptTokens, random);
            double token = tokens == 0 ? 0 : 1 / await Throughput.GenerationAsync(model, tokens, random, cancellationToken).ConfigureAwait(false);
            return new Latency(1000 * prompt, 1000 * token);
        }

        LatencyRow Row(LoadedModel loaded, int i) => new(
            loaded.Model.Path, loaded.LoadTime.TotalMilliseconds, loaded.Model.WeightBytes, loaded.Model.WeightBytes - models[0].Model.WeightBytes,
            promptTokens == 0 ? null : Spread.Of(measured[i].Select(static run => run.PromptMs)),
            promptTokens == 0 ? null : ModelComparison.Ratio(measured[i], measured[0], static run => run.PromptMs),
            tokens == 0 ? null : Spread.Of(measured[i].Select(static run => run.TokenMs)),
            tokens == 0 ? null : ModelComparison.Ratio(measured[i], measured[0], static run => run.TokenMs));
    }

    private static void Print(LatencyResult result)
    {
        Table table = new Table().AddColumns(
            "model", "load ms", "weights MB", "over first MB", $"ms per prompt of {result.PromptTokens}", "× first", "ms per token", "× first");
        foreach (LatencyRow row in result.Rows)
        {
            table.AddRow(
                Markup.Escape(Terminal.Visible(Path.GetFileName(row.Path.TrimEnd('/')))), $"{row.LoadMs:F0}", $"{row.WeightBytes / 1e6:F1}",
                $"{row.MoreWeightBytes / 1e6:F1}", Cell(row.PromptMs), Ratio(row.PromptRatio), Cell(row.TokenMs), Ratio(row.TokenRatio));
        }
        Terminal.Out.Write(table);
        Console.Out.WriteLine($"{result.Tokens} tokens, one sequence; {result.Backend}");

        static string Cell(Spread? spread) => spread is null ? "" : $"{spread.Median:F2} ({spread.Min:F2} … {spread.Max:F2})";

        static string Ratio(Spread? spread) => spread is null ? "" : $"{spread.Median:F2} ({spread.Min:F2} … {spread.Max:F2})";
    }

    private sealed record Latency(double PromptMs, double TokenMs);
}

/// <summary>What <c>bench --json</c> prints with several models.</summary>
internal sealed record LatencyResult(string Backend, int PromptTokens, int Tokens, IReadOnlyList<LatencyRow> Rows);

/// <summary>A model among several.</summary>
/// <param name="Path">The model.</param>
/// <param name="LoadMs">Loading it.</param>
/// <param name="WeightBytes">Packed weights.</param>
/// <param name="MoreWeightBytes">How many more than the first model's.</param>
/// <param name="PromptMs">A prompt.</param>
/// <param name="PromptRatio">Time of a prompt over the first model's in the same round.</param>
/// <param name="TokenMs">A generated token.</param>
/// <param name="TokenRatio">Time of a token over the first model's in the same round.</param>
internal sealed record LatencyRow(
    string Path,
    double LoadMs,
    long WeightBytes,
    long MoreWeightBytes,
    Spread? PromptMs,
    Spread? PromptRatio,
    Spread? TokenMs,
    Spread? TokenRatio);
