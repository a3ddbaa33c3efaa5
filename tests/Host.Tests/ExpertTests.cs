using System.Text.Json;
using System.Text.Json.Nodes;
using Engine;
using Engine.Plans;
using Host.Inspection;
using Host.Printing;
using Spectre.Console;

namespace Host.Tests;

/// <summary>Mixtures of experts: <c>--experts-per-token</c>, <c>--expert-memory</c>, what <c>bench</c> and <c>inspect</c> say, <c>inspect --routing</c>.</summary>
public sealed class ExpertTests : IDisposable
{
    private const string Text = "The quick brown fox jumps over the lazy dog, and then it sleeps.";

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void ExpertsPerTokenChangeWhatIsComputed()
    {
        string four = (new MoeModel() with { PerToken = 4 }).Write(folder, "four"), two = new MoeModel().Write(folder, "two");
        float[] expected = Logits("-m", four), found = Logits("-m", two, "--experts-per-token", "4");
        Assert.Equal(expected, found);
        Assert.NotEqual(expected, Logits("-m", two));

        static float[] Logits(params string[] arguments) =>
            [.. HostProcess.Run(["logits", "--ids", "84,104,101", "--json", .. arguments]).Json.GetProperty("prefill")[2].EnumerateArray()
                .Select(static logit => logit.GetSingle())];
    }

    [Theory]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public void WeightsThatAreNotNormalisedAreMentioned(bool normalised, bool mentioned)
    {
        string model = (new MoeModel() with { Normalised = normalised }).Write(folder, "model");
        string[] arguments = ["generate", "-m", model, "-p", "A", "-n", "2", "--temperature", "0", "--ignore-eos", "--json"];
        HostResult other = HostProcess.Run([.. arguments, "--experts-per-token", "3"]);
        Assert.Equal(JsonValueKind.Object, other.Json.ValueKind);
        Assert.Equal(mentioned, other.Error.Contains("sum to something else", StringComparison.Ordinal));
        Assert.DoesNotContain("sum to", HostProcess.Run([.. arguments, "--experts-per-token", "2"]).Error, StringComparison.Ordinal);
    }

    [Fact]
    public void WhatDoesNotFitTheModelIsRefused()
    {
        string model = new MoeModel().Write(folder, "model"), dense = GoldenModel.Path("parscale/dynamic/dyn_p1"), text = folder.Write("text.txt", Text);
        Refused("--experts-per-token: expected 1 to 6", "logits", "-m", model, "--ids", "1", "--experts-per-token", "7");
        Refused("--experts-per-token: expected 1 to 6", "bench", "-m", model, "--experts-per-token", "7");
        Refused("--experts-per-token: the model has no experts", "logits", "-m", dense, "--ids", "1", "--experts-per-token", "2");
        Refused("--experts-per-token: the model has no experts", "perplexity", "--text", text, "--experts-per-token", "2");
        Refused("--experts-per-token: the model has no experts", "chat", "--experts-per-token", "2");
        Refused("--experts-per-token: the model has no experts", "bench", "-m", model, "-m", dense, "--experts-per-token", "2");
        Refused("--expert-memory: the model has no experts", "generate", "--expert-memory", "4G");
        Refused("--routing: the model has no experts", "inspect", "--routing", text);
        Refused("empty", "inspect", "-m", model, "--routing", folder.Write("empty.txt", ""));
        Refused("no-such-text", "inspect", "-m", model, "--routing", folder.File("no-such-text"));
        Directory.CreateDirectory(folder.File("folder.png"));
        Refused("folder of that name", "inspect", "-m", model, "--routing", text, "--out", folder.File("folder.png"));
        Refused("no-such-folder", "inspect", "-m", "no-such-model", "--routing", text, "--out", folder.File("no-such-folder/map.svg"));
        Refused("ids", "inspect", "-m", model, "--routing", "--ids", "1,256");

        static void Refused(string mention, params string[] arguments) => HostProcess.Run([.. arguments, "--json"]).AssertFailed(1, mention);
    }

    [Fact]
    public void ARouterThatChoosesTwoByItsNatureTakesNoOtherNumber()
    {
        using LanguageModel model = LanguageModel.Load(new MoeModel().Write(folder, "model"), new() { Threads = 1 });
        ModelPlan plan = model.Plan;
        BlockPlan[] blocks =
        [
            .. plan.Layers.Blocks.Select(block => block with
            {
                Experts = block.Experts! with { Router = block.Experts.Router with { Choice = ExpertChoice.SparseMixer } },
            }),
        ];
        ModelPlan sparse = plan with { Layers = plan.Layers with { Blocks = [.. blocks] } };
        EngineException refused = Assert.Throws<EngineException>(() => Mixtures.RequirePerToken(sparse, 2, "path", "--experts-per-token"));
        Assert.Contains("SparseMixer-2", refused.Message, StringComparison.Ordinal);
        refused = Assert.Throws<EngineException>(() => LanguageModel.Load(model.Path, new() { Threads = 1, ExpertsPerToken = 7 }));
        Assert.Equal(nameof(LanguageModelOptions.ExpertsPerToken), refused.Item);
    }

    [Fact]
    public void ExpertsComeAndGoWithinTheirMemory()
    {
        MoeModel shape = new();
        string path = shape.Write(folder, "model");
        using LanguageModel all = LanguageModel.Load(path, new() { Threads = 1 });
        using LanguageModel few = LanguageModel.Load(path, new() { Threads = 1, ExpertBytes = 4 * shape.ExpertBytes });
        long experts = MoeModel.Layers * shape.Experts * shape.ExpertBytes;
        Assert.Equal((null, 4 * shape.ExpertBytes), (all.ExpertBytesLimit, few.ExpertBytesLimit));
        Assert.Equal(experts, all.WeightBytes - few.WeightBytes); // None is packed before a token comes.
        using LogitsSession one = all.CreateLogitsSession(), other = few.CreateLogitsSession();
        foreach (int id in Text.Select(static letter => (int)letter))
        {
            Assert.Equal(one.Feed(id), other.Feed(id));
            // What else grows with the sequence, such as rotations, does so in both.
            Assert.InRange(few.WeightBytes - (all.WeightBytes - experts), shape.ExpertBytes, 4 * shape.ExpertBytes);
        }
        // Each token reads its two experts of every layer.
        Assert.Equal(Text.Length * MoeModel.Layers * shape.PerToken, all.Work.Experts.Slots);
        Assert.Equal(all.Work.Experts.Slots * shape.ExpertBytes, all.Work.Experts.Bytes);
        Assert.Equal(all.Work.Experts, few.Work.Experts);
    }

    [Fact]
    public void AModelThatIsLargerThanMemoryRunsAnyway()
    {
        // 48 MiB of experts for a process that may use 50 and shall leave a fifth of them.
        MoeModel shape = new() { Width = 8192, Experts = 8 };
        shape = shape with { Experts = (int)((48L << 20) / MoeModel.Layers / shape.ExpertBytes) };
        string path = shape.Write(folder, "model");
        string[] arguments = ["logits", "-m", path, "--ids", "84,104,101", "-t", "1", "--json"];
        HostResult bounded = HostProcess.RunWith("DOTNET_GCHeapHardLimit", $"{50 << 20:X}", arguments), free = HostProcess.Run(arguments);
        Assert.Contains("not all experts fit into memory", bounded.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("not all experts", free.Error, StringComparison.Ordinal);
        Assert.Equal(free.Json.ToString(), bounded.Json.ToString());
        HostResult told = HostProcess.RunWith("DOTNET_GCHeapHardLimit", $"{50 << 20:X}", [.. arguments, "--expert-memory", "100M"]);
        Assert.DoesNotContain("not all experts", told.Error, StringComparison.Ordinal);
        Assert.Equal(free.Output, told.Output);
    }

    [Theory]
    [InlineData(null, 2)]
    [InlineData("3", 3)]
    public void BenchCountsTheExpertsThatAreRead(string? asked, int perToken)
    {
        MoeModel shape = new();
        string[] arguments = ["bench", "-m", shape.Write(folder, "model"), "-t", "1", "-p", "4", "-n", "8", "-r", "1"];
        arguments = asked is null ? arguments : [.. arguments, "--experts-per-token", asked];
        JsonElement json = HostProcess.Run([.. arguments, "--json"]).Json, model = json.GetProperty("model"), run = json.GetProperty("runs")[0];
        JsonElement experts = model.GetProperty("experts");
        long read = MoeModel.Layers * perToken * shape.ExpertBytes, dense = experts.GetProperty("dense_bytes_per_token").GetInt64();
        Assert.Equal(MoeModel.Layers * shape.Experts * shape.ExpertBytes, experts.GetProperty("expert_bytes").GetInt64());
        Assert.Equal(read, experts.GetProperty("expert_bytes_per_token").GetInt64());
        // Attention, router and norms of each layer; the head, a row of the embedding, the last norm.
        long layer = 4 * MoeModel.Hidden * MoeModel.Hidden + shape.Experts * MoeModel.Hidden + 2 * MoeModel.Hidden;
        Assert.Equal(sizeof(float) * (MoeModel.Layers * layer + MoeModel.Hidden * (MoeModel.Vocabulary + 2)), dense);
        Assert.Equal(dense + read, model.GetProperty("weight_bytes_per_token").GetInt64());
        Assert.Equal((MoeModel.Layers * perToken, read), (run.GetProperty("experts_per_token").GetDouble(), run.GetProperty("expert_bytes_per_token").GetDouble()));
        double reached = run.GetProperty("generation_tokens_per_second").GetProperty("median").GetDouble() * (dense + read)
            / run.GetProperty("memory_bytes_per_second").GetDouble();
        Assert.Equal(reached, run.GetProperty("bandwidth_fraction").GetDouble(), 1e-9 * reached);

        string shown = HostProcess.Run(arguments).Output;
        Assert.Contains($"{(dense + read) / 1e6:F1} MB of weights per token: {dense / 1e6:F1} MB dense", shown, StringComparison.Ordinal);
        Assert.Contains("experts/token", shown, StringComparison.Ordinal);
        Assert.Contains($" {MoeModel.Layers * perToken}.0 ", shown, StringComparison.Ordinal);
    }

    [Fact]
    public void InspectTellsTheExperts()
    {
        MoeModel shape = new();
        string[] arguments = ["inspect", "-m", shape.Write(folder, "model"), "--no-scan"];
        JsonElement experts = HostProcess.Run([.. arguments, "--json"]).Json.GetProperty("plan").GetProperty("experts");
        Assert.Equal(MoeModel.Layers * 2 * shape.ExpertBytes, experts.GetProperty("bytes_per_token").GetInt64());
        Assert.Equal(MoeModel.Layers * 6 * shape.ExpertBytes, experts.GetProperty("bytes").GetInt64());
        JsonElement[] layers = [.. experts.GetProperty("layers").EnumerateArray()];
        Assert.Equal([0, 1, 2], layers.Select(static layer => layer.GetProperty("layer").GetInt32()));
        Assert.All(layers, layer => Assert.Equal((6, 6, 0, 2, 0, shape.Width), (Int(layer, "experts"), Int(layer, "slots"), Int(layer, "dropped"),
            Int(layer, "per_token"), Int(layer, "shared"), Int(layer, "widest"))));
        string shown = HostProcess.Run(arguments).Output;
        Assert.Contains(" 0 – 2 ", shown, StringComparison.Ordinal); // Layers that are alike share a row.
        Assert.Contains("MB for a token of", shown, StringComparison.Ordinal);
        Assert.False(HostProcess.Run("inspect", "--no-scan", "--json").Json.GetProperty("plan").TryGetProperty("experts", out _));

        static int Int(JsonElement layer, string name) => layer.GetProperty(name).GetInt32();
    }

    [Fact]
    public void RecurrentRoutersAreDescribedCountedAndRun()
    {
        const int State = 16;
        MoeModel shape = new() { RouterState = State };
        string path = shape.Write(folder, "model");
        JsonElement plan = HostProcess.Run("inspect", "-m", path, "--no-scan", "--json").Json.GetProperty("plan"), experts = plan.GetProperty("experts");
        Assert.Equal("llama_moe_rnn", plan.GetProperty("family").GetString());
        JsonElement state = experts.GetProperty("router_state");
        Assert.Equal(("Gru", State), (state.GetProperty("cell").GetString(), state.GetProperty("width").GetInt32()));
        // Attention, norms and router of each layer, which reads the cell again; the head, a row of the embedding, the last norm.
        int router = State * (MoeModel.Hidden + shape.Experts) + 6 * (State * State + State);
        long layer = 4 * MoeModel.Hidden * MoeModel.Hidden + 2 * MoeModel.Hidden + router;
        Assert.Equal(
            sizeof(float) * (MoeModel.Layers * layer + MoeModel.Hidden * (MoeModel.Vocabulary + 2)), experts.GetProperty("dense_bytes_per_token").GetInt64());
        Assert.Contains(
            "routers: recurrent (gru), a state of 16 goes from layer to layer", HostProcess.Run("inspect", "-m", path, "--no-scan").Output, StringComparison.Ordinal);

        JsonElement bench = HostProcess.Run("bench", "-m", path, "-t", "1", "-p", "4", "-n", "8", "-r", "1", "--json").Json;
        Assert.Equal(
            experts.GetProperty("dense_bytes_per_token").GetInt64(), bench.GetProperty("model").GetProperty("experts").GetProperty("dense_bytes_per_token").GetInt64());
        Assert.Equal(MoeModel.Layers * 2, bench.GetProperty("runs")[0].GetProperty("experts_per_token").GetDouble());
        string[] logits = ["logits", "-m", path, "--ids", "84,104,101", "-t", "1", "--json"];
        Assert.NotEqual(HostProcess.Run(logits).Json.ToString(), HostProcess.Run([.. logits, "--experts-per-token", "1"]).Json.ToString());
        Assert.NotEqual(HostProcess.Run(logits).Json.ToString(), HostProcess.Run([.. logits, "--quantize", "Q8_0"]).Json.ToString());
    }

    [Fact]
    public void NeuronsThatContributeNothingAreCountedAndLeftOut()
    {
        MoeModel shape = new() { Pruned = 16 };
        string path = shape.Write(folder, "model");
        JsonElement plan = HostProcess.Run("inspect", "-m", path, "--json").Json.GetProperty("plan");
        Assert.Equal(MoeModel.Layers * shape.Experts * shape.Pruned, plan.GetProperty("removed_neurons").GetInt64());
        Assert.Equal(MoeModel.Layers * shape.Experts * shape.ExpertBytes / 2, plan.GetProperty("experts").GetProperty("bytes").GetInt64());
        Assert.Contains("pruned: 288 neurons of feed-forwards contribute nothing", HostProcess.Run("inspect", "-m", path).Output, StringComparison.Ordinal);
        JsonElement unread = HostProcess.Run("inspect", "-m", path, "--no-scan", "--json").Json.GetProperty("plan");
        Assert.Equal(MoeModel.Layers * shape.Experts * shape.ExpertBytes, unread.GetProperty("experts").GetProperty("bytes").GetInt64());
        JsonElement bench = HostProcess.Run("bench", "-m", path, "-t", "1", "-p", "4", "-n", "8", "-r", "1", "--json").Json;
        Assert.Equal(
            MoeModel.Layers * shape.Experts * shape.ExpertBytes / 2,
            bench.GetProperty("model").GetProperty("experts").GetProperty("expert_bytes").GetInt64());
    }

    [Fact]
    public void ExpertsThatWereMergedOrDroppedOrAreUnequalAreDescribed()
    {
        using LanguageModel model = LanguageModel.Load(new MoeModel().Write(folder, "model"), new() { Threads = 1 });
        ExpertsPlan whole = model.Plan.Experts().First();
        FeedForwardPlan none = whole.Slots[3] with { Width = 0 };
        ExpertsPlan merged = whole with { Slots = [.. whole.Slots[..3], none], Map = [0, 1, 1, -1, 2, 3], Shared = [new SharedExpert(0)] };
        using Engine.Checkpoints.Checkpoint checkpoint = Engine.Checkpoints.CheckpointFile.Open(model.Path);
        WeightBytes sizes = new(checkpoint);
        long each = new MoeModel().ExpertBytes;
        // A token goes to two of the five that were kept: a slot of one expert is read with 2/5, that of two experts with 7/10; one is empty, and one is shared besides.
        long read = (long)Math.Round((0.4 + 0.7 + 0.4) * each) + each;
        Assert.Equal(new LayerExperts(4, 6, 4, 1, 2, 1, 0, new MoeModel().Width, read, 3 * each), LayerExperts.Of(4, merged, sizes));

        LayerRouting routing = new(merged);
        routing.Add(3, [1, 0, -1, 1, 2, 0], [0.5f, 0.25f, 0, 1, 0.125f, 2]);
        LayerRoutingResult result = LayerRoutingResult.Of(4, routing, null);
        Assert.Equal([2, 2, 1, 0], result.Counts);
        Assert.Equal([2.25, 1.5, 0.125, 0], result.Weights);
        Assert.Equal((6, 1, 4, 2, 2L), (result.Experts, result.Dropped, result.Slots, result.PerToken, result.Tokens));
        Assert.Equal([0, 1, 1, -1, 2, 3], result.Map);
        Assert.Equal([5], result.Unused);
        Assert.Equal((1.6, 1.6, 1.6, null, 0.8, 0.0), (Load(0), Load(1), Load(2), Load(3), Load(4), Load(5)));

        double? Load(int expert) => result.RelativeLoad(expert);
    }

    [Fact]
    public void RoutingIsCountedLayerByLayer()
    {
        MoeModel shape = new() { FixedLayer = 1 };
        string model = shape.Write(folder, "model"), text = folder.Write("text.txt", string.Concat(Enumerable.Repeat(Text, 3)));
        JsonElement json = HostProcess.Run("inspect", "-m", model, "--routing", text, "--json").Json;
        int tokens = 3 * Text.Length; // More than the context holds.
        Assert.Equal(tokens, json.GetProperty("tokens").GetInt32());
        JsonElement[] layers = [.. json.GetProperty("layers").EnumerateArray()];
        Assert.Equal(MoeModel.Layers, layers.Length);
        foreach (JsonElement layer in layers)
        {
            int[] counts = Golden.Ids(layer.GetProperty("counts"));
            Assert.Equal(6, counts.Length);
            Assert.Equal(2 * tokens, counts.Sum());
            Assert.Equal(tokens, layer.GetProperty("weights").EnumerateArray().Sum(static weight => weight.GetDouble()), 1e-3 * tokens);
            double entropy = counts.Where(static count => count > 0).Sum(count => -count / (2.0 * tokens) * Math.Log2(count / (2.0 * tokens)));
            Assert.Equal(entropy, layer.GetProperty("entropy_bits").GetDouble(), 1e-9);
            Assert.Equal(entropy / Math.Log2(6), layer.GetProperty("entropy_fraction").GetDouble(), 1e-9);
            Assert.Equal(counts.Max() / (2.0 * tokens), layer.GetProperty("busiest").GetProperty("share").GetDouble(), 1e-9);
        }
        // The second layer sends all to its first two experts.
        Assert.Equal([tokens, tokens, 0, 0, 0, 0], Golden.Ids(layers[1].GetProperty("counts")));
        Assert.Equal([2, 3, 4, 5], Golden.Ids(layers[1].GetProperty("unused")));
        Assert.Equal(1, json.GetProperty("summary").GetProperty("busiest_layer").GetInt32());

        // The same ids are the same text; what runs in smaller steps is counted the same.
        string ids = string.Join(',', Text.Select(static letter => (int)letter));
        JsonElement first = HostProcess.Run("inspect", "-m", model, "--routing", "--ids", ids, "--json", "--experts-per-token", "1", "-t", "1").Json;
        Assert.Equal(Text.Length, Golden.Ids(first.GetProperty("layers")[0].GetProperty("counts")).Sum());
        Assert.Equal(1, first.GetProperty("layers")[0].GetProperty("per_token").GetInt32());
    }

    /// <summary>Layers are counted as they run; the second of the model sends all tokens to its first two experts.</summary>
    [Fact]
    public void RoutingIsThatOfTheModelAsItIsRun()
    {
        string model = (new MoeModel() with { FixedLayer = 1 }).Write(folder, "model"), text = folder.Write("text.txt", Text);
        JsonElement[] layers = Layers("--layers", "1,0,1");
        Assert.Equal([0, 1, 2], layers.Select(static layer => layer.GetProperty("layer").GetInt32()));
        int[] all = [Text.Length, Text.Length, 0, 0, 0, 0];
        Assert.Equal([all, all], layers.Where(static layer => layer.GetProperty("layer").GetInt32() != 1).Select(Counts));
        Assert.NotEqual(all, Counts(layers[1]));
        // Pieces that the context holds begin anew: other keys are seen, so that other experts are chosen behind the first layer.
        int[] whole = Counts(Layers()[2]), pieces = Counts(Layers("--context", "5")[2]), quantized = Counts(Layers("--quantize", "Q4_0")[2]);
        Assert.Equal(2 * Text.Length, pieces.Sum());
        Assert.NotEqual(whole, pieces);
        Assert.NotEqual(whole, quantized);
        HostProcess.Run("inspect", "-m", model, "--routing", text, "--context", "65", "--json").AssertFailed(1, "at most 64");
        HostProcess.Run("inspect", "-m", model, "--context", "5", "--json").AssertFailed(2, "--context belongs to --routing");

        JsonElement[] Layers(params string[] options) =>
            [.. HostProcess.Run(["inspect", "-m", model, "--routing", text, "-t", "1", "--json", .. options]).Json.GetProperty("layers").EnumerateArray()];

        static int[] Counts(JsonElement layer) => Golden.Ids(layer.GetProperty("counts"));
    }

    [Fact]
    public void TheContextAskedForChoosesTheFactorsOfLongRope()
    {
        string model = new MoeModel().Write(folder, "model"), config = Path.Combine(model, "config.json");
        JsonObject json = JsonNode.Parse(File.ReadAllText(config))!.AsObject();
        json["rope_scaling"] = JsonNode.Parse("""
            {"rope_type": "longrope", "short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 16}
            """);
        File.WriteAllText(config, json.ToJsonString());
        JsonElement plan = HostProcess.Run("inspect", "-m", model, "--no-scan", "--json").Json.GetProperty("plan");
        Assert.Equal((16, 64), (plan.GetProperty("context_length").GetInt32(), plan.GetProperty("long_context_length").GetInt32()));
        string usual = Logits("1,2,3");
        Assert.Equal(usual, Logits("1,2,3", "--context", "16"));
        Assert.NotEqual(usual, Logits("1,2,3", "--context", "17"));
        Assert.Equal(Logits("1,2,3", "--context", "17"), Logits("1,2,3", "--context", "64"));
        string many = string.Join(',', Enumerable.Range(1, 20));
        HostProcess.Run("logits", "-m", model, "--ids", many, "--json").AssertFailed(1, "16");
        Assert.NotEmpty(Logits(many, "--context", "20"));

        string Logits(string ids, params string[] options) =>
            HostProcess.Run(["logits", "-m", model, "--ids", ids, "--json", .. options]).Json.GetProperty("prefill").GetRawText();
    }

    [Fact]
    public void ABatchReportsWhatIsReadOfExperts()
    {
        MoeModel shape = new();
        string[] arguments =
        [
            "bench", "-m", shape.Write(folder, "model"), "-m", GoldenModel.Path("parscale/dynamic/dyn_p1"), "--batch", "1,6", "--mean-length", "12", "-n", "30",
            "-r", "1", "-t", "1",
        ];
        JsonElement[] rows = [.. HostProcess.Run([.. arguments, "--json"]).Json.GetProperty("rows").EnumerateArray()];
        double alone = rows[0].GetProperty("experts_per_token").GetDouble(), together = rows[2].GetProperty("experts_per_token").GetDouble();
        // Each token by itself reads two experts of every layer; tokens of a step share those that they have in common. The counters are read while the next
        // step runs, which may have got through some of its layers.
        double most = MoeModel.Layers * shape.PerToken, slack = 2 * most / 30;
        Assert.Equal(most, alone, slack);
        Assert.InRange(together, 1, most - 0.5);
        Assert.Equal(alone * shape.ExpertBytes, rows[0].GetProperty("expert_bytes_per_token").GetDouble(), slack * shape.ExpertBytes);
        Assert.Equal(together * shape.ExpertBytes, rows[2].GetProperty("expert_bytes_per_token").GetDouble(), slack * shape.ExpertBytes);
        Assert.False(rows[1].TryGetProperty("experts_per_token", out _));
        Assert.Equal(0, HostProcess.Run(arguments).ExitCode);
    }

    [Fact]
    public void RoutingIsShownAndDrawn()
    {
        MoeModel shape = new() { FixedLayer = 1 };
        string model = shape.Write(folder, "model"), text = folder.Write("text.txt", Text), svg = folder.File("map.svg"), png = folder.File("map.PNG");
        HostResult shown = HostProcess.Run("inspect", "-m", model, "--routing", text, "--out", svg);
        Assert.True(shown.ExitCode == 0, shown.Error);
        string[] lines = shown.Output.Split('\n');
        Assert.Equal($"{model}: mixtral, {Text.Length} tokens", lines[0]);
        Assert.StartsWith("layer 0  ", lines[1], StringComparison.Ordinal);
        Assert.Equal("layer 1  ████········", lines[2]);
        Assert.Contains("2, 3, 4, 5", shown.Output, StringComparison.Ordinal);
        Assert.Contains("busiest: expert 0 of layer 1 with 50.0 % of its choices", shown.Output, StringComparison.Ordinal);
        string picture = File.ReadAllText(svg);
        Assert.Contains("<svg", picture, StringComparison.Ordinal);
        Assert.EndsWith("</svg>", picture.TrimEnd(), StringComparison.Ordinal);

        Assert.Equal(0, HostProcess.Run("inspect", "-m", model, "--routing", text, "--out", png, "--json").ExitCode);
        Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], File.ReadAllBytes(png)[..4]);
        Assert.Equal([png, svg, text], Directory.GetFiles(folder.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void ManyExpertsGoOnInTheNextLineAndUnusedOnesAreShortened()
    {
        const int Experts = 100;
        long[] counts = [.. Enumerable.Range(0, Experts).Select(static expert => expert < 2 ? 5L : 0)];
        LayerRoutingResult layer = new(
            11, Experts, 0, Experts, 2, 5, counts, [.. counts.Select(static count => (double)count)], null, 1, 0.15, new BusiestExpert(0, 0.5),
            [.. Enumerable.Range(2, Experts - 2)]);
        RoutingResult result = new("path", "mixtral", 5, [layer], new RoutingSummary(1, 0.15, 11, layer.Busiest, Experts - 2, Experts));
        string plain = Print(result, colours: false), coloured = Print(result, colours: true);
        string[] lines = plain.Split('\n');
        Assert.Equal($"layer 11  ██{new string('·', 68)}", lines[1]);
        Assert.Equal($"{new string(' ', 10)}{new string('·', 30)}", lines[2]);
        Assert.Contains(" 86 ", plain, StringComparison.Ordinal); // Of 98 twelve are listed.
        Assert.Contains("\u001b[48;", coloured, StringComparison.Ordinal);
        Assert.DoesNotContain("█", coloured, StringComparison.Ordinal);

        static string Print(RoutingResult result, bool colours)
        {
            StringWriter output = new();
            IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
            {
                Ansi = colours ? AnsiSupport.Yes : AnsiSupport.No,
                ColorSystem = colours ? ColorSystemSupport.TrueColor : ColorSystemSupport.NoColors,
                Out = new AnsiConsoleOutput(output),
            });
            console.Profile.Width = 80;
            new RoutingPrinter(console, colours).Print(result);
            return output.ToString();
        }
    }

    [Theory]
    [InlineData("generate")]
    [InlineData("chat")]
    [InlineData("logits")]
    [InlineData("perplexity")]
    [InlineData("bench")]
    [InlineData("inspect")]
    public void HelpHasTheOptions(string command)
    {
        string help = HostProcess.Run(command, "--help").Output;
        Assert.Contains("--experts-per-token <K>", help, StringComparison.Ordinal);
        Assert.Contains("--expert-memory <BYTES>", help, StringComparison.Ordinal);
    }
}
