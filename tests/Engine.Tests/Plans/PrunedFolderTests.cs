using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.FamiliesAgainstOracleTests;

namespace Engine.Tests.Plans;

/// <summary>
/// Folders whose layers lost heads, neurons, sublayers or whole layers give the logits of the model they were cut from with zeros in place of what is gone, computed in
/// doubles; as folders, as GGUF, and on both backends.
/// </summary>
public sealed class PrunedFolderTests
{
    /// <summary>The CPU computes in float32; a random model amplifies its rounding (see <see cref="FamiliesAgainstOracleTests"/>).</summary>
    private const double CpuTolerance = 1e-4;

    private const string Grouped = "llama grouped queries, llama3 rope, untied";

    public static TheoryData<string> Models =>
        ["llama tied", Grouped, "llama biases, gelu", "mistral window 8", "mistral without window", "qwen2", "qwen3", "qwen3 layer types"];

    public static TheoryData<string> ModelsInGguf => ["llama tied", Grouped, "mistral window 8", "mistral without window", "qwen2", "qwen3"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Heads_and_neurons_that_are_gone_are_as_zeros(string name)
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make(name, random.Next());
        LayerSurgery.Kept[] kept = LayerSurgery.Draw(model, random);
        AssertSame(model, kept, random.Next(2) == 0);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Sublayers_that_are_gone_are_as_zeros(string name)
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make(name, random.Next());
        LayerSurgery.Kept[] kept = LayerSurgery.Draw(model, random);
        kept[0] = kept[0] with { KvHeads = [], QueriesOfGroup = [] };
        kept[2] = kept[2] with { Neurons = [] };
        AssertSame(model, kept, true);
    }

    [Theory]
    [MemberData(nameof(ModelsInGguf))]
    public void Gguf_has_them_too(string name)
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make(name, random.Next());
        LayerSurgery.Kept[] kept = LayerSurgery.Draw(model, random);
        kept[1] = kept[1] with { KvHeads = [], QueriesOfGroup = [] };
        kept[2] = new LayerSurgery.Kept([0], [0], [3, 5, 8]);
        int[] tokens = model.Tokens(13);
        using var folder = new TemporaryFolder();
        TinyModel cut = LayerSurgery.Cut(model, kept);
        SayHeadDim(cut);
        string path = folder.File("model.gguf");
        using (Checkpoint source = CheckpointFile.Open(LayerSurgery.Write(cut, folder)))
        {
            GgufConverter.Convert(source, path, QuantizationRecipe.Named("F32"));
        }
        using var harness = new ModelHarness(CheckpointFile.Open(path), new ReferenceBackend(), pageTokens: 4);
        AssertClose(OracleLogits(LayerSurgery.Zeroed(model, kept), tokens), harness.Run(tokens, chunk: 5), ReferenceTolerance, model);
        using GgufFile file = GgufFile.Open(path);
        string architecture = (string)file.Metadata["general.architecture"];
        // llama.cpp lets the layers of a llama differ under this name alone, which has no windows.
        Assert.Equal(name == "mistral window 8" ? "llama" : name[0] is 'l' or 'm' ? "deci" : name, architecture);
        Assert.Equal(kept.Select(static keep => keep.KvHeads.Length), ((int[])file.Metadata[$"{architecture}.attention.head_count_kv"]));
        Assert.Equal(kept.Select(static keep => keep.KvHeads.Length * keep.QueriesOfGroup.Length), ((int[])file.Metadata[$"{architecture}.attention.head_count"]));
        Assert.Equal(kept.Select(static keep => keep.Neurons.Length), ((int[])file.Metadata[$"{architecture}.feed_forward_length"]));
    }

    [Fact]
    public void Layers_that_are_gone_may_leave_gaps()
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make("llama tied", random.Next());
        LayerSurgery.Kept[] kept = LayerSurgery.Draw(model, random);
        kept[1] = new LayerSurgery.Kept([], [], []);
        int[] tokens = model.Tokens(9);
        TinyModel cut = LayerSurgery.Cut(model, kept);
        cut.Tensors.Remove("model.layers.1.input_layernorm.weight");
        cut.Tensors.Remove("model.layers.1.post_attention_layernorm.weight");
        cut.Config["num_hidden_layers"] = 2;
        SayHeadDim(cut);
        using var folder = new TemporaryFolder();
        using var harness = new ModelHarness(CheckpointFile.Open(LayerSurgery.Write(cut, folder)), new ReferenceBackend(), pageTokens: 4);
        Assert.Equal(2, harness.Plan.Layers.Steps.Length);
        AssertClose(OracleLogits(LayerSurgery.Zeroed(model, kept), tokens), harness.Run(tokens, chunk: 4), ReferenceTolerance, model);
    }

    [Fact]
    public void Each_layer_caches_the_heads_it_has()
    {
        TinyModel model = TinyModels.Make(Grouped, Seed.Fresh().Next());
        LayerSurgery.Kept[] kept = [new([0, 1], [0], [1, 2]), new([], [], [4]), new([1], [0, 1], [])];
        using var folder = new TemporaryFolder();
        using Checkpoint checkpoint = CheckpointFile.Open(LayerSurgery.Write(LayerSurgery.Cut(model, kept), folder));
        LayerMap layers = ModelPlanReader.Read(checkpoint).Layers;
        Assert.Equal([new KvSlotPlan(2, 16), new KvSlotPlan(1, 16)], layers.KvSlots);
        Assert.Equal([0, LayerStep.NoKvSlot, 1], layers.Steps.Select(static step => step.KvSlot));
        Assert.Equal([(2, 2), (null, null), (2, 1)], layers.Blocks.Select(static block => (block.Attention?.Heads, block.Attention?.KvHeads)));
        Assert.Equal([2, 1, null], layers.Blocks.Select(static block => block.FeedForward?.Width));
        Assert.Equal([false, true, false], layers.Steps.Select(static step => step.AttentionNorm is null));
        Assert.Equal([false, false, true], layers.Steps.Select(static step => step.FeedForwardNorm is null));

        LayerMap changed = LayerOrder.Apply(ModelPlanReader.Read(checkpoint), "1,2,0-1").Layers;
        Assert.Equal([new KvSlotPlan(1, 16), new KvSlotPlan(2, 16)], changed.KvSlots);
        Assert.Equal([LayerStep.NoKvSlot, 0, 1, LayerStep.NoKvSlot], changed.Steps.Select(static step => step.KvSlot));
        Assert.Contains("attention", Assert.Throws<EngineException>(() => LayerOrder.Apply(ModelPlanReader.Read(checkpoint), "1*2")).Reason, StringComparison.Ordinal);
    }

    [Theory]
    // Two of four heads of 8 are two of 8 or four of 4, unless keys or another layer tell.
    [InlineData(16, 16, 8, 8, "heads of 8 (hidden_size / heads) or of 4 (rows / heads)")]
    [InlineData(32, 16, 16, 8, null)]
    [InlineData(16, 24, 8, 8, null)]
    [InlineData(24, 24, 24, 24, "heads of 8 (hidden_size / heads) or of 6 (rows / heads)")]
    [InlineData(16, 12, 8, 6, "no whole heads")]
    public void Widths_of_heads_are_not_guessed(int queries0, int queries1, int keys0, int keys1, string? complaint)
    {
        TinyModel model = TinyModels.Make("llama tied", Seed.Fresh().Next());
        foreach ((int layer, int queries, int keys) in ((int, int, int)[])[(0, queries0, keys0), (1, queries1, keys1), (2, queries1, keys1)])
        {
            string name = $"model.layers.{layer}.self_attn.";
            foreach ((string linear, int rows, int columns) in ((string, int, int)[])[("q", queries, 32), ("k", keys, 32), ("v", keys, 32), ("o", 32, queries)])
            {
                model.Tensors.Remove($"{name}{linear}_proj.weight");
                model.AddMatrix($"{name}{linear}_proj.weight", rows, columns, columns);
            }
        }
        using var folder = new TemporaryFolder();
        LayerSurgery.Write(model, folder);
        if (complaint is null)
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            Assert.All(ModelPlanReader.Read(checkpoint).Layers.KvSlots, static slot => Assert.Equal(8, slot.HeadDim));
            return;
        }
        EngineException error = Assert.Throws<EngineException>(() =>
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            ModelPlanReader.Read(checkpoint);
        });
        Assert.Equal("head_dim", error.Item);
        Assert.Contains(complaint, error.Message, StringComparison.Ordinal);
        if (queries0 == 16 && keys1 == 8)
        {
            model.Config["head_dim"] = 4;
            folder.Write("config.json", model.Config.ToJsonString());
            using Checkpoint said = CheckpointFile.Open(folder.Path);
            Assert.All(ModelPlanReader.Read(said).Layers.KvSlots, static slot => Assert.Equal(4, slot.HeadDim));
        }
    }

    [Fact]
    public void Folders_that_were_not_pruned_stay_as_they_are()
    {
        TinyModel model = TinyModels.Make(Grouped, Seed.Fresh().Next());
        using var folder = new TemporaryFolder();
        using Checkpoint checkpoint = CheckpointFile.Open(LayerSurgery.Write(model, folder));
        Assert.True(JsonNode.DeepEquals(model.Config, checkpoint.Config));
    }

    [Fact]
    public void What_fits_nothing_is_refused()
    {
        TinyModel model = TinyModels.Make(Grouped, Seed.Fresh().Next());
        string output = "model.layers.1.self_attn.o_proj.weight", up = "model.layers.2.mlp.up_proj.weight";
        LayerSurgery.Kept[] kept = [.. Enumerable.Repeat(new LayerSurgery.Kept([0, 1], [0], [0, 1, 2]), 3)];
        TinyModel cut = LayerSurgery.Cut(model, kept);
        cut.Tensors.Remove(output);
        cut.AddMatrix(output, 32, 64, 64);
        Refused(cut, output, "expected shape [32, 32]; found [32, 64]");
        cut = LayerSurgery.Cut(model, kept);
        cut.Tensors.Remove(up);
        cut.AddMatrix(up, 4, 32, 32);
        Refused(cut, up, "expected shape [3, 32]; found [4, 32]");
        cut = LayerSurgery.Cut(model, [kept[0], kept[1], new LayerSurgery.Kept([0, 1], [0, 1], [0])]);
        cut.Tensors.Remove("model.layers.0.self_attn.q_proj.weight");
        cut.AddMatrix("model.layers.0.self_attn.q_proj.weight", 48, 32, 32);
        Refused(cut, "num_key_value_heads", "expected a divisor of the 3 query heads in layer 0; found 2");
        cut = LayerSurgery.Cut(model, [.. Enumerable.Repeat(new LayerSurgery.Kept([], [], [0]), 3)]);
        Refused(cut, "num_attention_heads", "expected a layer with attention; found none");

        static void Refused(TinyModel model, string item, string reason)
        {
            using var folder = new TemporaryFolder();
            LayerSurgery.Write(model, folder);
            EngineException error = Assert.Throws<EngineException>(() =>
            {
                using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
                ModelPlanReader.Read(checkpoint);
            });
            Assert.Equal((item, reason), (error.Item, error.Reason));
        }
    }

    private static void AssertSame(TinyModel model, LayerSurgery.Kept[] kept, bool reference)
    {
        int[] tokens = model.Tokens(17), others = model.Tokens(6);
        double[][] expected = OracleLogits(LayerSurgery.Zeroed(model, kept), tokens);
        TinyModel cut = LayerSurgery.Cut(model, kept);
        SayHeadDim(cut);
        using var folder = new TemporaryFolder();
        Checkpoint checkpoint = CheckpointFile.Open(LayerSurgery.Write(cut, folder));
        IBackend backend = reference ? new ReferenceBackend() : new CpuBackend(new CpuOptions { Threads = 2 });
        using var harness = new ModelHarness(checkpoint, backend, pageTokens: 4);
        AssertClose(expected, harness.Run(tokens, chunk: 7), reference ? ReferenceTolerance : CpuTolerance, model);
        // Two sequences at once: pages of different widths lie in one pool.
        float[][][] both = harness.Step((harness.NewTrack(), tokens), (harness.NewTrack(), others));
        AssertClose(expected, both[0], reference ? ReferenceTolerance : CpuTolerance, model);
    }

    /// <summary>As pruning tools should: hidden_size / heads is not enough where what is left fits other widths too.</summary>
    private static void SayHeadDim(TinyModel model) =>
        model.Config["head_dim"] ??= (int)model.Config["hidden_size"]! / (int)model.Config["num_attention_heads"]!;
}
