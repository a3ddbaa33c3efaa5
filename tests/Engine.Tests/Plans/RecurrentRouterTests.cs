using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Recurrent routers of RMoE: what their plan says, and that a state belongs to its row and goes along with the steps, whatever their order.</summary>
public sealed class RecurrentRouterTests
{
    private const string Gru = "llama_moe_rnn", Rnn = "llama_moe_rnn plain cell", Whole = "llama_moe_rnn shared expert, bias, first layer dense",
        Plain = "llama_moe_rnn without recurrence";

    private static readonly Dictionary<string, (Func<IBackend> Make, double Tolerance)> Backends = new()
    {
        ["reference"] = (static () => new ReferenceBackend(), FamiliesAgainstOracleTests.ReferenceTolerance),
        ["cpu"] = (static () => new CpuBackend(new CpuOptions { Threads = 2 }), 1e-4),
    };

    /// <summary>Backend × model × order of layers. In the third model layer 0 has no router.</summary>
    public static TheoryData<string, string, string> Orders => [.. Backends.Keys.SelectMany(static backend => new[]
    {
        (backend, Gru, "2,1,0"), (backend, Gru, "0-1,1-2,0"), (backend, Rnn, "0,1*3,2"), (backend, Whole, "0-2,0-2"), (backend, Whole, "0,2,1,2"),
    })];

    [Theory]
    [MemberData(nameof(Orders))]
    public void A_state_goes_along_with_the_steps_where_layers_repeat(string backend, string name, string order)
    {
        int[] layers = [.. order.Split(',').SelectMany(static run => run.Split('-', '*') is not [var first, var second] ? [int.Parse(run)]
            : run.Contains('-') ? Enumerable.Range(int.Parse(first), int.Parse(second) - int.Parse(first) + 1)
            : Enumerable.Repeat(int.Parse(first), int.Parse(second)))];
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, order: layers);
        (Func<IBackend> make, double tolerance) = Backends[backend];
        MemoryCheckpoint checkpoint = model.ToCheckpoint();
        using var harness = new ModelHarness(
            checkpoint, make(), pageTokens: 4, maxRows: 32, plan: LayerOrder.Apply(ModelPlanReader.Read(checkpoint), order));
        float[][] chunks = harness.Run(tokens, chunk: 8);
        FamiliesAgainstOracleTests.AssertClose(expected, chunks, tolerance, model);
        Assert.Equal(chunks, harness.Run(tokens, chunk: 1));
    }

    [Theory]
    [InlineData(Gru)]
    [InlineData(Rnn)]
    public void A_state_is_its_rows_own_beside_any_others_and_after_any_step(string name)
    {
        (TinyModel model, int[] tokens, double[][] _) = MoeModels.Draw(name, 12);
        using var harness = new ModelHarness(model.ToCheckpoint(), new CpuBackend(new CpuOptions { Threads = 3 }), pageTokens: 4, maxRows: 32);
        float[][] alone = harness.Run(tokens, chunk: 12);
        int[] others = model.Tokens(9);
        KvTrack first = harness.NewTrack(), second = harness.NewTrack();
        float[][] before = harness.Step((second, others), (first, tokens[..5]))[1];
        float[][] behind = harness.Step((first, tokens[5..]), (second, model.Tokens(2)))[0];
        Assert.Equal(alone, [.. before, .. behind]);
    }

    [Fact]
    public void A_plan_has_a_projection_for_each_layer_and_a_cell_for_all()
    {
        ModelPlan plan = Plan(MoeModels.Make(Gru, 1));
        ExpertsPlan[] mixtures = [.. plan.Experts()];
        RecurrentCellPlan cell = mixtures[0].Router.Recurrence!.Cell;
        Assert.All(mixtures, mixture => Assert.Same(cell, mixture.Router.Recurrence!.Cell));
        Assert.Equal((RecurrentCell.Gru, 14, 42, 42), (cell.Kind, cell.Width, cell.Input.Outputs, cell.Hidden.Outputs));
        Assert.Equal(
            ["r", "z", "n"], cell.Input.Parts.Select(static part => part.Weight!.Tensor["model.rnn_router.weight_i".Length..]));
        Assert.Equal("model.rnn_router.bias_hn", cell.Hidden.Parts[2].Bias!.Tensor);
        RouterPlan router = mixtures[1].Router;
        Assert.Equal(new WeightRef("model.layers.1.block_sparse_moe.weight1"), router.Recurrence!.Projection.Parts[0].Weight);
        Assert.Equal((14, 6, new WeightRef("model.layers.1.block_sparse_moe.weight2")), (router.Logits.Inputs, router.Outputs, router.Logits.Parts[0].Weight));
        Assert.Equal((true, 1f), (router.Normalize, router.Scale));
        Assert.Equal((RecurrentCell.Rnn, 14), Plan(MoeModels.Make(Rnn, 1)).Experts().First().Router.Recurrence!.Cell is var plain ? (plain.Kind, plain.Hidden.Outputs) : default);
        Assert.All(Plan(MoeModels.Make(Plain, 1)).Experts(), static mixture => Assert.Null(mixture.Router.Recurrence));
    }

    [Fact]
    public void Mixture_shared_expert_and_bias_count_their_constants()
    {
        ModelPlan plan = Plan(MoeModels.Make(Whole, 1));
        Assert.Equal([44, null, null], plan.Layers.Blocks.Select(static block => block.FeedForward?.Width));
        ExpertsPlan mixture = plan.Layers.Blocks[1].Experts!;
        Assert.Equal((0.7f, 6), (mixture.Router.Scale, mixture.Router.Experts));
        Assert.Equal([new SharedExpert(6, Weight: 0.4f)], mixture.Shared);
        Assert.Equal((28, "model.layers.1.mlp_share.up_proj.weight"), (mixture.Slots[6].Width, mixture.Slots[6].In.Parts[1].Weight!.Tensor));
        Assert.All(mixture.Slots[..6], static slot => Assert.Equal("model.layers.1.block_sparse_moe.bias", slot.Down.Parts[0].Bias!.Tensor));
        Assert.Null(mixture.Slots[6].Down.Parts[0].Bias);
        // Without a shared expert the mixture counts in full.
        Assert.Equal(1f, Plan(MoeModels.Make(Gru, 1, """{"moe_weight": 0.1}""")).Experts().First().Router.Scale);
        Assert.Equal((0.5f, 0.5f), Plan(MoeModels.Make(Plain, 1, """{"moe_weight": null, "share_weight": null}""")).Experts().First() is var usual
            ? (usual.Router.Scale, usual.Shared[0].Weight) : default);
    }

    [Fact]
    public void Mixtures_that_are_copies_are_one_unless_an_element_of_the_router_differs()
    {
        foreach (string? differing in (string?[])[null, "weight1", "weight2"])
        {
            TinyModel model = MoeModels.Make(Gru, Random.Shared.Next());
            const string From = "model.layers.0.block_sparse_moe.", To = "model.layers.2.block_sparse_moe.";
            foreach (string tensor in model.Tensors.Keys.Where(static key => key.StartsWith(From, StringComparison.Ordinal)).ToArray())
            {
                (long[] shape, float[] values) = model.Tensors[tensor];
                model.Tensors[To + tensor[From.Length..]] = (shape, [.. values]);
            }
            if (differing is not null)
            {
                model.Tensors[To + differing].Values[Random.Shared.Next(6 * 14)] += 1;
            }
            ExpertsPlan[] mixtures = [.. Plan(model).Experts()];
            Assert.Equal(differing is null, ReferenceEquals(mixtures[0], mixtures[2]));
            Assert.Same(mixtures[0].Router.Recurrence!.Cell, mixtures[2].Router.Recurrence!.Cell);
        }
    }

    [Theory]
    [InlineData(Gru)]
    [InlineData(Rnn)]
    [InlineData(Whole)]
    public void Bytes_of_weights_are_those_of_the_file(string name)
    {
        TinyModel model = MoeModels.Make(name, Random.Shared.Next());
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        var sizes = new WeightBytes(checkpoint);
        // The bias of a mixture is packed with each of its experts.
        int biases = MoeModels.HasBias(name) ? plan.Experts().Count() * 5 * plan.HiddenSize * sizeof(float) : 0;
        (long experts, long others) = sizes.Totals(plan);
        Assert.Equal(model.Tensors.Values.Sum(static tensor => tensor.Values.Length * (long)sizeof(float)) + biases, experts + others);
        int gates = name == Rnn ? 1 : 3;
        Assert.Equal(sizeof(float) * (14 * 32 + 6 * 14 + gates * 2 * (14 * 14 + 14)), sizes.Of(plan.Experts().First().Router));
    }

    [Fact]
    public void Tokens_that_are_routed_to_depths_are_refused()
    {
        using MemoryCheckpoint checkpoint = MoeModels.Make(Gru, 1).ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        ModelPlan recursive = plan with
        {
            Layers = plan.Layers with
            {
                Recursion = new RecursionPlan
                {
                    FirstStep = 0,
                    StepsPerDepth = 1,
                    Depths = 3,
                    Router = new DepthRouterPlan { Kind = DepthRouterKind.ExpertChoice, Networks = [], Score = RouterScore.Sigmoid },
                },
            },
        };
        using var backend = new ReferenceBackend();
        Assert.Contains(
            "state of recurrent routers", Assert.Throws<EngineException>(() => Executor.Load(recursive, checkpoint, backend)).Reason, StringComparison.Ordinal);
    }

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
