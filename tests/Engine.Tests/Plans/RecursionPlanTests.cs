using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Plans of the golden recursive models, and of every way to say what they say.</summary>
public sealed class RecursionPlanTests
{
    /// <summary>Case, steps, distinct blocks, slots, first step of the loop, steps per depth, depths.</summary>
    public static TheoryData<string, int, int, int, int, int, int> Goldens => new()
    {
        { "recursive_mc_rec2", 6, 4, 6, 1, 2, 2 },
        { "recursive_mc_rec3_kvshare", 8, 4, 4, 1, 2, 3 },
        { "mor_expert_rec3_cache", 8, 4, 8, 1, 2, 3 },
        { "mor_expert_rec3_kvshare", 8, 4, 4, 1, 2, 3 },
        { "mor_token_rec3_cache", 8, 4, 8, 1, 2, 3 },
        { "mor_token_rec3_kvshare", 8, 4, 4, 1, 2, 3 },
        { "mor_expert_rec2_mlp_fullnames_bf16", 6, 4, 6, 1, 2, 2 },
    };

    [Theory]
    [MemberData(nameof(Goldens))]
    public void A_golden_has_its_shape(string name, int steps, int blocks, int slots, int first, int perDepth, int depths)
    {
        using Checkpoint checkpoint = Open(name);
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        Assert.Equal(("mor", 64, 256, 128), (plan.Family, plan.HiddenSize, plan.VocabularySize, plan.ContextLength));
        LayerMap layers = plan.Layers;
        Assert.Equal((steps, blocks, slots), (layers.Steps.Length, layers.Blocks.Length, layers.KvSlots.Length));
        RecursionPlan recursion = layers.Recursion!;
        Assert.Equal((first, perDepth, depths, steps - 1), (recursion.FirstStep, recursion.StepsPerDepth, recursion.Depths, recursion.EndStep));
        Assert.Equal(name.StartsWith("recursive", StringComparison.Ordinal), recursion.Router is null);
        bool shared = slots < steps;
        for (int i = 0; i < steps; i++)
        {
            int owner = i < recursion.FirstStep || i >= recursion.EndStep ? i : first + ((i - first) % perDepth);
            LayerStep step = layers.Steps[i];
            Assert.Equal(layers.Steps[owner].Block, step.Block);
            Assert.Equal(shared ? (i == steps - 1 ? slots - 1 : owner) : i, step.KvSlot);
            Assert.Equal(!shared || owner == i, step.WritesKv);
        }
        Assert.Equal(new KvSlotPlan(2, 16), Assert.Single(layers.KvSlots.Distinct()));
        Assert.Null(plan.Streams);
    }

    [Fact]
    public void The_head_is_the_files_whatever_the_flag_says()
    {
        Assert.Equal("lm_head.weight", HeadOf("recursive_mc_rec2"));
        Assert.Equal("model.embed_tokens.weight", HeadOf("mor_expert_rec3_cache"));

        static string HeadOf(string name)
        {
            using Checkpoint checkpoint = Open(name);
            return ModelPlanReader.Read(checkpoint).Head.Parts[0].Weight!.Tensor;
        }
    }

    [Fact]
    public void An_expert_router_has_a_network_per_depth()
    {
        using Checkpoint checkpoint = Open("mor_expert_rec3_cache");
        DepthRouterPlan router = ModelPlanReader.Read(checkpoint).Layers.Recursion!.Router!;
        Assert.Equal((DepthRouterKind.ExpertChoice, RouterScore.Sigmoid, 0.1f, 1f, true),
            (router.Kind, router.Score, router.Alpha, router.Temperature, router.Weighted));
        Assert.Equal([1.0, 0.6666666666666666, 0.3333333333333333], router.Capacities);
        Assert.Equal(
            ["model.layers.1.mor_router.router.weight", "model.layers.2.mor_router.router.weight", "model.layers.3.mor_router.router.weight"],
            router.Networks.Select(static network => network.In.Parts[0].Weight!.Tensor));
        Assert.All(router.Networks, static network => Assert.Equal((64, 1, null), (network.In.Inputs, network.Outputs, network.Out)));
        Assert.Empty(router.Auxiliary);
        Assert.Empty(router.SelectionBias);
    }

    [Fact]
    public void A_token_router_is_one_network_with_an_output_per_depth()
    {
        using Checkpoint checkpoint = Open("mor_token_rec3_cache");
        DepthRouterPlan router = ModelPlanReader.Read(checkpoint).Layers.Recursion!.Router!;
        Assert.Equal((DepthRouterKind.TokenChoice, RouterScore.Softmax, 1f), (router.Kind, router.Score, router.Alpha));
        RouterNetwork network = Assert.Single(router.Networks);
        Assert.Equal((3, "model.layers.1.mor_router.router.weight"), (network.Outputs, network.In.Parts[0].Weight!.Tensor));
        Assert.Empty(router.Capacities);
    }

    [Fact]
    public void A_deep_router_is_twice_as_wide_inside()
    {
        using Checkpoint checkpoint = Open("mor_expert_rec2_mlp_fullnames_bf16");
        RouterNetwork network = ModelPlanReader.Read(checkpoint).Layers.Recursion!.Router!.Networks[1];
        Assert.Equal((64, 128, "model.layers.2.mor_router.router.0.weight"),
            (network.In.Inputs, network.In.Outputs, network.In.Parts[0].Weight!.Tensor));
        Assert.Equal((128, 1, "model.layers.2.mor_router.router.2.weight"),
            (network.Out!.Inputs, network.Outputs, network.Out.Parts[0].Weight!.Tensor));
    }

    [Theory]
    [InlineData("cycle", 6, 2, false)]
    [InlineData("cycle", 6, 2, true)]
    [InlineData("sequence", 6, 3, false)]
    [InlineData("sequence", 6, 3, true)]
    [InlineData("middle_cycle", 8, 3, false)]
    [InlineData("middle_cycle", 8, 3, true)]
    [InlineData("middle_sequence", 8, 2, false)]
    public void Every_sharing_names_the_owners_tensors(string sharing, int layers, int recursions, bool kv)
    {
        ModelPlan plan = Plan(RecursiveModels.Make(sharing, layers, recursions, kv: kv));
        int[] owners = [.. Enumerable.Range(0, layers).Select(layer => RecursiveModels.Owner(sharing, layers, recursions, layer))];
        LayerMap map = plan.Layers;
        Assert.Equal(owners.Distinct().Count(), map.Blocks.Length);
        Assert.Equal(owners.Select(static owner => $"model.layers.{owner}.self_attn.q_proj.weight"),
            map.Steps.Select(step => map.Blocks[step.Block].Attention!.Qkv.Parts[0].Weight!.Tensor));
        Assert.Equal(owners.Select(static owner => $"model.layers.{owner}.input_layernorm.weight"),
            map.Steps.Select(static step => step.AttentionNorm!.Weight!.Tensor));
        int[] distinct = [.. owners.Distinct()];
        Assert.Equal(kv ? owners.Select(owner => Array.IndexOf(distinct, owner)) : Enumerable.Range(0, layers),
            map.Steps.Select(static step => step.KvSlot));
        Assert.Equal(kv ? distinct.Length : layers, map.KvSlots.Length);
        Assert.Equal(owners.Select((owner, layer) => !kv || owner == layer), map.Steps.Select(static step => step.WritesKv));
        Assert.Equal(sharing.EndsWith("cycle", StringComparison.Ordinal), map.Recursion is not null);
        Assert.Null(map.Recursion?.Router);
    }

    [Fact]
    public void One_recursion_is_a_model_cut_to_its_base_depth()
    {
        TinyModel model = RecursiveModels.Make("cycle", 3, 1);
        model.Config["num_hidden_layers"] = 32;
        Recursive(model)["base_depth"] = 3;
        LayerMap layers = Plan(model).Layers;
        Assert.Equal((3, 3, 3), (layers.Steps.Length, layers.Blocks.Length, layers.KvSlots.Length));
        Assert.Null(layers.Recursion);
    }

    [Theory]
    [InlineData("middle_cycle", "model.layers.2.block.1.mlp.up_proj.weight", "model.layers.1.block.1.mlp.up_proj.weight", 6)]
    [InlineData("cycle", "model.layers.1.block.1.mlp.up_proj.weight", "model.layers.0.block.1.mlp.up_proj.weight", 4)]
    public void A_tensor_of_a_deeper_recursion_is_used_where_it_is_stored(string sharing, string deep, string owner, int layers)
    {
        const string router = """{"type": "expert", "router_type": "linear", "expert": {"router_func": "sigmoid"}}""";
        TinyModel model = RecursiveModels.Make(sharing, layers, 2, router);
        int step = layers == 6 ? 4 : 3;
        Assert.Equal(owner, UpOf(Plan(model)));
        Assert.Equal(layers == 6 ? 4 : 2, Plan(model).Layers.Blocks.Length);
        model.AddMatrix(deep, 44, 32, 32);
        ModelPlan plan = Plan(model);
        Assert.Equal(deep, UpOf(plan));
        // Only the feed-forward differs: the attention is still one.
        LayerStep first = plan.Layers.Steps[step - 2], second = plan.Layers.Steps[step];
        Assert.NotEqual(first.Block, second.Block);
        Assert.Same(plan.Layers.Blocks[first.Block].Attention, plan.Layers.Blocks[second.Block].Attention);

        string UpOf(ModelPlan plan) => plan.Layers.Blocks[plan.Layers.Steps[step].Block].FeedForward!.In.Parts[1].Weight!.Tensor;
    }

    [Fact]
    public void Norms_of_their_own_are_needed_in_every_layer_where_they_are_not_shared()
    {
        TinyModel model = RecursiveModels.Make("cycle", 4, 2);
        Recursive(model)["ln_share"] = false;
        using (MemoryCheckpoint incomplete = model.ToCheckpoint())
        {
            EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(incomplete));
            Assert.Contains("4 tensors are missing", error.Message, StringComparison.Ordinal);
            Assert.Contains("model.layers.{2…3}.input_layernorm.weight", error.Message, StringComparison.Ordinal);
        }
        foreach (int layer in (int[])[2, 3])
        {
            model.AddGain($"model.layers.{layer}.input_layernorm.weight", 32);
            model.AddGain($"model.layers.{layer}.post_attention_layernorm.weight", 32);
        }
        ModelPlan plan = Plan(model);
        Assert.Equal(2, plan.Layers.Blocks.Length);
        Assert.Equal(Enumerable.Range(0, 4).Select(static layer => $"model.layers.{layer}.post_attention_layernorm.weight"),
            plan.Layers.Steps.Select(static step => step.FeedForwardNorm!.Weight!.Tensor));
    }

    [Fact]
    public void Every_setting_of_an_expert_router_is_read()
    {
        DepthRouterPlan router = Plan(RecursiveModels.Make("cycle", 4, 2, """
            {"type": "expert", "router_type": "wide_mlp", "temp": 2.5, "capacity": "0.75, 0.5", "z_loss": true, "z_coeff": 0.001,
             "expert": {"router_func": "tanh", "alpha": 0.3, "sampling": "aux_router", "gating": "additive", "coeff": 1, "cap_warmup_step": 5}}
            """)).Layers.Recursion!.Router!;
        Assert.Equal((RouterScore.Tanh, 0.3f, 2.5f, false), (router.Score, router.Alpha, router.Temperature, router.Weighted));
        Assert.Equal([0.75, 0.5], router.Capacities);
        Assert.Equal(["model.layers.0.mlp_router.router.2.weight", "model.layers.1.mlp_router.router.2.weight"],
            router.Auxiliary.Select(static network => network.Out!.Parts[0].Weight!.Tensor));
        Assert.Equal("model.layers.1.mor_router.router.0.weight", router.Networks[1].In.Parts[0].Weight!.Tensor);
    }

    [Fact]
    public void What_an_expert_router_leaves_out_is_the_references_default()
    {
        DepthRouterPlan router = Plan(RecursiveModels.Make("cycle", 3, 3, """
            {"type": "expert", "router_type": "linear", "capacity": null, "expert": {"router_func": null}}
            """)).Layers.Recursion!.Router!;
        Assert.Equal((RouterScore.None, 0.1f, 1f, true), (router.Score, router.Alpha, router.Temperature, router.Weighted));
        Assert.Equal([1.0, 2.0 / 3, 1.0 / 3], router.Capacities);
    }

    [Theory]
    [InlineData("softmax", null, RouterScore.Softmax, 1f)]
    [InlineData("sigmoid", null, RouterScore.Sigmoid, 0.1f)]
    [InlineData("sigmoid", 0.7, RouterScore.Sigmoid, 0.7f)]
    public void A_token_router_may_have_a_bias(string function, double? alpha, RouterScore score, float expected)
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, """
            {"type": "token", "router_type": "mlp", "token": {"balancing": "loss_free", "gating": "additive", "u": 0.001}}
            """);
        JsonObject token = (JsonObject)model.Config["mor"]!["mor"]!["token"]!;
        token["router_func"] = function;
        token["alpha"] = alpha;
        DepthRouterPlan router = Plan(model).Layers.Recursion!.Router!;
        Assert.Equal((score, expected, false), (router.Score, router.Alpha, router.Weighted));
        Assert.Equal(model.Tensors["model.layers.1.router_bias"].Values, router.SelectionBias);
        Assert.Equal((64, 3), (router.Networks[0].In.Outputs, router.Networks[0].Outputs));
    }

    [Fact]
    public void What_training_leaves_in_config_json_is_enough_without_a_router()
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, kv: true);
        ModelPlan expected = Plan(model);
        model.Config.Remove("mor");
        model.Config["kv_sharing"] = JsonNode.Parse(
            """{"enable": true, "base_depth": 2, "num_recursion": 3, "sharing": "middle_cycle", "update_cache": false}""");
        Assert.Equal(PlanText.Of(expected), PlanText.Of(Plan(model)));
    }

    [Fact]
    public void A_run_without_recursion_is_a_plain_model()
    {
        TinyModel model = RecursiveModels.Make("cycle", 3, 1);
        Recursive(model)["enable"] = false;
        ModelPlan plan = Plan(model);
        Assert.Null(plan.Layers.Recursion);
        Assert.Equal("llama", plan.Family);
    }

    private static JsonObject Recursive(TinyModel model) => (JsonObject)model.Config["mor"]!["recursive"]!;

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }

    private static Checkpoint Open(string name) => CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "mor", name));
}
