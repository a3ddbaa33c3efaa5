using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Layers in another order: what the new plan says, and what is refused.</summary>
public sealed class LayerOrderTests
{
    [Theory]
    [InlineData("0,1,2", "0 1 2", "0 1 2")]
    [InlineData(" 0 - 2 ", "0 1 2", "0 1 2")]
    [InlineData("0-1,1-2", "0 1 1 2", "0 1 1 2")]
    [InlineData("2,0", "2 0", "0 1")]
    [InlineData("1*4", "1 1 1 1", "0 0 0 0")]
    [InlineData("0-1*2,2", "0 1 0 1 2", "0 1 0 1 2")]
    [InlineData("0,1,2=1", "0 1 2", "0 1 1")]
    [InlineData("2=0*2", "2 2", "0 0")]
    public void An_order_is_steps_over_the_same_blocks(string order, string norms, string blocks)
    {
        ModelPlan plan = Plan("llama tied"), other = LayerOrder.Apply(plan, order);
        int[] layers = Numbers(norms);
        LayerMap map = other.Layers;
        Assert.Equal(layers.Select(static layer => $"model.layers.{layer}.input_layernorm.weight"),
            map.Steps.Select(static step => step.AttentionNorm!.Weight!.Tensor));
        Assert.Equal(layers.Select(static layer => $"model.layers.{layer}.post_attention_layernorm.weight"),
            map.Steps.Select(static step => step.FeedForwardNorm!.Weight!.Tensor));
        Assert.Equal(Enumerable.Range(0, layers.Length), map.Steps.Select(static step => step.KvSlot));
        Assert.Equal(Enumerable.Repeat(new KvSlotPlan(2, 8), layers.Length), map.KvSlots);
        int[] expected = Numbers(blocks);
        // Blocks that nobody uses are not loaded, and the others keep their weights: they are the same objects.
        Assert.Equal(expected.Distinct().Count(), map.Blocks.Length);
        Assert.All(map.Blocks, block => Assert.Contains(block, plan.Layers.Blocks));
        for (int i = 0; i < expected.Length; i++)
        {
            for (int j = 0; j < i; j++)
            {
                Assert.Equal(expected[i] == expected[j], map.Steps[i].Block == map.Steps[j].Block);
            }
        }
    }

    [Fact]
    public void The_weights_are_those_of_the_layers_named()
    {
        ModelPlan plan = LayerOrder.Apply(Plan("llama tied"), "2,1=0");
        Assert.Equal(["model.layers.2.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"],
            plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block].FeedForward!.In.Parts[1].Weight!.Tensor));
    }

    [Theory]
    [InlineData("", "found ''")]
    [InlineData("0,,1", "found ''")]
    [InlineData("0-", "found '0-'")]
    [InlineData("-1", "found '-1'")]
    [InlineData("a", "found 'a'")]
    [InlineData("1.5", "found '1.5'")]
    [InlineData("0-1=2", "found '0-1=2'")]
    [InlineData("0=1=2", "found '0=1=2'")]
    [InlineData("1*2*3", "found '1*2*3'")]
    [InlineData("1*", "found '1*'")]
    [InlineData("1*0", "at least one time; found '1*0'")]
    [InlineData("2-1", "goes upwards; found '2-1'")]
    [InlineData("99999999999", "found '99999999999'")]
    [InlineData("0-2147483647", "at most 4096")]
    [InlineData("0*5000", "at most 4096")]
    [InlineData("0*2147483647", "at most 4096")]
    public void A_malformed_order_is_refused_without_a_model(string order, string reason)
    {
        EngineException error = Assert.Throws<EngineException>(() => new LanguageModelOptions { Layers = order }.Validate());
        Assert.Equal("Layers", error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0-3", "layers 0 to 2; found 3")]
    [InlineData("0,1=7", "layers 0 to 2; found 7")]
    public void Layers_that_are_not_there_are_refused(string order, string reason)
    {
        EngineException error = Assert.Throws<EngineException>(() => LayerOrder.Apply(Plan("llama tied"), order));
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("cycle", false)]
    [InlineData("sequence", true)]
    public void Recursive_models_keep_their_order(string sharing, bool kv)
    {
        using MemoryCheckpoint checkpoint = RecursiveModels.Make(sharing, 6, 3, kv: kv).ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        Assert.Contains("recursive", Assert.Throws<EngineException>(() => LayerOrder.Apply(plan, "0-2")).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Streams_keep_the_prefixes_of_their_layers_and_share_the_first_slot()
    {
        using Checkpoint checkpoint = CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "parscale", "p2_tied_f32_n48"));
        ModelPlan plan = LayerOrder.Apply(ModelPlanReader.Read(checkpoint), "2,0,1=0");
        Assert.Equal([true, false, false], plan.Layers.KvSlots.Select(static slot => slot.SharedByStreams));
        Assert.Equal(
            ["model.layers.2.self_attn.prefix_k", "model.layers.0.self_attn.prefix_k", "model.layers.1.self_attn.prefix_k"],
            plan.Streams!.Sets[0].Prefixes.Select(static prefix => prefix.Keys.Tensor));
    }

    [Fact]
    public void A_models_own_order_changes_no_logit_and_another_changes_them()
    {
        int[] tokens = TinyModels.Make("llama tied", 9).Tokens(12);
        float[][] asIs = Logits(null), same = Logits("0-2"), folded = Logits("0,1,2=1");
        Assert.Equal(asIs, same);
        Assert.NotEqual(asIs, folded);

        float[][] Logits(string? order)
        {
            MemoryCheckpoint checkpoint = TinyModels.Make("llama tied", 9).ToCheckpoint();
            ModelPlan plan = ModelPlanReader.Read(checkpoint);
            using var harness = new ModelHarness(
                checkpoint, new CpuBackend(new CpuOptions { Threads = 1 }), plan: order is null ? plan : LayerOrder.Apply(plan, order));
            return harness.Run(tokens, 5);
        }
    }

    /// <summary>A model whose file repeats layers computes, bit for bit, what the order over the smaller file does.</summary>
    [Fact]
    public void An_order_computes_what_a_file_with_the_layers_in_that_order_does()
    {
        TinyModel small = TinyModels.Make("llama tied", 10);
        TinyModel merged = TinyModels.Make("llama tied", 10);
        int[] order = [0, 1, 1, 2, 0];
        foreach (string name in merged.Tensors.Keys.Where(static name => name.Contains(".layers.", StringComparison.Ordinal)).ToArray())
        {
            merged.Tensors.Remove(name);
        }
        for (int layer = 0; layer < order.Length; layer++)
        {
            foreach ((string name, (long[], float[]) tensor) in small.Tensors)
            {
                string prefix = $"model.layers.{order[layer]}.";
                if (name.StartsWith(prefix, StringComparison.Ordinal))
                {
                    merged.Tensors.Add($"model.layers.{layer}.{name[prefix.Length..]}", tensor);
                }
            }
        }
        merged.Config["num_hidden_layers"] = order.Length;
        int[] tokens = small.Tokens(12);
        MemoryCheckpoint smallFile = small.ToCheckpoint(), mergedFile = merged.ToCheckpoint();
        ModelPlan mergedPlan = ModelPlanReader.Read(mergedFile);
        Assert.Equal(3, mergedPlan.Layers.Blocks.Length);
        using var byOrder = new ModelHarness(smallFile, new CpuBackend(new CpuOptions { Threads = 1 }),
            plan: LayerOrder.Apply(ModelPlanReader.Read(smallFile), "0-1,1-2,0"));
        using var byFile = new ModelHarness(mergedFile, new CpuBackend(new CpuOptions { Threads = 1 }), plan: mergedPlan);
        Assert.Equal(byFile.Run(tokens, 12), byOrder.Run(tokens, 12));
    }

    private static int[] Numbers(string text) => [.. text.Split(' ').Select(static number => int.Parse(number))];

    private static ModelPlan Plan(string name)
    {
        using MemoryCheckpoint checkpoint = TinyModels.Make(name, Random.Shared.Next()).ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
