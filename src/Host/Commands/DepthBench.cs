using Host.CommandLine;
using Host.Measuring;
using Spectre.Console;

namespace Host.Commands;

/// <summary><c>bench --depth-curve</c>: the time of a token against its depth.</summary>
internal static class DepthBench
{
    private const int Seed = 1;

    public static async Task RunAsync(ModelComparison setup, int tokens, CancellationToken cancellationToken)
    {
        using LoadedModels models = setup.Load(kvTokens: null, cancellationToken);
        DepthCurve[][] curves = await (setup with { Repetitions = 1 }).RunAsync(
            models, warmUp: false, (model, _) => Task.FromResult(DepthCurve.Measure(model, tokens, Seed, cancellationToken))).ConfigureAwait(false);
        DepthCurveResult result = new(
            models[0].Model.BackendDescription, [.. models.Select((model, i) => new ModelDepthCurve(model.Model.Path, curves[i][0]))]);
        if (setup.Json)
        {
            Terminal.WriteJson(result, HostJson.Default.DepthCurveResult);
            return;
        }
        foreach (ModelDepthCurve model in result.Models)
        {
            Table table = new Table().AddColumns("depth", "tokens", "ms per token", "line");
            foreach (DepthPoint point in model.Curve.Points)
            {
                table.AddRow(
                    $"{point.Depth}", $"{point.Tokens}", $"{point.Milliseconds.Median:F2} ({point.Milliseconds.Min:F2} … {point.Milliseconds.Max:F2})",
                    $"{model.Curve.MillisecondsOutside + point.Depth * model.Curve.MillisecondsPerDepth:F2}");
            }
            Console.Out.WriteLine(Terminal.Visible(model.Path));
            Terminal.Out.Write(table);
            Console.Out.WriteLine(
                $"{model.Curve.MillisecondsOutside:F2} ms + {model.Curve.MillisecondsPerDepth:F2} ms per depth, r² {model.Curve.RSquared:F5}");
        }
        Console.Out.WriteLine(result.Backend);
    }
}

/// <summary>What <c>bench --depth-curve --json</c> prints.</summary>
internal sealed record DepthCurveResult(string Backend, IReadOnlyList<ModelDepthCurve> Models);

/// <summary>A model's curve.</summary>
internal sealed record ModelDepthCurve(string Path, DepthCurve Curve);
