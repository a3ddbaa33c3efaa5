using System.Text.Json;

namespace Host.Tests;

/// <summary><c>bench</c> with several models, batches and depths.</summary>
public sealed class BenchComparisonTests
{
    private static readonly string Goldens = Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden");
    private static readonly string Routed = Path.Combine(Goldens, "mor", "mor_expert_rec3_cache");
    private static readonly string Recursive = Path.Combine(Goldens, "mor", "recursive_mc_rec2");

    [Fact]
    public void ABatchReportsThroughputAndWhatEarlyExitsSave()
    {
        JsonElement json = HostProcess.Run(
            "bench", "-m", Recursive, "-m", Routed, "--batch", "1,4", "--mean-length", "12", "-n", "20", "-r", "2", "-t", "2", "--json").Json;
        JsonElement[] rows = [.. json.GetProperty("rows").EnumerateArray()];
        Assert.Equal([1, 1, 4, 4], rows.Select(static row => row.GetProperty("requests").GetInt32()));
        foreach (JsonElement row in rows)
        {
            Assert.True(row.GetProperty("tokens_per_second").GetProperty("min").GetDouble() > 0);
            Assert.InRange(row.GetProperty("mean_batch").GetDouble(), 0.5, row.GetProperty("requests").GetInt32());
            JsonElement kv = row.GetProperty("kv");
            bool routes = row.GetProperty("path").GetString() == Routed;
            Assert.Equal(routes, row.TryGetProperty("mean_depth", out JsonElement depth));
            Assert.Equal(routes ? 3 : 0, kv.GetProperty("per_depth").GetArrayLength());
            double[] perDepth = [.. kv.GetProperty("per_depth").EnumerateArray().Select(static bytes => bytes.GetDouble())];
            double stored = kv.GetProperty("outside").GetDouble() + perDepth.Sum(), all = kv.GetProperty("all").GetDouble();
            Assert.Equal(stored, kv.GetProperty("stored").GetDouble(), 1e-6);
            Assert.Equal(1 - stored / all, kv.GetProperty("saved").GetDouble(), 1e-9);
            if (routes)
            {
                double[] reached = [.. row.GetProperty("reached").EnumerateArray().Select(static share => share.GetDouble())];
                Assert.Equal(1, reached[0]);
                Assert.Equal(reached.Sum(), depth.GetDouble(), 1e-9);
                Assert.Equal(reached.Order().Reverse(), reached);
            }
            else
            {
                Assert.Equal(6, row.GetProperty("layers_per_token").GetDouble(), 1.0);
                Assert.Equal(0, kv.GetProperty("saved").GetDouble(), 1e-9);
            }
        }
        Assert.Equal(1, rows[2].GetProperty("ratio").GetProperty("median").GetDouble());
    }

    [Fact]
    public void MemoryBoundsTheBatch()
    {
        // Pages for three sequences, each with one page of 64 tokens in every one of six layers: 2 × 2 × 16 halves a token.
        string bytes = $"{3 * 6 * 64 * 128}";
        JsonElement row = HostProcess.Run(
            "bench", "-m", Recursive, "--batch", "8", "--mean-length", "12", "-n", "16", "-r", "1", "--kv-bytes", bytes, "--json")
            .Json.GetProperty("rows")[0];
        Assert.InRange(row.GetProperty("mean_batch").GetDouble(), 2.5, 3);
        Assert.Equal(3 * 6 * 64 * 128, row.GetProperty("kv_bytes").GetInt64());
        HostProcess.Run("bench", "-m", Recursive, "--batch", "8", "--mean-length", "12", "--kv-bytes", "100", "--json").AssertFailed(1, "KvBytes");
    }

    [Fact]
    public void ADepthCurveHasAPointForEveryDepth()
    {
        JsonElement curve = HostProcess.Run("bench", "-m", Routed, "--depth-curve", "-n", "200", "--json")
            .Json.GetProperty("models")[0].GetProperty("curve");
        JsonElement[] points = [.. curve.GetProperty("points").EnumerateArray()];
        Assert.Equal(200, points.Sum(static point => point.GetProperty("tokens").GetInt32()));
        Assert.All(points, static point => Assert.InRange(point.GetProperty("depth").GetInt32(), 0, 3));
        Assert.InRange(curve.GetProperty("r_squared").GetDouble(), 0, 1);
        HostProcess.Run("bench", "-m", Recursive, "--depth-curve", "--json").AssertFailed(1, "does not route");
    }

    [Fact]
    public void SeveralModelsAreComparedWithTheFirst()
    {
        string[] folders = [.. new[] { "dyn_p1", "dyn_p4" }.Select(static name => Path.Combine(Goldens, "parscale", "dynamic", name))];
        string[] arguments = ["bench", "-m", folders[0], "-m", folders[1], "-n", "8", "-p", "8", "-r", "3", "--quantize", "Q8_0"];
        JsonElement[] rows = [.. HostProcess.Run([.. arguments, "--json"]).Json.GetProperty("rows").EnumerateArray()];
        Assert.Equal(folders, rows.Select(static row => row.GetProperty("path").GetString()));
        Assert.Equal(1, rows[0].GetProperty("token_ratio").GetProperty("median").GetDouble());
        Assert.True(rows[1].GetProperty("more_weight_bytes").GetInt64() > 0);
        Assert.True(rows[1].GetProperty("prompt_ms").GetProperty("median").GetDouble() > 0);
        Assert.Contains("ms per token", HostProcess.Run(arguments).Output, StringComparison.Ordinal);
    }
}
