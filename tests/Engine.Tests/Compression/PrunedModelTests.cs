using Engine.Checkpoints;
using Engine.Compression;
using Engine.Cpu;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Pruning;

namespace Engine.Tests.Compression;

/// <summary>Models whose layers differ can be compressed like others: what is written is read as it was.</summary>
public sealed class PrunedModelTests
{
    public static TheoryData<string> Kinds => ["pruned", "deci", "sliced"];

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Layers_stay_what_they_are(string kind)
    {
        Random random = Seed.Fresh();
        TinyModel model = Make(kind, random);
        using var folder = new TemporaryFolder();
        using var work = new TemporaryFolder();
        string source = LayerSurgery.Write(model, folder), target = work.File("out");
        using (ModelCompressor compressor = ModelCompressor.Open(source, target, new CompressionOptions { Prune = SparsityPattern.TwoOfFour }))
        {
            compressor.Run();
            compressor.Write();
        }
        int[] tokens = model.Tokens(5);
        using var before = new ModelHarness(CheckpointFile.Open(source), new CpuBackend(new CpuOptions { Threads = 1 }));
        using var after = new ModelHarness(CheckpointFile.Open(target), new CpuBackend(new CpuOptions { Threads = 1 }));
        Assert.Equal(before.Plan.Layers.KvSlots, after.Plan.Layers.KvSlots);
        Assert.Equal(Shapes(before.Plan), Shapes(after.Plan));
        Assert.NotEqual(before.Run(tokens, chunk: 5), after.Run(tokens, chunk: 5));
        Assert.All(after.Run(tokens, chunk: 5), static row => Assert.All(row, static logit => Assert.True(float.IsFinite(logit))));

        static (int?, int?, int?, int?)[] Shapes(ModelPlan plan) => [.. plan.Layers.Steps.Select(step => (step, plan.Layers.Blocks[step.Block])).Select(static layer =>
            (layer.Item2.Attention?.Heads, layer.Item2.FeedForward?.Width, layer.Item2.AttentionLinear?.Outputs, layer.step.FeedForwardResidual?.Outputs))];
    }

    [Fact]
    public void Rotated_layers_are_not_taken_out()
    {
        Random random = Seed.Fresh();
        TinyModel model = Make("sliced", random);
        using var folder = new TemporaryFolder();
        using var work = new TemporaryFolder();
        Assert.Contains("rotated", Assert.Throws<EngineException>(() => ModelCompressor.Open(
            LayerSurgery.Write(model, folder), work.File("out"), new CompressionOptions { DropLayers = 1 }, [model.Tokens(8)])).Reason, StringComparison.Ordinal);
    }

    private static TinyModel Make(string kind, Random random)
    {
        switch (kind)
        {
            case "pruned":
                TinyModel whole = TinyModels.Make("qwen2", random.Next());
                // Whole groups of four: 2:4 needs them along the inputs.
                TinyModel cut = LayerSurgery.Cut(whole, [new([0, 1], [1], [1, 3, 5, 7]), new([], [], [0, 1, 2, 3]), new([1], [0, 1], [.. Enumerable.Range(0, 44)])]);
                cut.Config["head_dim"] = 8;
                return cut;
            case "deci":
                return DeciOracle.Make(random.Next(), """
                    [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}}, {"attention": {"no_op": true}, "ffn": {"no_op": true}},
                     {"attention": {"replace_with_linear": true}, "ffn": {"ffn_mult": 1.0}}]
                    """);
            default:
                return SliceGptTests.Make(kind, [20, 24, 16, 28, 32], random.Next());
        }
    }
}
