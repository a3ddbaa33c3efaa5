using System.Text.Json;

namespace Host.Tests;

/// <summary><c>--activations</c>: BF16 weights with activations as they are or rounded.</summary>
public sealed class ActivationTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("generate")]
    [InlineData("chat")]
    [InlineData("logits")]
    [InlineData("bench")]
    [InlineData("perplexity")]
    public void EveryCommandThatLoadsAModelHasTheOption(string command) =>
        Assert.Contains("--activations <f32|bf16>", HostProcess.Run(command, "--help").Output, StringComparison.Ordinal);

    [Fact]
    public void RoundingIsReportedWhereItIsDoneAndMovesLogitsALittle()
    {
        string model = folder.File("bf16.gguf");
        Assert.Equal(model, HostProcess.Run("convert", "-o", model, "--format", "BF16", "--json").Json.GetProperty("path").GetString());
        Assert.Contains("bfloat16 activations", Backend("-m", model, "--activations", "bf16"), StringComparison.Ordinal);
        Assert.DoesNotContain("bfloat16", Backend("-m", model), StringComparison.Ordinal);
        Assert.DoesNotContain("bfloat16", Backend("--activations", "BF16"), StringComparison.Ordinal); // That model has no such weights.

        float[] exact = Logits("-m", model, "--activations", "f32"), rounded = Logits("-m", model, "--activations", "bf16");
        Assert.Equal(exact, Logits("-m", model));
        double difference = Math.Sqrt(exact.Zip(rounded, static (a, b) => (a - b) * (a - b)).Average());
        double spread = Math.Sqrt(exact.Average(static value => value * value) - Math.Pow(exact.Average(), 2));
        Assert.InRange(difference / spread, 1e-6, 0.03);
    }

    private static string Backend(params string[] arguments) =>
        HostProcess.Run([.. arguments.Prepend("bench"), "-t", "1", "-p", "4", "-n", "2", "-r", "1", "--json"])
            .Json.GetProperty("runs")[0].GetProperty("backend").GetString()!;

    private static float[] Logits(params string[] arguments)
    {
        JsonElement rows = HostProcess.Run([.. arguments.Prepend("logits"), "--ids", "1,20,30,40,50,60,70", "--json"]).Json.GetProperty("prefill");
        return [.. rows.EnumerateArray().SelectMany(static row => row.EnumerateArray()).Select(static logit => logit.GetSingle())];
    }
}
