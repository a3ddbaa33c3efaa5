using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>gpt-oss as llama.cpp's converter writes it: gate and up apart, one tensor of all experts each, MXFP4 in ggml's order.</summary>
public sealed class GptOssGgufTests
{
    [Theory]
    [InlineData(DType.MXFP4)]
    [InlineData(DType.F32)]
    public void A_gguf_file_gives_the_logits_of_the_folder(DType format)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw("gpt_oss", 13);
        using var folder = new TemporaryFolder();
        string path = Path.Combine(folder.Path, "model.gguf");
        GgufWriter.Write(path, Metadata(), [.. model.Tensors.SelectMany(pair => Sources(pair.Key, pair.Value.Shape, pair.Value.Values, format))]);
        using var harness = new ModelHarness(CheckpointFile.Open(path), new ReferenceBackend(), pageTokens: 4);
        FeedForwardPlan slot = harness.Plan.Layers.Blocks[1].Experts!.Slots[2];
        Assert.Equal((Activation.ClampedSwiGlu, SwiGluClamp.Default), (slot.Activation, slot.Clamp));
        FamiliesAgainstOracleTests.AssertClose(expected, harness.Run(tokens, chunk: 5), FamiliesAgainstOracleTests.ReferenceTolerance, model);
    }

    [Fact]
    public void A_folder_is_not_converted_to_something_else()
    {
        using var folder = new TemporaryFolder();
        using MemoryCheckpoint checkpoint = MoeModels.Make("gpt_oss", 1).ToCheckpoint();
        EngineException exception = Assert.Throws<EngineException>(() => GgufConverter.Convert(
            checkpoint, Path.Combine(folder.Path, "model.gguf"), QuantizationRecipe.All.First()));
        Assert.Contains("gpt_oss", exception.Message, StringComparison.Ordinal);
    }

    private static Dictionary<string, object> Metadata() => new()
    {
        ["general.architecture"] = "gpt-oss",
        ["gpt-oss.block_count"] = 3u,
        ["gpt-oss.context_length"] = 2048u,
        ["gpt-oss.embedding_length"] = 64u,
        ["gpt-oss.feed_forward_length"] = 32u,
        ["gpt-oss.attention.head_count"] = 4u,
        ["gpt-oss.attention.head_count_kv"] = 2u,
        ["gpt-oss.attention.key_length"] = 10u,
        ["gpt-oss.attention.value_length"] = 10u,
        ["gpt-oss.attention.layer_norm_rms_epsilon"] = 1e-5,
        ["gpt-oss.attention.sliding_window"] = 5u,
        ["gpt-oss.rope.freq_base"] = 10000f,
        ["gpt-oss.rope.scaling.type"] = "yarn",
        ["gpt-oss.rope.scaling.factor"] = 32f,
        ["gpt-oss.rope.scaling.original_context_length"] = 64u,
        ["gpt-oss.expert_count"] = 6u,
        ["gpt-oss.expert_used_count"] = 2u,
        ["gpt-oss.expert_feed_forward_length"] = 32u,
        ["gpt-oss.expert_gating_func"] = 3u,
    };

    private static IEnumerable<TensorSource> Sources(string name, long[] shape, float[] values, DType format)
    {
        string layer = name.Split('.') is ["model", "layers", var number, ..] ? $"blk.{number}." : "";
        if (name.EndsWith(".sinks", StringComparison.Ordinal))
        {
            yield return TensorSource.FromValues(layer + "attn_sinks.weight", shape, values);
            yield break;
        }
        bool bias = name.EndsWith("_bias", StringComparison.Ordinal), both = name.Contains("gate_up_proj", StringComparison.Ordinal);
        if (!both && !name.Contains(".experts.", StringComparison.Ordinal))
        {
            string gguf = GgufArchitecture.All.First(static known => known.Name == "gpt-oss").ToGguf(name)!;
            yield return TensorSource.FromValues(gguf, shape, values);
            yield break;
        }
        int experts = (int)shape[0], outputs = (int)shape[^1], inputs = bias ? 1 : (int)shape[1], step = both ? 2 : 1;
        foreach ((string part, int first) in both ? [("gate", 0), ("up", 1)] : new[] { ("down", 0) })
        {
            // [experts, inputs, outputs] → [experts, outputs / step, inputs].
            int rows = outputs / step;
            float[] turned = [.. Enumerable.Range(0, experts * rows * inputs).Select(at =>
                values[(at / (rows * inputs) * inputs + at % inputs) * outputs + at / inputs % rows * step + first])];
            yield return bias
                ? TensorSource.FromValues($"{layer}ffn_{part}_exps.bias", [experts, rows], turned)
                : TensorSource.FromValues($"{layer}ffn_{part}_exps.weight", [experts, rows, inputs], turned, format);
        }
    }
}
