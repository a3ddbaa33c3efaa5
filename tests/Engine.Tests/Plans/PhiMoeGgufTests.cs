using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Checkpoints;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>PhiMoE as llama.cpp's <c>phimoe</c>: written and read back.</summary>
public sealed class PhiMoeGgufTests : IDisposable
{
    /// <summary>LongRoPE whose factors float32 holds exactly, with one magnitude, which is all that GGUF has room for.</summary>
    private const string LongRope = """
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.125, 1.25, 1.5], "long_factor": [1.0, 2.0, 4.0, 8.0],
         "short_mscale": 1.25, "long_mscale": 1.25, "original_max_position_embeddings": 32}}
        """;

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("{}", false)]
    [InlineData("{}", true)]
    [InlineData(LongRope, false)]
    [InlineData("""{"sliding_window": 5, "attention_bias": false, "lm_head_bias": false}""", false)]
    public void A_file_gives_the_plan_and_the_logits_of_the_folder(string differences, bool fused)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw("phimoe", 13, otherwise: differences);
        string plan = PlanShape.Of(Plan(model));
        if (fused)
        {
            MoeLayouts.Fuse(model);
        }
        using GgufFile file = Convert(model);
        foreach (bool onCpu in (bool[])[false, true])
        {
            using var harness = new ModelHarness(
                new GgufVocabulary(GgufCopy.Of(file)), onCpu ? new CpuBackend(new CpuOptions { Threads = 2 }) : new ReferenceBackend(), pageTokens: 4);
            Assert.Equal(plan, PlanShape.Of(harness.Plan));
            FamiliesAgainstOracleTests.AssertClose(
                expected, harness.Run(tokens, chunk: 5), onCpu ? 1e-4 : FamiliesAgainstOracleTests.ReferenceTolerance, model);
        }
    }

    /// <summary>Names and shapes: llama.cpp, gguf-py/gguf/constants.py and src/llama-model.cpp, LLM_ARCH_PHIMOE.</summary>
    [Fact]
    public void Tensors_and_keys_are_those_of_llama_cpp()
    {
        using GgufFile file = Convert(MoeModels.Make("phimoe", Random.Shared.Next(), LongRope));
        string[] layer =
        [
            "attn_norm.weight [32]", "attn_norm.bias [32]", "attn_q.weight [32, 32]", "attn_q.bias [32]", "attn_k.weight [16, 32]", "attn_k.bias [16]",
            "attn_v.weight [16, 32]", "attn_v.bias [16]", "attn_output.weight [32, 32]", "attn_output.bias [32]", "ffn_norm.weight [32]", "ffn_norm.bias [32]",
            "ffn_gate_inp.weight [6, 32]", "ffn_gate_exps.weight [6, 20, 32]", "ffn_up_exps.weight [6, 20, 32]", "ffn_down_exps.weight [6, 32, 20]",
        ];
        string[] others =
        [
            "token_embd.weight [48, 32]", "output_norm.weight [32]", "output_norm.bias [32]", "output.weight [48, 32]", "output.bias [48]",
            "rope_factors_short.weight [4]", "rope_factors_long.weight [4]",
        ];
        Assert.Equal(
            [.. others.Concat(Enumerable.Range(0, 3).SelectMany(number => layer.Select(name => $"blk.{number}.{name}"))).Order(StringComparer.Ordinal)],
            file.TensorNames.Select(name => $"{name} {file[name].DescribeShape()}").Order(StringComparer.Ordinal));
        Assert.Equal("phimoe", file.Metadata["general.architecture"]);
        Assert.Equal((6u, 2u), (file.Metadata["phimoe.expert_count"], file.Metadata["phimoe.expert_used_count"]));
        Assert.Equal(1e-5f, file.Metadata["phimoe.attention.layer_norm_rms_epsilon"]);
        Assert.Equal(
            (32u, 1.25f), (file.Metadata["phimoe.rope.scaling.original_context_length"], file.Metadata["phimoe.rope.scaling.attn_factor"]));
    }

    [Theory]
    [InlineData("rope.scaling.original_context_length", null, "missing")]
    [InlineData("rope.scaling.attn_factor", "1", "expected a finite number")]
    [InlineData("attention.layer_norm_rms_epsilon", null, "missing")]
    [InlineData("feed_forward_length", null, "missing")]
    [InlineData("expert_used_count", null, "missing")]
    [InlineData("expert_gating_func", 2u, "expected 1 (softmax), found 2")]
    public void Metadata_that_does_not_fit_is_refused(string key, object? value, string reason)
    {
        using GgufFile file = Convert(MoeModels.Make("phimoe", Random.Shared.Next(), LongRope));
        using var read = new GgufVocabulary(GgufCopy.Of(file, new Dictionary<string, object?> { ["phimoe." + key] = value }));
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(read));
        Assert.Equal("phimoe." + key, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rope_factors_short.weight", "rope_factors_short.weight")]
    [InlineData("rope_factors_long.weight", "rope_factors_long.weight")]
    [InlineData("blk.1.ffn_norm.bias", "model.layers.1.post_attention_layernorm.bias")]
    [InlineData("blk.1.attn_q.bias", "model.layers.1.self_attn.q_proj.bias")]
    [InlineData("output_norm.bias", "model.norm.bias")]
    [InlineData("blk.2.ffn_up_exps.weight", "model.layers.2.mlp.experts.up_proj.weight")]
    public void A_missing_tensor_is_named(string tensor, string name)
    {
        using GgufFile file = Convert(MoeModels.Make("phimoe", Random.Shared.Next(), LongRope));
        using var read = new GgufVocabulary(GgufCopy.Of(file, keep: other => other != tensor));
        Assert.Contains(name, Assert.Throws<EngineException>(() => ModelPlanReader.Read(read)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rope_factors_long.weight", new[] { 1f, 2f, 4f }, "expected F32 [4]; found F32 [3]")]
    [InlineData("rope_factors_long.weight", new[] { 1f, 2f, float.NaN, 4f }, "above zero; found NaN")]
    [InlineData("rope_factors_long.weight", new[] { 1f, 2f, float.PositiveInfinity, 4f }, "above zero; found")]
    [InlineData("rope_factors_short.weight", new[] { 1f, -1f, 1f, 1f }, "above zero; found -1")]
    public void A_table_of_factors_that_does_not_fit_is_refused(string tensor, float[] factors, string reason)
    {
        using GgufFile file = Convert(MoeModels.Make("phimoe", Random.Shared.Next(), LongRope));
        MemoryCheckpoint changed = GgufCopy.Of(file);
        changed.Add(tensor, DType.F32, [factors.Length], MemoryMarshal.AsBytes(factors.AsSpan()));
        using var read = new GgufVocabulary(changed);
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(read));
        Assert.Equal(tensor, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("phimoe wide mixing", "router_jitter_noise")]
    [InlineData("phimoe longrope", "rope_scaling")]
    public void What_gguf_has_no_place_for_is_refused(string name, string key) =>
        Assert.Equal(key, Assert.Throws<EngineException>(() => Convert(MoeModels.Make(name, Random.Shared.Next()))).Item);

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }

    private GgufFile Convert(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        string path = folder.File($"{Guid.NewGuid():N}.gguf");
        GgufConverter.Convert(checkpoint, path, QuantizationRecipe.Named("F32"));
        return GgufFile.Open(path);
    }
}
