using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Pruning;

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

    /// <summary>MXFP4 as it is published, and floats, in F32 and a quantized format.</summary>
    [Theory]
    [InlineData("gpt_oss", true, "Q8_0", DType.MXFP4)]
    [InlineData("gpt_oss", false, "F32", DType.F32)]
    [InlineData("gpt_oss other alpha, plain rope", true, "F32", DType.MXFP4)]
    public void A_folder_is_converted(string name, bool encoded, string format, DType stored)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, otherwise: """{"swiglu_alpha": 1.702}""");
        if (encoded)
        {
            MoeLayouts.Encode(model);
        }
        using var folder = new TemporaryFolder();
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        GgufConverter.Convert(checkpoint, folder.File("m.gguf"), QuantizationRecipe.Named(format));
        using var harness = new ModelHarness(CheckpointFile.Open(folder.File("m.gguf")), new ReferenceBackend(), pageTokens: 4);
        Assert.Equal(PlanShape.Of(ModelPlanReader.Read(checkpoint)), PlanShape.Of(harness.Plan));
        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        Assert.Equal((stored, "[6, 32, 64]"), (file["blk.1.ffn_up_exps.weight"].DType, file["blk.1.ffn_up_exps.weight"].DescribeShape()));
        Assert.Equal((stored, "[6, 64, 32]"), (file["blk.2.ffn_down_exps.weight"].DType, file["blk.2.ffn_down_exps.weight"].DescribeShape()));
        // Keys that llama.cpp cannot do without.
        Assert.Equal((32u, 5u), (file.Metadata["gpt-oss.expert_feed_forward_length"], file.Metadata["gpt-oss.attention.sliding_window"]));
        Assert.Equal("[4]", file["blk.0.attn_sinks.weight"].DescribeShape());
        Assert.Equal("[6, 64]", file["blk.0.ffn_down_exps.bias"].DescribeShape());
        Assert.DoesNotContain(file.TensorNames, static tensor => tensor.StartsWith("model.", StringComparison.Ordinal));
        if (format == "F32")
        {
            FamiliesAgainstOracleTests.AssertClose(expected, harness.Run(tokens, chunk: 5), FamiliesAgainstOracleTests.ReferenceTolerance, model);
        }
    }

    [Theory]
    [InlineData("""{"swiglu_limit": 6.0}""", "swiglu_limit")]
    [InlineData("""{"swiglu_alpha": 1.5}""", "swiglu_alpha")]
    [InlineData("""{"rope_theta": null}""", "rope_theta")]
    [InlineData("""{"layer_types": ["full_attention", "full_attention", "sliding_attention"]}""", "layer_types")]
    [InlineData("""{"rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 64}}""", "rope_scaling")]
    [InlineData("""{"intermediate_size": 64}""", "model.layers.0.mlp.experts.gate_up_proj")]
    public void What_gguf_has_no_place_for_is_refused(string differences, string item)
    {
        TinyModel model = MoeModels.Make("gpt_oss", 1);
        MoeModels.Change(model.Config, differences);
        Assert.Equal(item, Refuse(model).Item);
    }

    [Fact]
    public void Neurons_whose_outputs_are_zero_are_left_out_and_no_others()
    {
        const int Width = 32, Hidden = 64;
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw("gpt_oss", 13, static drawn =>
        {
            foreach ((string name, (long[] shape, float[] values)) in drawn.Tensors)
            {
                // down_proj [experts, width, hidden]: expert e loses its first 5e neurons. Gates of others are zero, which here does not make them vanish.
                for (int expert = 0; expert < 6 && name.EndsWith("experts.down_proj", StringComparison.Ordinal); expert++)
                {
                    Array.Clear(values, expert * Width * Hidden, expert * 5 * Hidden);
                }
                for (int i = 0; i < values.Length && name.EndsWith("experts.gate_up_proj", StringComparison.Ordinal); i++)
                {
                    values[i] = i % (2 * Width) == 2 * Width - 2 ? 0 : values[i];
                }
            }
        });
        using var folder = new TemporaryFolder();
        string path = Path.Combine(folder.Path, "model.gguf");
        GgufWriter.Write(path, Metadata(), [.. model.Tensors.SelectMany(pair => Sources(pair.Key, pair.Value.Shape, pair.Value.Values, DType.F32))]);
        var compacted = Assert.IsType<CompactedCheckpoint>(CompactedCheckpoint.Apply(CheckpointFile.Open(path)));
        Assert.Equal(3 * 5 * (1 + 2 + 3 + 4 + 5), compacted.RemovedNeurons);
        using var harness = new ModelHarness(compacted, new ReferenceBackend(), pageTokens: 4);
        Assert.Equal([32, 27, 22, 17, 12, 7], harness.Plan.Layers.Blocks[1].Experts!.Slots.Select(static slot => slot.Width));
        FamiliesAgainstOracleTests.AssertClose(expected, harness.Run(tokens, chunk: 5), FamiliesAgainstOracleTests.ReferenceTolerance, model);
    }

    [Fact]
    public void Codes_and_scales_that_do_not_fit_are_refused()
    {
        TinyModel model = MoeModels.Make("gpt_oss", 1);
        MoeLayouts.Encode(model);
        const string Scales = "model.layers.1.mlp.experts.down_proj_scales";
        (long[] shape, byte[] values) = model.Codes[Scales];
        values[5] = 255;
        Assert.Equal((Scales, "the scale at row 5, column 0 is NaN"), (Refuse(model).Item, Refuse(model).Reason));
        model.Codes[Scales] = ([shape[0], shape[1] / 2, 2 * shape[2]], values);
        Assert.Contains("expected shape [6, 64, 1], found [6, 32, 2]", Refuse(model).Reason, StringComparison.Ordinal);
        model.Codes.Remove(Scales);
        Assert.Equal("model.layers.1.mlp.experts.down_proj_blocks", Refuse(model).Item);
    }

    /// <summary>As transformers has it: GptOssConfig's default.</summary>
    [Fact]
    public void A_folder_without_a_base_has_150000()
    {
        using MemoryCheckpoint checkpoint = MoeModels.Make("gpt_oss", 1, """{"rope_theta": null, "rope_scaling": null}""").ToCheckpoint();
        Assert.Equal(Math.Pow(150000, -0.2), ModelPlanReader.Read(checkpoint).Layers.Blocks[0].Attention!.Rope!.InverseFrequencies[1], 1e-15);
    }

    private static EngineException Refuse(TinyModel model)
    {
        using var folder = new TemporaryFolder();
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return Assert.Throws<EngineException>(() => GgufConverter.Convert(checkpoint, folder.File("m.gguf"), QuantizationRecipe.Named("F32")));
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
