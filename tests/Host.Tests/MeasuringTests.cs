using System.Text.Json;

namespace Host.Tests;

/// <summary><c>bench</c> and <c>perplexity</c>.</summary>
public sealed class MeasuringTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void BenchReportsEverything()
    {
        JsonElement json = HostProcess.Run("bench", "-t", "1,2", "-p", "20", "-n", "10", "-r", "3", "--json").Json;
        JsonElement model = json.GetProperty("model");
        Assert.True(model.GetProperty("weight_bytes_per_token").GetInt64() > 0);
        Assert.True(model.GetProperty("weight_bytes_per_token").GetInt64() <= model.GetProperty("file_bytes").GetInt64() * 1.01);
        Assert.True(json.GetProperty("peak_memory_bytes").GetInt64() > model.GetProperty("file_bytes").GetInt64());
        JsonElement[] runs = [.. json.GetProperty("runs").EnumerateArray()];
        Assert.Equal([1, 2], runs.Select(run => run.GetProperty("threads").GetInt32()));
        foreach (JsonElement run in runs)
        {
            Assert.Equal(20, run.GetProperty("prompt_tokens").GetInt32());
            Assert.Equal(10, run.GetProperty("generated_tokens").GetInt32());
            foreach (string speed in new[] { "prompt_tokens_per_second", "generation_tokens_per_second" })
            {
                JsonElement spread = run.GetProperty(speed);
                double min = spread.GetProperty("min").GetDouble(), median = spread.GetProperty("median").GetDouble();
                Assert.True(0 < min && min <= median && median <= spread.GetProperty("max").GetDouble(), speed);
            }
            Assert.True(run.GetProperty("load_ms").GetDouble() > 0);
            Assert.True(run.GetProperty("memory_bytes_per_second").GetDouble() > 0);
            double fraction = run.GetProperty("generation_tokens_per_second").GetProperty("median").GetDouble()
                * model.GetProperty("weight_bytes_per_token").GetInt64() / run.GetProperty("memory_bytes_per_second").GetDouble();
            Assert.Equal(fraction, run.GetProperty("bandwidth_fraction").GetDouble(), 1e-9 * fraction);
        }
    }

    [Fact]
    public void BenchPrintsATableForPeople()
    {
        HostResult result = HostProcess.Run("bench", "-t", "1", "-p", "4", "-n", "4", "-r", "1");
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("prompt tokens/s", result.Output, StringComparison.Ordinal);
        Assert.Contains("peak memory", result.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("models/stories15M/hf", "texts/tinystories-b.txt", 4.1946, 0.003)]
    [InlineData("models/stories15M/stories15M-q8_0.gguf", "texts/tinystories-b.txt", 4.1884, 0.02)]
    [InlineData("models/stories15M/stories15M-q4_0.gguf", "texts/tinystories-b.txt", 4.6275, 0.05)]
    [InlineData("models/stories15M/hf", "texts/wikitext2-test.txt", 6769.24, 1)] // Has "<unk>" in it, which is text here and no token.
    public void PerplexityIsLlamaCpps(string model, string text, double expected, double tolerance)
    {
        JsonElement json = HostProcess.Run(
            "perplexity", "-m", SharedFiles.Require(model), "--text", SharedFiles.Require(text),
            "--context", "256", "--chunks", "40", "--json").Json;
        Assert.Equal(expected, json.GetProperty("perplexity").GetDouble(), tolerance);
        Assert.InRange(json.GetProperty("standard_error").GetDouble() / expected, 0.01, 0.1);
        Assert.Equal((40, 256, 40 * 127), (Int("chunks"), Int("context"), Int("scored_tokens")));

        int Int(string name) => json.GetProperty(name).GetInt32();
    }

    [Fact]
    public void PerplexityOfTheDefaultModel()
    {
        string story = HostProcess.Run("generate", "--json", "--seed", "3", "-n", "120").Json.GetProperty("text").GetString()!;
        string text = folder.Write("story.txt", string.Join(' ', Enumerable.Repeat(story, 4)));
        JsonElement json = HostProcess.Run("perplexity", "--text", text, "--context", "32", "--json").Json;
        // It knows its own stories: far better than guessing among the vocabulary.
        Assert.InRange(json.GetProperty("perplexity").GetDouble(), 1, 50);
        HostResult plain = HostProcess.Run("perplexity", "--text", text, "--context", "32");
        Assert.StartsWith($"perplexity {json.GetProperty("perplexity").GetDouble():F4} ±", plain.Output, StringComparison.Ordinal);
    }
}
