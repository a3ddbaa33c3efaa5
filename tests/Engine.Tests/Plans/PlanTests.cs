using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>What plans say: names, shapes, and the choices that configurations make.</summary>
public sealed class PlanTests
{
    [Fact]
    public void A_llama_plan_names_its_tensors_and_shapes()
    {
        ModelPlan plan = Plan("llama grouped queries, llama3 rope, untied");
        Assert.Equal(("llama", 48, 32, 64), (plan.Family, plan.VocabularySize, plan.HiddenSize, plan.ContextLength));
        Assert.Equal(new EmbeddingPlan(new WeightRef("model.embed_tokens.weight")), plan.Embedding);
        Assert.Equal(new NormPlan(NormKind.Rms, 1e-5f, new WeightRef("model.norm.weight")), plan.FinalNorm);
        Assert.Equal([new LinearPart(48, new WeightRef("lm_head.weight"))], plan.Head.Parts);
        Assert.Equal([new KvSlotPlan(2, 16), new KvSlotPlan(2, 16), new KvSlotPlan(2, 16)], plan.Layers.KvSlots);
        Assert.Equal([0, 1, 2], plan.Layers.Steps.Select(static step => step.Block));
        Assert.Equal([0, 1, 2], plan.Layers.Steps.Select(static step => step.KvSlot));
        Assert.Equal("model.layers.1.input_layernorm.weight", plan.Layers.Steps[1].AttentionNorm!.Weight!.Tensor);
        Assert.Equal("model.layers.1.post_attention_layernorm.weight", plan.Layers.Steps[1].FeedForwardNorm!.Weight!.Tensor);
        AttentionPlan attention = plan.Layers.Blocks[1].Attention!;
        Assert.Equal((4, 2, 16, 0.25f), (attention.Heads, attention.KvHeads, attention.HeadDim, attention.Scale));
        Assert.Equal(
        [
            new LinearPart(64, new WeightRef("model.layers.1.self_attn.q_proj.weight")),
            new LinearPart(32, new WeightRef("model.layers.1.self_attn.k_proj.weight")),
            new LinearPart(32, new WeightRef("model.layers.1.self_attn.v_proj.weight")),
        ], attention.Qkv.Parts);
        Assert.Equal((64, 32), (attention.Output.Inputs, attention.Output.Outputs));
        Assert.Null(attention.QueryNorm);
        Assert.Null(attention.SlidingWindow);
        FeedForwardPlan feedForward = plan.Layers.Blocks[1].FeedForward!;
        Assert.Equal((Activation.SwiGlu, 44, 88), (feedForward.Activation, feedForward.Width, feedForward.In.Outputs));
        Assert.Equal(
            ["model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"],
            feedForward.In.Parts.Select(static part => part.Weight!.Tensor));
        Assert.Equal([new LinearPart(32, new WeightRef("model.layers.1.mlp.down_proj.weight"))], feedForward.Down.Parts);
    }

    [Fact]
    public void A_gpt2_plan_slices_its_fused_projection_and_turns_its_matrices()
    {
        ModelPlan plan = Plan("gpt2");
        Assert.Equal(new WeightRef("transformer.wpe.weight"), plan.Embedding.Positions);
        AttentionPlan attention = plan.Layers.Blocks[2].Attention!;
        Assert.Null(attention.Rope);
        Assert.Equal([0, 24, 48], attention.Qkv.Parts.Select(static part => part.Weight!.FirstRow));
        Assert.Equal([0, 24, 48], attention.Qkv.Parts.Select(static part => part.Bias!.FirstRow));
        Assert.All(attention.Qkv.Parts, static part => Assert.Equal((24, "transformer.h.2.attn.c_attn.weight", true),
            (part.Outputs, part.Weight!.Tensor, part.Weight!.Transposed)));
        Assert.Equal(new WeightRef("transformer.h.2.mlp.c_proj.weight", 0, Transposed: true),
            plan.Layers.Blocks[2].FeedForward!.Down.Parts[0].Weight);
        Assert.Equal(plan.Embedding.Tokens, plan.Head.Parts[0].Weight);
    }

    [Fact]
    public void A_tied_head_names_the_embedding() =>
        Assert.Equal(new WeightRef("model.embed_tokens.weight"), Plan("llama tied").Head.Parts[0].Weight);

    [Fact]
    public void A_head_that_is_stored_is_used_where_the_configuration_does_not_say()
    {
        Assert.Equal("lm_head.weight", HeadOf("llama yarn"));
        Assert.Equal("model.embed_tokens.weight", HeadOf("llama tied"));

        static string HeadOf(string name) =>
            Plan(name, static model => model.Config.Remove("tie_word_embeddings")).Head.Parts[0].Weight!.Tensor;
    }

    [Fact]
    public void Names_without_the_models_prefix_are_found()
    {
        ModelPlan plan = Plan("llama tied", static model =>
        {
            foreach ((string name, (long[], float[]) tensor) in model.Tensors.ToArray())
            {
                model.Tensors.Remove(name);
                model.Tensors.Add(name["model.".Length..], tensor);
            }
        });
        Assert.Equal("layers.0.self_attn.o_proj.weight", plan.Layers.Blocks[0].Attention!.Output.Parts[0].Weight!.Tensor);
    }

    [Theory]
    [InlineData("mistral window 8", 8, 8, 8)]
    [InlineData("mistral without window", null, null, null)]
    [InlineData("qwen2", null, null, null)]
    [InlineData("qwen2 window above layer 1", null, 4, 4)]
    [InlineData("qwen3 layer types", null, 5, null)]
    public void Windows_are_in_the_layers_that_the_family_says(string name, int? first, int? second, int? third) =>
        Assert.Equal([first, second, third], Plan(name).Layers.Blocks.Select(static block => block.Attention!.SlidingWindow));

    [Fact]
    public void A_mistral_that_does_not_mention_its_window_has_4096()
    {
        ModelPlan plan = Plan("mistral window 8", static model =>
        {
            model.Config.Remove("sliding_window");
            model.Config["max_position_embeddings"] = 8192;
        });
        Assert.Equal(4096, plan.Layers.Blocks[0].Attention!.SlidingWindow);
    }

    [Fact]
    public void A_window_as_long_as_the_context_is_none() =>
        Assert.Null(
            Plan("mistral window 8", static model => model.Config["sliding_window"] = 64).Layers.Blocks[0].Attention!.SlidingWindow);

    [Fact]
    public void Heads_are_told_by_the_shapes_where_the_configuration_does_not_say()
    {
        ModelPlan plan = Plan("qwen3", static model =>
        {
            model.Config.Remove("head_dim");
            model.Config.Remove("num_key_value_heads");
        });
        AttentionPlan attention = plan.Layers.Blocks[0].Attention!;
        Assert.Equal((2, 10), (attention.KvHeads, attention.HeadDim));
        Assert.Equal(new NormPlan(NormKind.Rms, 1e-5f, new WeightRef("model.layers.0.self_attn.q_norm.weight")), attention.QueryNorm);
    }

    [Fact]
    public void Layers_may_differ_in_heads_and_widths()
    {
        ModelPlan plan = Plan("llama tied", static model =>
        {
            model.Config["num_attention_heads"] = new JsonArray(4, 2, 4);
            model.Config["num_key_value_heads"] = new JsonArray(2, 1, 2);
            model.Config["head_dim"] = 8;
            model.Config["intermediate_size"] = new JsonArray(44, 44, 20);
            Replace(model, "model.layers.1.self_attn.q_proj.weight", 16, 32);
            Replace(model, "model.layers.1.self_attn.k_proj.weight", 8, 32);
            Replace(model, "model.layers.1.self_attn.v_proj.weight", 8, 32);
            Replace(model, "model.layers.1.self_attn.o_proj.weight", 32, 16);
            Replace(model, "model.layers.2.mlp.gate_proj.weight", 20, 32);
            Replace(model, "model.layers.2.mlp.up_proj.weight", 20, 32);
            Replace(model, "model.layers.2.mlp.down_proj.weight", 32, 20);
        });
        Assert.Equal([4, 2, 4], plan.Layers.Blocks.Select(static block => block.Attention!.Heads));
        Assert.Equal([new KvSlotPlan(2, 8), new KvSlotPlan(1, 8), new KvSlotPlan(2, 8)], plan.Layers.KvSlots);
        Assert.Equal([44, 44, 20], plan.Layers.Blocks.Select(static block => block.FeedForward!.Width));
    }

    [Fact]
    public void Biases_are_taken_where_they_exist()
    {
        ModelPlan plan = Plan("llama tied", static model => model.AddBias("model.layers.1.self_attn.k_proj.bias", 16));
        Assert.Equal([null, new WeightRef("model.layers.1.self_attn.k_proj.bias"), null],
            plan.Layers.Blocks[1].Attention!.Qkv.Parts.Select(static part => part.Bias));
    }

    [Fact]
    public void Families_are_listed_once_each()
    {
        Assert.Equal(
            [
                "llama", "mistral", "qwen2", "qwen3", "gpt2", "parscale", "mor", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek",
                "deepseek_v2", "deepseek_v3", "phimoe", "gpt_oss", "llama_moe_rnn", "deci", "slicegpt",
            ],
            ModelPlanReader.Families.Select(static family => family.Name));
        string[] types = [.. ModelPlanReader.Families.SelectMany(static family => family.ModelTypes)];
        Assert.Equal(types.Distinct(), types);
        Assert.All(ModelPlanReader.Families, static family =>
        {
            Assert.NotEmpty(family.Architectures);
            Assert.NotEmpty(family.Models);
            Assert.NotEmpty(family.Supports);
        });
    }

    [Fact]
    public void An_architecture_is_enough_where_the_model_type_is_missing() => Assert.Equal("qwen2", Plan("qwen2", static model =>
    {
        model.Config.Remove("model_type");
        model.Config["architectures"] = new JsonArray("Qwen2ForCausalLM");
    }).Family);

    private static void Replace(TinyModel model, string name, int rows, int columns) =>
        model.Tensors[name] = ([rows, columns], new float[rows * columns]);

    private static ModelPlan Plan(string name, Action<TinyModel>? change = null)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        change?.Invoke(model);
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
