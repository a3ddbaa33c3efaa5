using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Layers whose bytes are the same become one block, and no others do.</summary>
public sealed class SharedWeightsTests
{
    private static readonly string[] Attention =
        ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight"];

    private static readonly string[] FeedForward = ["mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"];

    [Fact]
    public void Layers_that_differ_stay_apart()
    {
        LayerMap layers = Plan(TinyModels.Make("llama tied", 1)).Layers;
        Assert.Equal((3, 3), (layers.Blocks.Select(static block => block.Attention).Distinct().Count(),
            layers.Blocks.Select(static block => block.FeedForward).Distinct().Count()));
    }

    [Fact]
    public void A_copied_layer_is_one_block_with_norms_of_its_own()
    {
        TinyModel model = TinyModels.Make("llama tied", 2);
        Copy(model, 0, 2, [.. Attention, .. FeedForward]);
        LayerMap layers = Plan(model).Layers;
        Assert.Equal(2, layers.Blocks.Length);
        Assert.Equal([0, 1, 0], layers.Steps.Select(static step => step.Block));
        Assert.Equal([0, 1, 2], layers.Steps.Select(static step => step.KvSlot));
        Assert.Equal("model.layers.2.input_layernorm.weight", layers.Steps[2].AttentionNorm!.Weight!.Tensor);
    }

    [Fact]
    public void Norms_that_are_the_same_become_one_and_others_stay()
    {
        TinyModel model = TinyModels.Make("llama tied", 2);
        Copy(model, 0, 2, ["input_layernorm.weight"]);
        LayerMap layers = Plan(model).Layers;
        Assert.Same(layers.Steps[0].AttentionNorm, layers.Steps[2].AttentionNorm);
        Assert.NotEqual(layers.Steps[0].AttentionNorm, layers.Steps[1].AttentionNorm);
        Assert.NotEqual(layers.Steps[0].FeedForwardNorm, layers.Steps[2].FeedForwardNorm);
    }

    [Fact]
    public void Attention_alone_can_be_shared()
    {
        TinyModel model = TinyModels.Make("llama tied", 3);
        Copy(model, 0, 1, Attention);
        LayerMap layers = Plan(model).Layers;
        Assert.Equal([0, 1, 2], layers.Steps.Select(static step => step.Block));
        Assert.Same(layers.Blocks[0].Attention, layers.Blocks[1].Attention);
        Assert.NotSame(layers.Blocks[0].FeedForward, layers.Blocks[1].FeedForward);
    }

    [Fact]
    public void Feed_forwards_alone_can_be_shared()
    {
        TinyModel model = TinyModels.Make("qwen2", 4);
        Copy(model, 1, 2, FeedForward);
        LayerMap layers = Plan(model).Layers;
        Assert.Same(layers.Blocks[1].FeedForward, layers.Blocks[2].FeedForward);
        Assert.NotSame(layers.Blocks[1].Attention, layers.Blocks[2].Attention);
    }

    [Fact]
    public void One_element_of_any_tensor_makes_the_difference()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        TinyModel model = TinyModels.Make("qwen3", seed);
        string[] all = [.. Attention, "self_attn.q_norm.weight", "self_attn.k_norm.weight", .. FeedForward];
        Copy(model, 0, 1, all);
        Assert.Equal(2, Plan(model).Layers.Blocks.Length);
        foreach (string tensor in all)
        {
            float[] values = model.Tensors[$"model.layers.1.{tensor}"].Values;
            int at = random.Next(values.Length);
            values[at] += 1;
            Assert.True(Plan(model).Layers.Blocks.Length == 3, $"seed {seed}: {tensor}[{at}]");
            values[at] -= 1;
            values[at] = model.Tensors[$"model.layers.0.{tensor}"].Values[at];
        }
        Assert.Equal(2, Plan(model).Layers.Blocks.Length);
    }

    [Fact]
    public void Of_three_that_look_alike_the_two_that_are_alike_are_found()
    {
        TinyModel model = TinyModels.Make("llama tied", 5);
        Copy(model, 0, 1, [.. Attention, .. FeedForward]);
        Copy(model, 0, 2, [.. Attention, .. FeedForward]);
        model.Tensors["model.layers.0.mlp.down_proj.weight"].Values[0] += 1; // far from the sample
        LayerMap layers = Plan(model).Layers;
        Assert.Equal([0, 1, 1], layers.Steps.Select(static step => step.Block));
        Assert.Same(layers.Blocks[0].Attention, layers.Blocks[1].Attention);
    }

    [Fact]
    public void The_same_weights_under_another_window_or_scale_are_another_block()
    {
        TinyModel windows = TinyModels.Make("qwen2 window above layer 1", 6);
        string[] biases = [.. Attention[..3].Select(static name => name.Replace("weight", "bias", StringComparison.Ordinal))];
        Copy(windows, 0, 1, [.. Attention, .. biases, .. FeedForward]);
        Copy(windows, 0, 2, [.. Attention, .. biases, .. FeedForward]);
        Assert.Equal([0, 1, 1], Plan(windows).Layers.Steps.Select(static step => step.Block));

        TinyModel scales = TinyModels.Make("gpt2 scaled by layer, own head", 7);
        foreach (string name in scales.Tensors.Keys.Where(static name => name.StartsWith("transformer.h.1.", StringComparison.Ordinal)).ToArray())
        {
            scales.Tensors[name] = scales.Tensors[name.Replace(".1.", ".0.", StringComparison.Ordinal)];
        }
        LayerMap layers = Plan(scales).Layers;
        Assert.NotSame(layers.Blocks[0].Attention, layers.Blocks[1].Attention);
        Assert.Same(layers.Blocks[0].FeedForward, layers.Blocks[1].FeedForward);
    }

    [Fact]
    public void A_head_that_copies_the_token_table_is_the_token_table()
    {
        TinyModel model = TinyModels.Make("llama yarn", 8);
        Assert.Equal("lm_head.weight", Plan(model).Head.Parts[0].Weight!.Tensor);
        model.Tensors["lm_head.weight"] = model.Tensors["model.embed_tokens.weight"];
        Assert.Equal("model.embed_tokens.weight", Plan(model).Head.Parts[0].Weight!.Tensor);
    }

    [Fact]
    public void Copies_in_a_file_with_every_name_are_found()
    {
        using Checkpoint checkpoint = CheckpointFile.Open(
            Path.Combine(AppContext.BaseDirectory, "Golden", "mor", "mor_expert_rec2_mlp_fullnames_bf16"));
        Assert.Contains("model.layers.2.block.0.mlp.up_proj.weight", checkpoint.TensorNames);
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        Assert.Equal([0, 1, 2, 1, 2, 3], plan.Layers.Steps.Select(static step => step.Block));
        Assert.Equal("model.embed_tokens.weight", plan.Head.Parts[0].Weight!.Tensor);
    }

    private static void Copy(TinyModel model, int from, int to, string[] names)
    {
        foreach (string name in names)
        {
            (long[] shape, float[] values) = model.Tensors[$"model.layers.{from}.{name}"];
            model.Tensors[$"model.layers.{to}.{name}"] = (shape, [.. values]);
        }
    }

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
