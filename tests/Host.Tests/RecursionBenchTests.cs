using System.Text.Json;
using Host.Measuring;

namespace Host.Tests;

/// <summary><c>bench</c> of models that route tokens to depths.</summary>
public sealed class RecursionBenchTests
{
    [Fact]
    public void ABatchIsCountedAndItsDepthsAndLayersReported()
    {
        string model = GoldenModel.Path("mor/mor_expert_rec3_cache");
        JsonElement run = HostProcess.Run("bench", "-m", model, "-t", "2", "--batch", "1,6", "-n", "20", "-r", "1", "--json").Json
            .GetProperty("runs")[0];
        JsonElement[] batches = [.. run.GetProperty("batches").EnumerateArray()];
        Assert.Equal([1, 6], batches.Select(static batch => batch.GetProperty("batch").GetInt32()));
        foreach (JsonElement batch in batches)
        {
            Assert.True(batch.GetProperty("tokens_per_second").GetDouble() > 0);
            double depth = batch.GetProperty("mean_depth").GetDouble();
            Assert.InRange(depth, 1, 3);
        }
        // Over the whole run, what layers cost is what depths say, but for the rows that are inside when the clock starts and stops: 2 outer layers and 2 per depth.
        double layers = batches[^1].GetProperty("layers_per_token").GetDouble(), mean = batches[^1].GetProperty("mean_depth").GetDouble();
        Assert.InRange(layers, 0.7 * (2 + 2 * mean), 1.3 * (2 + 2 * mean));
        Assert.Equal(8, run.GetProperty("kv_slots").GetInt32());
        Assert.Equal(2 + 2 * (1 + 2 / 3.0 + 1 / 3.0), run.GetProperty("kv_slots_per_token").GetDouble(), 1e-9);
    }

    [Fact]
    public void TheDepthCurveHasAPointForEachDepthAndALine()
    {
        JsonElement curve = HostProcess.Run(
            "bench", "-m", GoldenModel.Path("mor/mor_token_rec3_cache"), "-t", "1", "--depth-curve", "100", "--json").Json
            .GetProperty("runs")[0].GetProperty("depth_curve");
        JsonElement[] depths = [.. curve.GetProperty("depths").EnumerateArray()];
        Assert.InRange(depths.Length, 2, 3);
        Assert.Equal(100, depths.Sum(static point => point.GetProperty("tokens").GetInt32()));
        Assert.InRange(curve.GetProperty("r_squared").GetDouble(), 0, 1 + 1e-9);
    }

    [Fact]
    public void TheLineGoesThroughPointsOnALine()
    {
        DepthCurveResult line = DepthCurve.Fit([Point(1, 50, 5), Point(2, 30, 8), Point(3, 20, 11)]);
        Assert.Equal((2, 3, 1), (Math.Round(line.BaseMilliseconds, 9), Math.Round(line.MillisecondsPerDepth, 9), Math.Round(line.RSquared, 9)));
        Assert.True(DepthCurve.Fit([Point(1, 50, 5), Point(2, 30, 9), Point(3, 20, 5)]).RSquared < 0.5);

        static DepthTime Point(int depth, int tokens, double median) => new(depth, tokens, new Spread(median, median, median));
    }

    [Fact]
    public void ADepthCurveNeedsDepths()
    {
        HostResult result = HostProcess.Run("bench", "-t", "1", "--depth-curve", "10");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("does not route tokens to depths", result.Error, StringComparison.Ordinal);
    }
}
