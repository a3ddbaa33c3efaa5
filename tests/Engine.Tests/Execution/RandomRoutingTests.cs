using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Execution;

/// <summary>
/// THOR's routing (Zuo et al. 2022): no router is stored, and each layer sends each token to one expert, drawn uniformly, that counts one. The draw repeats with
/// the layer's seed, the position and the token.
/// </summary>
public sealed class RandomRoutingTests
{
    private static readonly Dictionary<string, (Func<IBackend> Make, double Tolerance)> Backends = new()
    {
        ["reference"] = (static () => new ReferenceBackend(), FamiliesAgainstOracleTests.ReferenceTolerance),
        ["cpu"] = (static () => new CpuBackend(new CpuOptions { Threads = 2 }), 1e-4),
    };

    public static TheoryData<string> Names => [.. Backends.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void What_a_token_gets_is_what_its_experts_output(string backend)
    {
        Random random = Seed.Fresh();
        TinyModel model = MoeModels.Make("mixtral", random.Next());
        int token = model.Tokens(1)[0];
        ModelPlan plan = Drawing(model, random);
        var seen = new Recorder();
        using var harness = new ModelHarness(model.ToCheckpoint(), Backends[backend].Make(), pageTokens: 4, plan: plan);
        harness.Executor.ExpertObserver = seen;
        float[][] actual = harness.Run([token], chunk: 1);

        // Where all experts of a layer are the drawn one, its weight of one is what Mixtral's weights sum to.
        for (int layer = 0; layer < 3; layer++)
        {
            string experts = $"model.layers.{layer}.block_sparse_moe.experts.";
            foreach (string linear in (string[])["w1", "w2", "w3"])
            {
                (long[], float[]) drawn = model.Tensors[$"{experts}{seen.Slots[layer][0]}.{linear}.weight"];
                for (int expert = 0; expert < 6; expert++)
                {
                    model.Tensors[$"{experts}{expert}.{linear}.weight"] = drawn;
                }
            }
        }
        FamiliesAgainstOracleTests.AssertClose(new MoeOracle(model).Logits([token]), actual, Backends[backend].Tolerance, model);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Choices_follow_from_layer_position_and_token_alone(string backend)
    {
        Random random = Seed.Fresh();
        TinyModel model = MoeModels.Make("mixtral", random.Next());
        int[] tokens = model.Tokens(40);
        ModelPlan plan = Drawing(model, random);
        using var harness = new ModelHarness(model.ToCheckpoint(), Backends[backend].Make(), pageTokens: 4, maxRows: 64, plan: plan);
        (int[][] slots, float[][] logits) = Run(chunk: 40);
        (int[][] oneByOne, float[][] same) = Run(chunk: 1);
        Assert.Equal(slots, oneByOne);
        Assert.Equal(logits, same);
        foreach ((int layer, ExpertsPlan mixture) in plan.Experts().Index())
        {
            for (int position = 0; position < tokens.Length; position++)
            {
                int[] expert = [0];
                float[] weight = [0];
                // Whatever stands in place of logits.
                float[] z = [.. Enumerable.Range(0, 6).Select(_ => random.NextSingle() < 0.3f ? float.NaN : 100 * random.NextSingle())];
                ExpertRouting.Choose(mixture, z, ExpertRouting.Seed(mixture.Router, new Row(0, position, tokens[position])), expert, weight);
                Assert.Equal((slots[layer][position], 1f), (expert[0], weight[0]));
            }
        }
        // Forty draws of six are all the same with a chance of 6⁻⁴⁰, and layers with other seeds draw otherwise.
        Assert.NotEqual(slots[0], slots[1]);
        Assert.NotEqual(slots[1], slots[2]);

        (int[][], float[][]) Run(int chunk)
        {
            var seen = new Recorder();
            harness.Executor.ExpertObserver = seen;
            float[][] result = harness.Run(tokens, chunk);
            return ([.. Enumerable.Range(0, 3).Select(layer => seen.Slots[layer].ToArray())], result);
        }
    }

    [Fact]
    public void A_router_without_logits_that_needs_them_is_refused()
    {
        TinyModel model = MoeModels.Make("mixtral", 1);
        ModelPlan plan = Drawing(model, new Random(1));
        Refuse(static mixture => mixture with { Router = mixture.Router with { Choice = ExpertChoice.Largest } });
        Refuse(static mixture => mixture with { Router = mixture.Router with { Weight = ExpertWeight.Score } });
        Refuse(static mixture => mixture with { Shared = [new SharedExpert(0, Gate: 0)] });

        void Refuse(Func<ExpertsPlan, ExpertsPlan> change)
        {
            using MemoryCheckpoint checkpoint = model.ToCheckpoint();
            using var backend = new ReferenceBackend();
            Assert.Contains(
                "without logits", Assert.Throws<EngineException>(() => Executor.Load(With(plan, (_, mixture) => change(mixture)), checkpoint, backend)).Reason,
                StringComparison.Ordinal);
        }
    }

    /// <summary>The model's plan with a router that draws in every layer, from seeds that differ.</summary>
    private static ModelPlan Drawing(TinyModel model, Random random)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        ulong seed = (ulong)random.NextInt64();
        return With(plan, (layer, mixture) => mixture with
        {
            Router = new RouterPlan
            {
                Logits = new LinearPlan(plan.HiddenSize, []),
                Experts = 6,
                PerToken = 1,
                Choice = ExpertChoice.Random,
                Weight = ExpertWeight.One,
                Seed = seed + (ulong)layer,
            },
        });
    }

    private static ModelPlan With(ModelPlan plan, Func<int, ExpertsPlan, ExpertsPlan> change) => plan with
    {
        Layers = plan.Layers with { Blocks = [.. plan.Layers.Blocks.Select((block, layer) => block with { Experts = change(layer, block.Experts!) })] },
    };

    /// <summary>The slots of every row, by layer, in the order in which rows came.</summary>
    private sealed class Recorder : IExpertObserver
    {
        public List<int>[] Slots { get; } = [[], [], []];

        public void Chosen(int layer, int most, ReadOnlySpan<int> slots, ReadOnlySpan<float> weights)
        {
            Assert.Equal(1, most);
            Slots[layer].AddRange(slots);
        }
    }
}
