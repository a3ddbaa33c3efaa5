using System.Text.Json;

namespace Host.Tests;

/// <summary><c>compress</c>.</summary>
public sealed class CompressTests : IDisposable
{
    private const string Text = "texts/tinystories-b.txt";

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void CalibratedPruningBeatsUncalibrated()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        double magnitude = Compress(model, "m.gguf", "--prune", "2:4", "--criterion", "magnitude", "--quantize", "F16");
        double wanda = Compress(model, "w.gguf", "--prune", "2:4", "--criterion", "wanda", "--calibration-tokens", "2048", "--quantize", "F16");
        double sparseGpt = Compress(model, "s.gguf", "--prune", "2:4", "--calibration-tokens", "2048", "--quantize", "F16");
        Assert.True(sparseGpt < wanda && wanda < magnitude, $"sparsegpt {sparseGpt}, wanda {wanda}, magnitude {magnitude}");
    }

    [Fact]
    public void CalibratedRoundingBeatsUncalibrated()
    {
        string model = SharedFiles.Require("models/stories15M/hf");
        double nearest = Compress(model, "rtn", "--quantize", "int4:channel", "--method", "rtn");
        double gptq = Compress(model, "gptq", "--quantize", "int4:channel", "--calibration-tokens", "2048", "--layers-per-pass", "3");
        Assert.True(gptq < nearest, $"gptq {gptq}, rtn {nearest}");
        Assert.True(new FileInfo(folder.File("gptq/model.safetensors")).Length < 0.75 * new FileInfo(Path.Combine(model, "model.safetensors")).Length);
        Assert.True(File.Exists(folder.File("gptq/tokenizer.json")));
    }

    [Fact]
    public void TheSameCommandGoesOnAndWhatExistsIsNotOverwritten()
    {
        string model = SharedFiles.Require("models/stories15M/hf"), target = folder.File("out");
        string text = HostProcess.Run("compress", "-m", model, "-o", target, "--prune", "0.3").Output;
        Assert.Contains("30.4 MB of 30.4 MB", text, StringComparison.Ordinal);
        HostProcess.Run("compress", "-m", model, "-o", target, "--prune", "0.3").AssertFailed(1, "exists already", target);
        JsonElement sparsity = HostProcess.Run("inspect", "-m", target, "--json").Json.GetProperty("sparsity");
        // 30 % of the layers' matrices, which are 40 % of the weights.
        Assert.InRange(sparsity.GetProperty("fraction").GetDouble(), 0.1, 0.14);
    }

    [Theory]
    [InlineData("neither pruning nor a format")]
    [InlineData("--criterion", "--prune", "2:4", "--criterion", "wanda")]
    [InlineData("--method", "--quantize", "int4", "--method", "gptq")]
    [InlineData("--method", "--quantize", "Q8_0", "--method", "gptq")]
    [InlineData("--criterion", "--quantize", "int4", "--criterion", "wanda")]
    [InlineData("--quantize: Q4_K has no exact zero", "--prune", "2:4", "--quantize", "Q4_K")]
    [InlineData("--prune: expected 2:4 or a part", "--prune", "4:8")]
    [InlineData("--prune: expected a part above 0", "--prune", "1.5")]
    [InlineData("--quantize", "--quantize", "int3")]
    [InlineData("--quantize", "--quantize", "Q9_9")]
    [InlineData("--criterion: expected one of", "--prune", "2:4", "--criterion", "random")]
    [InlineData("--calibration-tokens: belongs to", "--prune", "2:4", "--calibration-tokens", "5")]
    [InlineData("--drop-layers: needs a text", "--drop-layers", "1")]
    [InlineData("--drop-layers", "--drop-layers", "-1")]
    [InlineData("--narrow", "--narrow", "1")]
    [InlineData("--chunks: belongs to", "--prune", "2:4", "--chunks", "5")]
    public void WhatMakesNoSenseIsWrongUsage(string mention, params string[] arguments) =>
        HostProcess.Run(["compress", "-o", folder.File("out"), .. arguments]).AssertFailed(2, mention);

    private double Compress(string model, string target, params string[] arguments)
    {
        JsonElement json = HostProcess.Run(
            ["compress", "-m", model, "-o", folder.File(target), "--calibration", SharedFiles.Require(Text), "--chunks", "8", "--json", .. arguments]).Json;
        double before = json.GetProperty("before").GetProperty("value").GetDouble(), after = json.GetProperty("after").GetProperty("value").GetDouble();
        Assert.True(before < after && json.GetProperty("bytes").GetInt64() > 0);
        return after;
    }
}
