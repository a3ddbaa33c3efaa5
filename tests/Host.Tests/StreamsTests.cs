using System.Text.Json;

namespace Host.Tests;

/// <summary>Models with parallel streams: <c>--streams</c>, several <c>-m</c>, <c>--show-streams</c>.</summary>
public sealed class StreamsTests
{
    private const string P1 = "parscale/dynamic/dyn_p1", P2 = "parscale/dynamic/dyn_p2", P4 = "parscale/dynamic/dyn_p4";

    private static readonly string[] allThree = ["-m", GoldenModel.Path(P1), "-m", GoldenModel.Path(P2), "-m", GoldenModel.Path(P4)];

    [Theory]
    [InlineData(P1, "1")]
    [InlineData(P2, "2")]
    [InlineData(P4, "4")]
    public void OneBackboneServesEverySet(string name, string streams)
    {
        using JsonDocument expected = GoldenModel.Expected(GoldenModel.Path(name));
        string prompt = string.Join(',', Golden.Ids(expected.RootElement.GetProperty("input_ids")));
        int[] generated = Golden.Ids(expected.RootElement.GetProperty("generated_ids"));
        string[] arguments = [.. allThree, "--streams", streams, "--ids", prompt, "--kv", "F32", "--json"];
        JsonElement json = HostProcess.Run(["generate", "-n", $"{generated.Length}", "--temperature", "0", "--ignore-eos", .. arguments]).Json;
        Assert.Equal(generated, Golden.Ids(json.GetProperty("ids")));
        Assert.False(json.TryGetProperty("depth", out _));
        Assert.False(json.TryGetProperty("stream_weights", out _));

        JsonElement logits = HostProcess.Run(["logits", .. arguments]).Json;
        Assert.False(logits.TryGetProperty("depth", out _));
        float[] last = Row(logits.GetProperty("prefill"));
        foreach ((float found, float logit) in last.Zip(Row(expected.RootElement.GetProperty("prefill_logits"))))
        {
            Assert.Equal(logit, found, 1e-4f);
        }

        static float[] Row(JsonElement rows) =>
            [.. rows[rows.GetArrayLength() - 1].EnumerateArray().Select(static value => value.GetSingle())];
    }

    [Fact]
    public void WeightsOfTheGateAreShown()
    {
        using JsonDocument expected = GoldenModel.Expected(GoldenModel.Path(P2));
        string prompt = string.Join(',', Golden.Ids(expected.RootElement.GetProperty("input_ids")));
        string[] arguments = ["generate", "-m", GoldenModel.Path(P2), "--ids", prompt, "-n", "3", "--temperature", "0", "--kv", "F32", "--show-streams"];
        JsonElement json = HostProcess.Run([.. arguments, "--json"]).Json;
        float[][] weights =
        [
            .. json.GetProperty("stream_weights").EnumerateArray()
                .Select(static row => row.EnumerateArray().Select(static weight => weight.GetSingle()).ToArray()),
        ];
        Assert.Equal(3, weights.Length);
        Assert.All(weights, static row => Assert.Equal((2, 1f), (row.Length, MathF.Round(row.Sum(), 4))));
        JsonElement reference = expected.RootElement.GetProperty("debug").GetProperty("stream_weights");
        JsonElement atPrompt = reference[reference.GetArrayLength() - 1];
        Assert.Equal(atPrompt[0].GetSingle(), weights[0][0], 1e-4f);

        HostResult shown = HostProcess.Run(arguments);
        string[] lines = shown.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(prompt.Replace(',', ' '), lines[0]);
        Assert.Equal(3, lines.Length - 1);
        int[] ids = Golden.Ids(json.GetProperty("ids"));
        for (int i = 0; i < 3; i++)
        {
            Assert.EndsWith($"  {weights[i][0]:F3} {weights[i][1]:F3}   {ids[i]}", lines[i + 1], StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(1, "no parallel streams", "generate", "-m", "mor/recursive_mc_rec2", "--streams", "1")]
    [InlineData(1, "no parallel streams", "generate", "-m", "mor/recursive_mc_rec2", "--show-streams")]
    [InlineData(1, "--streams: expected 2, found 3", "generate", "-m", P2, "--streams", "3")]
    [InlineData(1, "--streams: expected one of 4, 2, found 1", "logits", "-m", P4, "-m", P2, "--streams", "1")]
    [InlineData(1, "with one stream there is no gate", "generate", "-m", P1, "--show-streams")]
    [InlineData(1, "--streams chooses another", "generate", "-m", P1, "-m", P2, "--show-streams")]
    [InlineData(1, "this is mor", "logits", "-m", "mor/recursive_mc_rec2", "-m", "mor/mor_token_rec3_cache")]
    [InlineData(1, "found 2 again", "generate", "-m", P2, "-m", P2)]
    [InlineData(1, "p1_untied_f32", "generate", "-m", P2, "-m", "parscale/p1_untied_f32")]
    [InlineData(1, "no-such-model", "generate", "-m", P2, "-m", "no-such-model")]
    [InlineData(2, "--streams", "generate", "-m", P2, "--streams", "0")]
    [InlineData(2, "-m", "generate", "-m", P2, "-m", "")]
    [InlineData(2, "both", "generate", "-m", P2, "--show-streams", "--show-depth")]
    public void WrongUseIsRefused(int exitCode, string mention, params string[] arguments)
    {
        string[] given = [.. arguments.Select(GoldenModel.Resolve), "--ids", "1"];
        HostProcess.Run([.. given, .. mention == "both" ? Array.Empty<string>() : ["--json"]]).AssertFailed(exitCode, mention);
    }

    [Fact]
    public void PerplexityAndChatTakeTheOptions()
    {
        foreach (string command in new[] { "perplexity", "chat", "generate", "logits" })
        {
            string help = HostProcess.Run(command, "--help").Output;
            Assert.Contains("--streams <P>", help, StringComparison.Ordinal);
            Assert.Contains("--routing <causal|official>", help, StringComparison.Ordinal);
        }
        string text = SharedFiles.RepositoryRoot + "/README.md";
        HostProcess.Run("perplexity", "--text", text, "--streams", "2", "--json").AssertFailed(1, "no parallel streams");
        HostProcess.Run("perplexity", "--text", text, "--routing", "causal", "--json").AssertFailed(1, "no expert-choice router");
        HostProcess.Run([.. allThree.Prepend("perplexity"), "--text", text, "--streams", "2", "--json"]).AssertFailed(1, "tokenizer");
        HostProcess.Run([.. allThree.Prepend("chat"), "--streams", "2", "--json"]).AssertFailed(1, "tokenizer");
    }
}
