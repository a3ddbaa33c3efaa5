using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;

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
            return ModelPlanReader.Read(checkpoint).Head.Parts[0].Weight.Tensor;
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
            router.Networks.Select(static network => network.In.Parts[0].Weight.Tensor));
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
        Assert.Equal((3, "model.layers.1.mor_router.router.weight"), (network.Outputs, network.In.Parts[0].Weight.Tensor));
        Assert.Empty(router.Capacities);
    }

    [Fact]
    public void A_deep_router_is_twice_as_wide_inside()
    {
        using Checkpoint checkpoint = Open("mor_expert_rec2_mlp_fullnames_bf16");
        RouterNetwork network = ModelPlanReader.Read(checkpoint).Layers.Recursion!.Router!.Networks[1];
        Assert.Equal((64, 128, "model.layers.2.mor_router.router.0.weight"),
            (network.In.Inputs, network.In.Outputs, network.In.Parts[0].Weight.Tensor));
        Assert.Equal((128, 1, "model.layers.2.mor_router.router.2.weight"),
            (network.Out!.Inputs, network.Outputs, network.Out.Parts[0].Weight.Tensor));
    }

    private static Checkpoint Open(string name) => CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "mor", name));
}
