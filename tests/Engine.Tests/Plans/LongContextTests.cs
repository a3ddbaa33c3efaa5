using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>LongRoPE's two tables of factors: the context that is asked for says which one a model is run with.</summary>
public sealed class LongContextTests
{
    private const string Name = "phimoe longrope";
    private const int Original = 32, Extended = 64;

    /// <summary>The oracle takes the long factors for a sequence that is longer than the original context, as transformers does.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_longer_context_is_computed_with_the_long_factors(bool onCpu)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(Name, Original + 3);
        MemoryCheckpoint checkpoint = model.ToCheckpoint();
        using var harness = new ModelHarness(
            checkpoint, onCpu ? new CpuBackend(new CpuOptions { Threads = 2 }) : new ReferenceBackend(), pageTokens: 4, maxRows: 64,
            plan: LongContext.Apply(ModelPlanReader.Read(checkpoint), Original + 1));
        FamiliesAgainstOracleTests.AssertClose(
            expected, harness.Run(tokens, chunk: 8), onCpu ? 1e-4 : FamiliesAgainstOracleTests.ReferenceTolerance, model);
    }

    [Theory]
    [InlineData(null, Original, false)]
    [InlineData(1, Original, false)]
    [InlineData(Original, Original, false)]
    [InlineData(Original + 1, Extended, true)]
    [InlineData(Extended, Extended, true)]
    public void More_than_the_original_context_takes_the_long_factors(int? asked, int context, bool isLong)
    {
        ModelPlan plan = LongContext.Apply(Plan(), asked);
        Assert.Equal(context, plan.ContextLength);
        RopePlan rope = plan.Layers.Blocks[2].Attention!.Rope!;
        Assert.Equal(isLong ? 1.4f : 1.243f, rope.Magnitude);
        Assert.Equal(Math.Pow(10000, -0.75) / (isLong ? 8 : 1.6), rope.InverseFrequencies[3], 1e-15);
        Assert.Equal(isLong, rope.Long is null);
    }

    [Fact]
    public void Layers_that_share_go_on_sharing()
    {
        ModelPlan plan = Plan();
        BlockPlan block = plan.Layers.Blocks[0];
        plan = plan with { Layers = plan.Layers with { Blocks = [block, block with { Experts = null }, plan.Layers.Blocks[2]] } };
        ModelPlan extended = LongContext.Apply(plan, Extended);
        Assert.Same(extended.Layers.Blocks[0].Attention, extended.Layers.Blocks[1].Attention);
        Assert.Same(extended.Layers.Blocks[0].Attention!.Rope, extended.Layers.Blocks[2].Attention!.Rope);
        Assert.NotSame(extended.Layers.Blocks[0].Attention, extended.Layers.Blocks[2].Attention);
    }

    [Fact]
    public void A_window_between_the_contexts_is_kept_for_the_longer() => Assert.Equal(
        [40, null], new[] { 40, Extended }.Select(static window => Plan($$"""{"sliding_window": {{window}} }""").Layers.Blocks[0].Attention!.SlidingWindow));

    [Fact]
    public void The_model_takes_the_context_that_is_asked_for()
    {
        using (LanguageModel model = LanguageModel.Load(Checkpoint(), new LanguageModelOptions { Threads = 1, ContextLength = 40 }))
        {
            Assert.Equal((40, Extended), (model.ContextLength, model.Plan.ContextLength));
        }
        using (LanguageModel model = LanguageModel.Load(Checkpoint(), new LanguageModelOptions { Threads = 1 }))
        {
            Assert.Equal(Original, model.ContextLength);
        }
        EngineException error = Assert.Throws<EngineException>(
            () => LanguageModel.Load(Checkpoint(), new LanguageModelOptions { Threads = 1, ContextLength = Extended + 1 }));
        Assert.Contains($"expected at most {Extended}", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[1.0, 2.0, 4.0]", "expected 4 numbers above zero")]
    [InlineData("[1.0, 2.0, 4.0, 0.0]", "expected 4 numbers above zero")]
    [InlineData("null", "missing")]
    public void Long_factors_that_do_not_fit_are_refused(string factors, string reason)
    {
        EngineException error = Assert.Throws<EngineException>(() => Plan($$"""
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.25, 1.6], "long_factor": {{factors}}, "original_max_position_embeddings": 32} }
            """));
        Assert.Equal("rope_scaling.long_factor", error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    private static MemoryCheckpoint Checkpoint(string differences = "{}") => MoeModels.Make(Name, Random.Shared.Next(), differences).ToCheckpoint();

    private static ModelPlan Plan(string differences = "{}")
    {
        using MemoryCheckpoint checkpoint = Checkpoint(differences);
        return ModelPlanReader.Read(checkpoint);
    }
}
