using System.Diagnostics;
using System.Security.Cryptography;
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
    public void CalibratedBlocksOfGgufBeatUncalibrated()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        double nearest = Compress(model, "rtn.gguf", "--quantize", "Q4_0", "--method", "rtn");
        double gptq = Compress(model, "gptq.gguf", "--quantize", "Q4_0", "--calibration-tokens", "4096");
        Assert.True(gptq < nearest, $"gptq {gptq}, rtn {nearest}");
    }

    [Fact]
    public void HeadsAreLeftOut()
    {
        string model = SharedFiles.Require("models/stories15M/hf");
        Compress(model, "out", "--drop-heads", "0.34", "--calibration-tokens", "512");
        JsonElement config = JsonDocument.Parse(File.ReadAllText(folder.File("out/config.json"))).RootElement;
        Assert.Equal((4, 4, 48), (config.GetProperty("num_attention_heads").GetInt32(), config.GetProperty("num_key_value_heads").GetInt32(), config.GetProperty("head_dim").GetInt32()));
    }

    [Theory]
    [InlineData("stories15M/hf", false, "--calibration-tokens", "256", "--drop-heads", "1", "--quantize", "int8")]
    [InlineData("stories260K/stories260K-f32.gguf", true, "--calibration-tokens", "8192", "--quantize", "Q4_0")]
    public void WhatIsStoppedAnywhereEndsAsItWouldHave(string from, bool killed, params string[] work)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "signals are sent as POSIX has them");
        string model = SharedFiles.Require($"models/{from}"), text = SharedFiles.Require(Text);
        bool isFile = work.Contains("Q4_0");
        string whole = folder.File(isFile ? "whole.gguf" : "whole"), stopped = folder.File(isFile ? "stopped.gguf" : "stopped");
        string[] Arguments(string target) =>
            ["compress", "-m", model, "-o", target, "--calibration", text, "--chunks", "1", "--json", .. work];
        Assert.Equal(whole, HostProcess.Run(Arguments(whole)).Json.GetProperty("path").GetString());
        Random random = Seed.Fresh();
        // Wherever they are by then: loading, looking what to leave out, calibrating, rounding or writing.
        for (int stop = 0; stop < 3 && (killed || !Path.Exists(stopped)); stop++)
        {
            using Process process = HostProcess.Start(Arguments(stopped));
            Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
            Thread.Sleep(random.Next(2500));
            if (killed)
            {
                process.Kill();
            }
            else if (!process.HasExited)
            {
                InterruptTests.Interrupt(process);
            }
            HostProcess.Finish(process, output, error);
        }
        if (killed || !Path.Exists(stopped))
        {
            Assert.Equal(stopped, HostProcess.Run(Arguments(stopped)).Json.GetProperty("path").GetString());
        }
        Assert.Equal(Content(whole), Content(stopped));
        Assert.False(Path.Exists(stopped + ".partial"));

        static IEnumerable<string> Content(string path) => (Directory.Exists(path) ? Directory.GetFiles(path).Order().ToArray() : [path])
            .Select(static file => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file))));
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
    [InlineData("--drop-heads: needs a text", "--drop-heads", "1")]
    [InlineData("--drop-heads: expected a number of heads or a part", "--drop-heads", "1.5")]
    [InlineData("--drop-heads: expected a number of heads or a part", "--drop-heads", "-1")]
    [InlineData("--act-order: is the order of GPTQ", "--quantize", "int4", "--act-order", "true")]
    [InlineData("--method: F16 has no codes to choose", "--quantize", "F16", "--method", "gptq")]
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
