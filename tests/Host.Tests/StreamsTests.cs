using System.Text.Json;
using Engine;
using Engine.Checkpoints;
using Engine.Plans;
using Host.CommandLine;

namespace Host.Tests;

/// <summary>Models with parallel streams: <c>--streams</c>, several <c>-m</c>, <c>--show-streams</c>.</summary>
public sealed class StreamsTests : IDisposable
{
    private const string P1 = "parscale/dynamic/dyn_p1", P2 = "parscale/dynamic/dyn_p2", P4 = "parscale/dynamic/dyn_p4";

    private static readonly string[] allThree = ["-m", GoldenModel.Path(P1), "-m", GoldenModel.Path(P2), "-m", GoldenModel.Path(P4)];

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

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
    [InlineData(1, "--streams: expected 2, found 3", "generate", "-m", P2, "--streams", "3")]
    [InlineData(1, "--streams chooses another", "generate", "-m", P1, "-m", P2, "--show-streams")]
    [InlineData(1, "over one backbone", "logits", "-m", "mor/recursive_mc_rec2", "-m", "mor/mor_token_rec3_cache")]
    [InlineData(2, "--streams", "generate", "-m", P2, "--streams", "0")]
    [InlineData(2, "-m", "generate", "-m", P2, "-m", "")]
    [InlineData(2, "both", "generate", "-m", P2, "--show-streams", "--show-depth")]
    public void WrongUseIsRefused(int exitCode, string mention, params string[] arguments)
    {
        string[] given = [.. arguments.Select(GoldenModel.Resolve), "--ids", "1"];
        HostProcess.Run([.. given, .. mention == "both" ? Array.Empty<string>() : ["--json"]]).AssertFailed(exitCode, mention);
    }

    [Theory]
    [InlineData("found 2 again", P2, P2)]
    [InlineData("p1_untied_f32", P2, "parscale/p1_untied_f32")]
    [InlineData("no-such-model", P2, "no-such-model")]
    public void ModelsThatAreNotSetsOfOneBackboneAreRefused(string mention, params string[] paths)
    {
        EngineException refused = Assert.Throws<EngineException>(() => ModelFiles.Open([.. paths.Select(GoldenModel.Path)]).Dispose());
        Assert.Contains(mention, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void StreamsThatAModelDoesNotHaveAreRefused()
    {
        using Checkpoint recursive = ModelFiles.Open([GoldenModel.Path("mor/recursive_mc_rec2")]);
        using Checkpoint sets = ModelFiles.Open([GoldenModel.Path(P4), GoldenModel.Path(P1)]);
        ModelPlan plain = ModelPlanReader.Read(recursive), combined = ModelPlanReader.Read(sets);
        Refused("no parallel streams", () => ModelNeeds.StreamSet(plain, "path", "--streams", 1));
        Refused("no parallel streams", () => ModelNeeds.StreamGate(plain, "path", "--show-streams", null));
        Refused("path: --streams: expected one of 4, 1, found 2", () => ModelNeeds.StreamSet(combined, "path", "--streams", 2));
        Refused("no gate", () => ModelNeeds.StreamGate(combined, "path", "--show-streams", 1));
        ModelNeeds.StreamSet(combined, "path", "--streams", 1);
        ModelNeeds.StreamGate(combined, "path", "--show-streams", null);

        static void Refused(string mention, Action check) =>
            Assert.Contains(mention, Assert.Throws<EngineException>(check).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void PerplexityAndChatTakeTheOptions()
    {
        foreach (string command in new[] { "perplexity", "chat" })
        {
            string help = HostProcess.Run(command, "--help").Output;
            Assert.Contains("--streams <P>", help, StringComparison.Ordinal);
            Assert.Contains("--routing <causal|official>", help, StringComparison.Ordinal);
        }
        string text = folder.Write("text.txt", string.Concat(Enumerable.Repeat("A TALE OF 96 TOKENS. ", 10)));
        HostProcess.Run("perplexity", "--text", text, "--streams", "2", "--json").AssertFailed(1, "no parallel streams");
        HostProcess.Run("perplexity", "--text", text, "--routing", "causal", "--json").AssertFailed(1, "no expert-choice router");

        // The first has the tokenizer.
        string[] models = ["-m", GoldenModel.WithTokenizer(folder, P1, 96), "-m", GoldenModel.Path(P2)];
        double[] values =
        [
            .. new[] { "1", "2" }.Select(streams => HostProcess.Run(
                ["perplexity", "--text", text, "--context", "32", "--streams", streams, "--json", .. models]).Json.GetProperty("perplexity").GetDouble()),
        ];
        Assert.All(values, static value => Assert.InRange(value, 10, 10000));
        Assert.NotEqual(values[0], values[1]);
        HostResult chat = HostProcess.RunWithInput("HELLO", ["chat", "-n", "4", "--streams", "2", "--json", .. models, "--system", "BE KIND."]);
        Assert.Equal(3, chat.Json.GetProperty("messages").GetArrayLength());
    }
}
