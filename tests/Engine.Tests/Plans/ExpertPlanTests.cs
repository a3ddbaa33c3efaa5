using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Plans.Readers;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.ExpertModels;

namespace Engine.Tests.Plans;

/// <summary>What readers make of mixtures of experts: which tensors and rows, and which router.</summary>
public sealed class ExpertPlanTests
{
    [Fact]
    public void A_mixtral_plan_has_a_slot_per_expert_and_weights_that_sum_to_one()
    {
        ModelPlan plan = Plan(Make("mixtral", """{"sliding_window": 16}"""));
        Assert.All(plan.Layers.Blocks, static block => Assert.Null(block.FeedForward));
        Assert.All(plan.Layers.Blocks, static block => Assert.Equal(16, block.Attention!.SlidingWindow));
        ExpertsPlan experts = plan.Layers.Blocks[1].Experts!;
        Assert.Equal(Enumerable.Range(0, Experts), experts.Map);
        Assert.Empty(experts.Shared);
        RouterPlan router = experts.Router;
        Assert.Equal((Experts, 2, ExpertScore.Softmax, ExpertChoice.Largest, ExpertWeight.Score, true, 0f, 1f),
            (router.Experts, router.PerToken, router.Score, router.Choice, router.Weight, router.Normalize, router.NormalizationEpsilon, router.Scale));
        Assert.Equal([new LinearPart(Experts, new WeightRef("model.layers.1.block_sparse_moe.gate.weight"))], router.Logits.Parts);
        FeedForwardPlan slot = experts.Slots[4];
        Assert.Equal((Activation.SwiGlu, Width, Hidden), (slot.Activation, slot.Width, slot.In.Inputs));
        const string name = "model.layers.1.block_sparse_moe.experts.4";
        Assert.Equal([new(Width, new WeightRef($"{name}.w1.weight")), new(Width, new WeightRef($"{name}.w3.weight"))], slot.In.Parts);
        Assert.Equal([new LinearPart(Hidden, new WeightRef($"{name}.w2.weight"))], slot.Down.Parts);
    }

    [Fact]
    public void A_gpt_oss_plan_takes_gate_and_up_in_turn_and_counts_biases_and_sinks()
    {
        TinyModel model = MoeModels.Make("gpt_oss tight limit, three experts", Random.Shared.Next());
        ModelPlan plan = Plan(model);
        AttentionPlan attention = plan.Layers.Blocks[1].Attention!;
        Assert.Equal(model.Tensors["model.layers.1.self_attn.sinks"].Values, attention.Sinks);
        Assert.Equal([5, null, 5], plan.Layers.Blocks.Select(static block => block.Attention!.SlidingWindow));
        Assert.NotNull(attention.Output.Parts[0].Bias);
        ExpertsPlan experts = plan.Layers.Blocks[1].Experts!;
        Assert.Equal((3, ExpertScore.Logit, ExpertWeight.SoftmaxOfChosen, false),
            (experts.Router.PerToken, experts.Router.Score, experts.Router.Weight, experts.Router.Normalize));
        const string name = "model.layers.1.mlp.experts";
        Assert.Equal([new LinearPart(6, new("model.layers.1.mlp.router.weight"), new("model.layers.1.mlp.router.bias"))], experts.Router.Logits.Parts);
        FeedForwardPlan slot = experts.Slots[4];
        Assert.Equal((Activation.ClampedSwiGlu, new SwiGluClamp(0.6f, 1.702f), 32), (slot.Activation, slot.Clamp, slot.Width));
        Assert.Equal(
        [
            new(32, Turn($"{name}.gate_up_proj", 0) with { Transposed = true }, Turn($"{name}.gate_up_proj_bias", 0)),
            new(32, Turn($"{name}.gate_up_proj", 1) with { Transposed = true }, Turn($"{name}.gate_up_proj_bias", 1)),
        ], slot.In.Parts);
        Assert.Equal(
            [new LinearPart(64, new($"{name}.down_proj", 0, true) { Slice = 4 }, new($"{name}.down_proj_bias") { Slice = 4 })], slot.Down.Parts);

        MoeLayouts.Encode(model);
        slot = Plan(model).Layers.Blocks[1].Experts!.Slots[4];
        Assert.Equal(Turn($"{name}.gate_up_proj_blocks", 1) with { Scales = $"{name}.gate_up_proj_scales" }, slot.In.Parts[1].Weight);
        Assert.Equal(new($"{name}.down_proj_blocks") { Slice = 4, Scales = $"{name}.down_proj_scales" }, slot.Down.Parts[0].Weight);

        model.Config["quantization_config"]!["quant_method"] = "gptq";
        Assert.Equal("quantization_config", Assert.Throws<EngineException>(() => Plan(model)).Item);
        model.Config["quantization_config"]!["quant_method"] = "mxfp4";
        model.Codes[$"{name}.down_proj_scales"] = ([6, 64, 2], new byte[6 * 64 * 2]);
        Assert.Equal($"{name}.down_proj_scales", Assert.Throws<EngineException>(() => Plan(model)).Item);
        model.Codes.Remove($"{name}.down_proj_scales");
        Assert.Contains("missing", Assert.Throws<EngineException>(() => Plan(model)).Message, StringComparison.Ordinal);

        static WeightRef Turn(string tensor, int first) => new(tensor, first) { Slice = 4, RowStep = 2 };
    }

    [Fact]
    public void Experts_of_gpt_oss_that_are_copies_share_a_slot_in_either_layout()
    {
        TinyModel model = MoeModels.Make("gpt_oss", Random.Shared.Next());
        MoeLayouts.Merge(model);
        Assert.All(Plan(model).Layers.Blocks, static block => Assert.Equal([0, 0, 1, 2, 0, 1], block.Experts!.Map));
        MoeLayouts.Encode(model);
        Assert.All(Plan(model).Layers.Blocks, static block => Assert.Equal([0, 0, 1, 2, 0, 1], block.Experts!.Map));
        string biases = "model.layers.1.mlp.experts.down_proj_bias";
        model.Tensors[biases].Values[4 * 64 + 7] += 1;
        Assert.Equal([0, 0, 1, 2, 3, 1], Plan(model).Layers.Blocks[1].Experts!.Map);
    }

    [Fact]
    public void A_gate_of_a_shared_expert_is_an_output_of_the_router()
    {
        ExpertsPlan experts = Plan(Make("qwen2_moe")).Layers.Blocks[2].Experts!;
        Assert.Equal(
        [
            new LinearPart(Experts, new WeightRef("model.layers.2.mlp.gate.weight")),
            new LinearPart(1, new WeightRef("model.layers.2.mlp.shared_expert_gate.weight")),
        ], experts.Router.Logits.Parts);
        Assert.Equal(Experts + 1, experts.Router.Logits.Outputs);
        Assert.Equal([new SharedExpert(Experts, Experts)], experts.Shared);
        Assert.Equal((Experts + 1, SharedWidth), (experts.Slots.Length, experts.Slots[Experts].Width));
        Assert.Equal("model.layers.2.mlp.shared_expert.up_proj.weight", experts.Slots[Experts].In.Parts[1].Weight!.Tensor);
        Assert.False(experts.Router.Normalize);
    }

    [Theory]
    [InlineData("qwen2_moe", null, false)]
    [InlineData("qwen2_moe", true, true)]
    [InlineData("qwen3_moe", null, false)]
    [InlineData("qwen3_moe", true, true)]
    [InlineData("olmoe", null, false)]
    [InlineData("olmoe", true, true)]
    [InlineData("mixtral", false, true)]
    [InlineData("deepseek", null, false)]
    [InlineData("deepseek", true, true)]
    public void Weights_are_normalised_where_the_family_or_its_key_says(string family, bool? key, bool normalized)
    {
        TinyModel model = Make(family);
        model.Config["norm_topk_prob"] = key;
        Assert.Equal(normalized, Plan(model).Layers.Blocks[0].Experts!.Router.Normalize);
    }

    [Theory]
    [InlineData("""{"mlp_only_layers": [1]}""", 1)]
    [InlineData("""{"decoder_sparse_step": 2}""", 0, 2)]
    [InlineData("""{"decoder_sparse_step": 2, "mlp_only_layers": [1, 7]}""", 0, 1, 2)]
    [InlineData("""{"mlp_only_layers": []}""")]
    public void Some_layers_may_be_dense(string differences, params int[] dense)
    {
        foreach (string family in (string[])["qwen2_moe", "qwen3_moe"])
        {
            LayerMap layers = Plan(Make(family, differences, dense)).Layers;
            Assert.Equal(dense, Enumerable.Range(0, Layers).Where(layer => layers.Blocks[layer].Experts is null));
            Assert.Equal(dense, Enumerable.Range(0, Layers).Where(layer => layers.Blocks[layer].FeedForward?.Width == DenseWidth));
        }
    }

    [Fact]
    public void Deepseek_has_dense_layers_first_and_shared_experts_that_count_in_full()
    {
        LayerMap layers = Plan(Make("deepseek", """{"first_k_dense_replace": 1, "norm_topk_prob": true}""", 0)).Layers;
        Assert.Equal([DenseWidth, null, null], layers.Blocks.Select(static block => block.FeedForward?.Width));
        ExpertsPlan experts = layers.Blocks[2].Experts!;
        Assert.Equal([new SharedExpert(Experts)], experts.Shared);
        Assert.Equal((SharedExperts * Width, 1f), (experts.Slots[Experts].Width, experts.Shared[0].Weight));
        Assert.Equal((ExpertScore.Softmax, true, 1e-20f, 1f, 1), (experts.Router.Score, experts.Router.Normalize,
            experts.Router.NormalizationEpsilon, experts.Router.Scale, experts.Router.Groups));
        Assert.Equal([0, 2], Enumerable.Range(0, Layers).Where(layer =>
            Plan(Make("deepseek", """{"moe_layer_freq": 2}""", 1)).Layers.Blocks[layer].Experts is not null));
        ExpertsPlan one = Plan(Make("deepseek", """{"norm_topk_prob": true, "num_experts_per_tok": 1}""")).Layers.Blocks[0].Experts!;
        Assert.False(one.Router.Normalize);
    }

    [Theory]
    [InlineData("V2", """{"norm_topk_prob": true, "routed_scaling_factor": 16}""", true, 1f, 1, ExpertScore.Softmax)]
    [InlineData("V2", """{"norm_topk_prob": false, "routed_scaling_factor": 16}""", false, 16f, 1, ExpertScore.Softmax)]
    [InlineData("V2", """{"n_group": 3, "topk_group": 2}""", false, 1f, 1, ExpertScore.Softmax)]
    [InlineData("V2", """{"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2}""", false, 1f, 3, ExpertScore.Softmax)]
    [InlineData("V3", """{"n_group": 3, "topk_group": 1}""", true, 2.5f, 3, ExpertScore.Sigmoid)]
    [InlineData("V3", """{"n_group": 1, "topk_group": 1, "routed_scaling_factor": 2, "norm_topk_prob": false}""", false, 2f, 1, ExpertScore.Sigmoid)]
    public void Routers_of_deepseek_normalise_scale_and_group(
        string version, string settings, bool normalizes, float scale, int groups, ExpertScore score)
    {
        using var checkpoint = new MemoryCheckpoint("router", (JsonObject)JsonNode.Parse(settings)!);
        float[] bias = [.. Enumerable.Range(0, Experts).Select(static _ => Random.Shared.NextSingle() - 0.5f)];
        checkpoint.Add("gate.e_score_correction_bias", [Experts], bias);
        RouterPlan router = DeepSeekRouter(checkpoint, version);
        Assert.Equal((normalizes, scale, groups, score), (router.Normalize, router.Scale, router.Groups, router.Score));
        Assert.Equal(version == "V3" ? bias : [], router.SelectionBias);
        Assert.Equal(version == "V3" && groups > 1 ? GroupScore.SumOfTwoLargest : GroupScore.Largest, router.GroupScore);
        Assert.Equal(groups == 1 ? 1 : (int)checkpoint.Config["topk_group"]!, router.GroupsUsed);
    }

    [Theory]
    [InlineData("V2", """{"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}""", "n_group", "divisor of the 6 experts")]
    [InlineData("V3", """{"n_group": 6, "topk_group": 2}""", "n_group", "2 or more in a group; found 6")]
    [InlineData("V3", """{"n_group": 3, "topk_group": 4}""", "topk_group", "at most the 3 groups")]
    [InlineData("V2", """{"topk_method": "group_limited_greedy", "n_group": 6, "topk_group": 1}""", "topk_group", "found 1 of 1")]
    [InlineData("V2", """{"topk_method": "random"}""", "topk_method", "found 'random'")]
    [InlineData("V2", """{"scoring_func": "sigmoid"}""", "scoring_func", "expected softmax with the method greedy; found 'sigmoid'")]
    [InlineData("V3", """{"scoring_func": "softmax"}""", "scoring_func", "expected sigmoid")]
    [InlineData("V3", """{"routed_scaling_factor": 0}""", "routed_scaling_factor", "above zero")]
    [InlineData("V3", "{}", "gate.e_score_correction_bias", "missing")]
    public void Routers_of_deepseek_that_do_not_fit_are_refused(string version, string settings, string item, string reason)
    {
        using var checkpoint = new MemoryCheckpoint("router", (JsonObject)JsonNode.Parse(settings)!);
        EngineException error = Assert.Throws<EngineException>(() => DeepSeekRouter(checkpoint, version));
        Assert.Equal(item, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    private static RouterPlan DeepSeekRouter(MemoryCheckpoint checkpoint, string version) => DeepSeekRouters.Read(
        new RouterSource(new ConfigReader(checkpoint.Config, checkpoint.Path), new TensorCatalog(checkpoint), "gate"),
        new RouterPlan { Logits = new LinearPlan(1, []), Experts = Experts, PerToken = 2 },
        version == "V3" ? DeepSeekRouterDefaults.V3 : DeepSeekRouterDefaults.V2);

    [Fact]
    public void Olmoe_norms_whole_projections_and_clamps_them()
    {
        AttentionPlan attention = Plan(Make("olmoe", """{"clip_qkv": 8.5}""")).Layers.Blocks[0].Attention!;
        Assert.Equal((true, 8.5f, 32, 16), (attention.NormsWholeProjection, attention.ClipQkv, attention.QueryNormWidth, attention.KeyNormWidth));
        Assert.Null(Plan(Make("olmoe", """{"clip_qkv": null}""")).Layers.Blocks[0].Attention!.ClipQkv);
        AttentionPlan qwen = Plan(Make("qwen3_moe")).Layers.Blocks[0].Attention!;
        Assert.Equal((false, null, 8), (qwen.NormsWholeProjection, qwen.ClipQkv, qwen.KeyNormWidth));
    }

    [Theory]
    [InlineData("mixtral", "")]
    [InlineData("qwen2_moe", "")]
    [InlineData("qwen3_moe", "")]
    [InlineData("olmoe", ".weight")]
    public void Fused_experts_are_rows_of_one_tensor(string family, string suffix)
    {
        TinyModel single = Make(family);
        ModelPlan expected = Plan(single);
        (float[][] before, string text) = (Weights(single, expected), Shape(expected));
        TinyModel fused = Fuse(single, suffix);
        ModelPlan plan = Plan(fused);
        FeedForwardPlan slot = plan.Layers.Blocks[1].Experts!.Slots[3];
        string name = $"model.layers.1.mlp.experts.gate_up_proj{suffix}";
        Assert.Equal([new(Width, new WeightRef(name, 3 * 2 * Width)), new(Width, new WeightRef(name, 7 * Width))], slot.In.Parts);
        Assert.Equal([new LinearPart(Hidden, new WeightRef($"model.layers.1.mlp.experts.down_proj{suffix}", 3 * Hidden))], slot.Down.Parts);
        Assert.Equal(text, Shape(plan));
        Assert.Equal(before, Weights(fused, plan));
    }

    [Fact]
    public void Stacked_experts_are_rows_of_three_tensors()
    {
        TinyModel model = Make("qwen3_moe");
        float[][] before = Weights(model, Plan(model));
        TinyModel stacked = Fuse(model, ".weight", gateWithUp: false);
        ModelPlan plan = Plan(stacked);
        Assert.Equal(
            new WeightRef("model.layers.2.mlp.experts.up_proj.weight", 5 * Width), plan.Layers.Blocks[2].Experts!.Slots[5].In.Parts[1].Weight);
        Assert.Equal(before, Weights(stacked, plan));
    }

    [Theory]
    [InlineData("num_experts")]
    [InlineData("num_local_experts")]
    [InlineData("n_routed_experts")]
    public void The_number_of_experts_has_several_names(string key)
    {
        foreach (string family in Families)
        {
            TinyModel model = Make(family);
            Array.ForEach(["num_experts", "num_local_experts", "n_routed_experts"], name => model.Config.Remove(name));
            model.Config[key] = Experts;
            Assert.Equal(Experts, Plan(model).Layers.Blocks[0].Experts!.Router.Experts);
        }
    }

    [Fact]
    public void Layers_may_have_kept_fewer_experts_and_experts_less_width()
    {
        foreach (string family in Families)
        {
            TinyModel model = Make(family);
            Remove(model, 1, 5);
            Remove(model, 1, 4);
            CutRouter(model, 1, 4);
            Resize(model, 2, 3, 7);
            Resize(model, 2, 1, 0);
            LayerMap layers = Plan(model).Layers;
            Assert.Equal([6, 4, 6], layers.Blocks.Select(static block => block.Experts!.Router.Experts));
            Assert.Equal([6, 4, 6], layers.Blocks.Select(static block => block.Experts!.Kept));
            Assert.Equal([20, 0, 20, 7, 20, 20], layers.Blocks[2].Experts!.Slots.Take(6).Select(static slot => slot.Width));
        }
    }

    [Fact]
    public void Phimoe_has_biases_everywhere_and_mixes_sparsely()
    {
        ModelPlan plan = Plan(Make("phimoe"));
        Assert.Equal(new NormPlan(NormKind.Layer, 1e-5f, new WeightRef("model.norm.weight"), new WeightRef("model.norm.bias")), plan.FinalNorm);
        Assert.Equal("model.layers.2.post_attention_layernorm.bias", plan.Layers.Steps[2].FeedForwardNorm!.Bias!.Tensor);
        Assert.Equal("lm_head.bias", plan.Head.Parts[0].Bias!.Tensor);
        Assert.All(plan.Layers.Blocks[1].Attention!.Qkv.Parts, static part => Assert.NotNull(part.Bias));
        Assert.NotNull(plan.Layers.Blocks[1].Attention!.Output.Parts[0].Bias);
        Assert.Equal(16, Plan(Make("phimoe", """
            {"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 2, 2], "long_factor": [4, 4, 4, 4], "short_mscale": 1.1, "long_mscale": 1.1,
             "original_max_position_embeddings": 16}}
            """)).ContextLength);
        RouterPlan router = plan.Layers.Blocks[0].Experts!.Router;
        Assert.Equal((ExpertChoice.SparseMixer, 0.02f, false), (router.Choice, router.SparseMixerEpsilon, router.Normalize));
    }

    [Fact]
    public void Rope_parameters_hold_the_base() => Assert.Equal(
        Math.Pow(500, -0.25),
        Plan(Make("mixtral", """{"rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}"""))
            .Layers.Blocks[0].Attention!.Rope!.InverseFrequencies[1], 12);

    /// <summary>The plan without its tensors.</summary>
    private static string Shape(ModelPlan plan) => string.Join('\n', plan.Layers.Blocks.Select(static block =>
        $"{block.Experts!.Router with { Logits = new LinearPlan(1, []), SelectionBias = [] }} {string.Join(' ', block.Experts.Slots.Select(static slot => $"{slot.Width}"))}"));

    /// <summary>The weights of every slot, in order.</summary>
    private static float[][] Weights(TinyModel model, ModelPlan plan)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ExpertModels.Weights(checkpoint, plan);
    }

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
