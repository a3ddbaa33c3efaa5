using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Tests.Plans;

/// <summary>Plans of the golden ParScale models.</summary>
public sealed class ParScalePlanTests
{
    [Theory]
    [InlineData("p1_untied_f32", 1, 0, 0, "lm_head.weight")]
    [InlineData("p2_tied_f32_n48", 2, 48, 0.1, "model.embed_tokens.weight")]
    [InlineData("p4_untied_swa_f32", 4, 6, 0.1, "lm_head.weight")]
    [InlineData("p8_tied_bf16", 8, 16, 0.01, "model.embed_tokens.weight")]
    [InlineData("dynamic/dyn_p1", 1, 0, 0, "model.embed_tokens.weight")]
    [InlineData("dynamic/dyn_p2", 2, 8, 0.1, "model.embed_tokens.weight")]
    [InlineData("dynamic/dyn_p4", 4, 8, 0.1, "model.embed_tokens.weight")]
    public void A_golden_has_its_streams(string name, int streams, int prefixTokens, double smoothing, string head)
    {
        using Checkpoint checkpoint = CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "parscale", name));
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        Assert.Equal(("parscale", 2048, head), (plan.Family, plan.ContextLength, plan.Head.Parts[0].Weight!.Tensor));
        Assert.All(plan.Layers.Blocks, static block => Assert.Null(block.Attention!.SlidingWindow));
        Assert.All(plan.Layers.Blocks, static block => Assert.All(block.Attention!.Qkv.Parts, static part => Assert.NotNull(part.Bias)));
        Assert.Equal(streams > 1, plan.Layers.KvSlots[0].SharedByStreams);
        Assert.All(plan.Layers.KvSlots.Skip(1), static slot => Assert.False(slot.SharedByStreams));
        StreamSetPlan set = Assert.Single(plan.Streams!.Sets);
        Assert.Equal((streams, prefixTokens), (set.Count, set.PrefixTokens));
        if (streams == 1)
        {
            Assert.Empty(set.Prefixes);
            Assert.Null(set.Gate);
            return;
        }
        Assert.Equal(
            Enumerable.Range(0, plan.Layers.Steps.Length).Select(static layer => new StreamPrefixPlan(
                new WeightRef($"model.layers.{layer}.self_attn.prefix_k"), new WeightRef($"model.layers.{layer}.self_attn.prefix_v"))),
            set.Prefixes);
        StreamGatePlan gate = set.Gate!;
        Assert.Equal((float)smoothing, gate.Smoothing);
        Assert.Equal((plan.HiddenSize * streams, plan.HiddenSize), (gate.In.Inputs, gate.In.Outputs));
        Assert.Equal((plan.HiddenSize, streams), (gate.Out.Inputs, gate.Out.Outputs));
        Assert.Equal(
            new LinearPart(plan.HiddenSize, new WeightRef("model.aggregate_layer.0.weight"), new WeightRef("model.aggregate_layer.0.bias")),
            Assert.Single(gate.In.Parts));
        Assert.Equal(
            new LinearPart(streams, new WeightRef("model.aggregate_layer.2.weight"), new WeightRef("model.aggregate_layer.2.bias")),
            Assert.Single(gate.Out.Parts));
    }
}
