using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Checkpoints;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>DeepSeek-V2 and -V3 as llama.cpp's <c>deepseek2</c>: written, read back, and read as older converters wrote it.</summary>
public sealed class DeepSeekGgufTests : IDisposable
{
    private const string Prefix = "deepseek2.";

    /// <summary>Models that GGUF can hold, and what is different in them from those of <see cref="MoeModels"/>.</summary>
    private static readonly Dictionary<string, string> Models = new()
    {
        ["deepseek_v2"] = "{}",
        ["deepseek_v2 lite"] = "{}",
        ["deepseek_v2 normalised, biases"] = """{"attention_bias": false}""",
        ["deepseek_v3"] = "{}",
        ["deepseek_v3 yarn, four groups"] = """
            {"rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
             "original_max_position_embeddings": 64}}
            """,
        ["deepseek_v3 one group, not normalised, whole queries"] = "{}",
    };

    private readonly TemporaryFolder folder = new();

    public static TheoryData<string> Names => [.. Models.Keys];

    public void Dispose() => folder.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void A_file_gives_the_plan_and_the_logits_of_the_folder(string name)
    {
        (TinyModel model, int[] tokens, double[][] expected) = Draw(name);
        using GgufFile file = Convert(model);
        Checkpoint read = new GgufVocabulary(GgufCopy.Of(file));
        Assert.Equal(PlanShape.Of(Plan(model)), PlanShape.Of(ModelPlanReader.Read(read)));
        RequireLogits(read, model, tokens, expected);
        RequireLogits(new GgufVocabulary(GgufCopy.Of(file)), model, tokens, expected, onCpu: true);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_file_of_before_the_split_gives_them_too(string name)
    {
        (TinyModel model, int[] tokens, double[][] expected) = Draw(name);
        using GgufFile file = Convert(model);
        int heads = 4, rotated = 8, plain = 12, values = 12;
        MemoryCheckpoint old = GgufCopy.Of(
            file,
            new Dictionary<string, object?>
            {
                [Prefix + "attention.key_length"] = (uint)(plain + rotated),
                [Prefix + "attention.value_length"] = (uint)values,
                [Prefix + "attention.key_length_mla"] = null,
                [Prefix + "attention.value_length_mla"] = null,
                [Prefix + "attention.head_count_kv"] = (uint)heads,
                // DeepSeek-V2's say nothing about the function: it was the only one.
                [Prefix + "expert_gating_func"] = name.StartsWith("deepseek_v2", StringComparison.Ordinal) ? null : 2u,
            },
            static tensor => !tensor.Contains(".attn_k_b.", StringComparison.Ordinal) && !tensor.Contains(".attn_v_b.", StringComparison.Ordinal));
        for (int layer = 0; layer < 3; layer++)
        {
            (long[] shape, float[] up) = model.Tensors[$"model.layers.{layer}.self_attn.kv_b_proj.weight"];
            old.Add($"blk.{layer}.attn_kv_b.weight", shape, up);
        }
        var read = new GgufVocabulary(old);
        Assert.Equal(PlanShape.Of(Plan(model)), PlanShape.Of(ModelPlanReader.Read(read)));
        RequireLogits(read, model, tokens, expected);
    }

    /// <summary>Names and shapes: llama.cpp, gguf-py/gguf/constants.py and src/llama-model.cpp, LLM_ARCH_DEEPSEEK2.</summary>
    [Fact]
    public void Tensors_are_called_and_shaped_as_in_llama_cpp()
    {
        using GgufFile file = Convert(MoeModels.Make("deepseek_v3", Random.Shared.Next()));
        Dictionary<string, long[]> expected = new()
        {
            ["attn_norm.weight"] = [32],
            ["attn_q_a.weight"] = [24, 32],
            ["attn_q_a_norm.weight"] = [24],
            ["attn_q_b.weight"] = [4 * (12 + 8), 24],
            ["attn_kv_a_mqa.weight"] = [16 + 8, 32],
            ["attn_kv_a_norm.weight"] = [16],
            ["attn_k_b.weight"] = [4, 16, 12],
            ["attn_v_b.weight"] = [4, 12, 16],
            ["attn_output.weight"] = [32, 4 * 12],
            ["ffn_norm.weight"] = [32],
            ["ffn_gate_inp.weight"] = [8, 32],
            ["exp_probs_b.bias"] = [8],
            ["ffn_gate_exps.weight"] = [8, 20, 32],
            ["ffn_up_exps.weight"] = [8, 20, 32],
            ["ffn_down_exps.weight"] = [8, 32, 20],
            ["ffn_gate_shexp.weight"] = [40, 32],
            ["ffn_up_shexp.weight"] = [40, 32],
            ["ffn_down_shexp.weight"] = [32, 40],
        };
        Assert.Equal(
            expected.Select(static pair => $"blk.2.{pair.Key} [{string.Join(", ", pair.Value)}]").Order(StringComparer.Ordinal),
            file.TensorNames.Where(static name => name.StartsWith("blk.2.", StringComparison.Ordinal))
                .Select(name => $"{name} {file[name].DescribeShape()}").Order(StringComparer.Ordinal));
        Assert.DoesNotContain(file.TensorNames, static name => name.StartsWith("blk.3.", StringComparison.Ordinal) || name.StartsWith("model.", StringComparison.Ordinal));
        Assert.Equal("blk.0.ffn_gate.weight", file.TensorNames.Single(static name => name.StartsWith("blk.0.ffn_gate", StringComparison.Ordinal)));
    }

    [Fact]
    public void What_makes_keys_and_values_is_quantized_head_by_head()
    {
        TinyModel model = MoeModels.Make(
            "deepseek_v2", Random.Shared.Next(), """{"kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 24}""");
        using GgufFile file = Convert(model, "Q8_0");
        TensorView keys = file["blk.1.attn_k_b.weight"], values = file["blk.1.attn_v_b.weight"];
        Assert.Equal((DType.Q8_0, "[4, 64, 32]", DType.Q8_0, "[4, 24, 64]"), (keys.DType, keys.DescribeShape(), values.DType, values.DescribeShape()));
        float[] stored = model.Tensors["model.layers.1.self_attn.kv_b_proj.weight"].Values, k = keys.ToFloats(), v = values.ToFloats();
        float step = 2 * stored.Max(MathF.Abs) / 127;
        for (int head = 0; head < 4; head++)
        {
            for (int latent = 0; latent < 64; latent++)
            {
                for (int row = 0; row < 32 + 24; row++)
                {
                    float found = row < 32 ? k[(head * 64 + latent) * 32 + row] : v[(head * 24 + row - 32) * 64 + latent];
                    Assert.Equal(stored[(head * 56 + row) * 64 + latent], found, step);
                }
            }
        }
    }

    /// <summary>Keys: llama.cpp, conversion/deepseek.py.</summary>
    [Fact]
    public void Keys_are_those_of_llama_cpp()
    {
        using GgufFile file = Convert(Make("deepseek_v3 yarn, four groups"));
        Dictionary<string, object> expected = new()
        {
            ["block_count"] = 3u,
            ["attention.head_count"] = 4u,
            ["attention.head_count_kv"] = 1u,
            ["attention.q_lora_rank"] = 24u,
            ["attention.kv_lora_rank"] = 16u,
            ["attention.key_length"] = 24u,
            ["attention.value_length"] = 16u,
            ["attention.key_length_mla"] = 20u,
            ["attention.value_length_mla"] = 12u,
            ["rope.dimension_count"] = 8u,
            ["rope.scaling.type"] = "yarn",
            ["rope.scaling.factor"] = 40f,
            ["rope.scaling.original_context_length"] = 64u,
            ["rope.scaling.yarn_log_multiplier"] = 0.1f,
            ["leading_dense_block_count"] = 1u,
            ["expert_count"] = 8u,
            ["expert_used_count"] = 3u,
            ["expert_shared_count"] = 2u,
            ["expert_feed_forward_length"] = 20u,
            ["expert_gating_func"] = 2u,
            ["expert_weights_norm"] = true,
            ["expert_weights_scale"] = 2.5f,
            ["expert_group_count"] = 4u,
            ["expert_group_used_count"] = 2u,
        };
        foreach ((string key, object value) in expected)
        {
            Assert.Equal(value, file.Metadata[Prefix + key]);
        }
        using GgufFile lite = Convert(Make("deepseek_v2 lite"));
        Assert.Equal(0.0707f, lite.Metadata[Prefix + "rope.scaling.yarn_log_multiplier"]);
        Assert.DoesNotContain(Prefix + "attention.q_lora_rank", lite.Metadata.Keys);
        Assert.DoesNotContain(Prefix + "expert_group_count", lite.Metadata.Keys);
    }

    [Fact]
    public void Layers_that_predict_further_tokens_are_left_out_of_files_that_have_them()
    {
        TinyModel model = MoeModels.Make("deepseek_v3", Random.Shared.Next());
        using GgufFile file = Convert(model);
        MemoryCheckpoint longer = GgufCopy.Of(
            file, new Dictionary<string, object?> { [Prefix + "block_count"] = 4u, [Prefix + "nextn_predict_layers"] = 1u });
        foreach (string name in file.TensorNames.Where(static name => name.StartsWith("blk.2.", StringComparison.Ordinal)).ToArray())
        {
            longer.Add(name.Replace(".2.", ".3.", StringComparison.Ordinal), file[name].DType, file[name].Shape, file[name].Bytes);
        }
        longer.Add("blk.3.nextn.eh_proj.weight", [32, 64], new float[32 * 64]);
        longer.Add("blk.3.nextn.enorm.weight", [32], new float[32]);
        longer.Add("blk.3.nextn.shared_head_norm.weight", [32], new float[32]);
        Assert.Equal(PlanShape.Of(Plan(model)), PlanShape.Of(ModelPlanReader.Read(new GgufVocabulary(longer))));
    }

    [Theory]
    [InlineData("deepseek_v3", "attention.kv_lora_rank", null, "missing")]
    [InlineData("deepseek_v3", "rope.dimension_count", null, "missing")]
    [InlineData("deepseek_v3", "attention.key_length_mla", null, "missing")]
    [InlineData("deepseek_v3", "attention.value_length_mla", null, "missing")]
    [InlineData("deepseek_v3", "attention.key_length_mla", 8u, "expected more than the 8 rotated elements, found 8")]
    [InlineData("deepseek_v3", "attention.head_count", null, "missing")]
    [InlineData("deepseek_v3", "expert_used_count", null, "missing")]
    [InlineData("deepseek_v3", "expert_gating_func", 3u, "expected 1 (softmax) or 2 (sigmoid), found 3")]
    [InlineData("deepseek_v2", "expert_weights_norm", true, "expert_weights_scale")]
    [InlineData("deepseek_v2 lite", "rope.scaling.attn_factor", 1.5f, "expected 1 in deepseek2")]
    [InlineData("deepseek_v2 lite", "rope.scaling.factor", null, "missing")]
    public void Metadata_that_does_not_fit_is_refused(string name, string key, object? value, string reason)
    {
        using GgufFile file = Convert(Make(name));
        using var read = new GgufVocabulary(GgufCopy.Of(file, new Dictionary<string, object?> { [Prefix + key] = value }));
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(read));
        Assert.StartsWith(Prefix, error.Item, StringComparison.Ordinal);
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("attention.kv_lora_rank", 12u, "k_b_proj", "expected shape [4, 12, 12]; found [4, 16, 12]")]
    [InlineData("attention.q_lora_rank", 23u, "q_a_proj", "expected shape [23, 32]; found [24, 32]")]
    [InlineData("attention.key_length_mla", 24u, "k_b_proj", "expected shape [4, 16, 16]; found [4, 16, 12]")]
    [InlineData("attention.value_length_mla", 11u, "v_b_proj", "expected shape [4, 11, 16]; found [4, 12, 16]")]
    [InlineData("attention.head_count", 5u, "k_b_proj", "expected shape [5, 16, 12]; found [4, 16, 12]")]
    [InlineData("rope.dimension_count", 10u, "k_b_proj", "expected shape [4, 16, 10]")]
    public void Ranks_and_widths_that_the_tensors_do_not_have_are_refused(string key, uint value, string tensor, string reason)
    {
        using GgufFile file = Convert(MoeModels.Make("deepseek_v3", Random.Shared.Next()));
        using var read = new GgufVocabulary(GgufCopy.Of(file, new Dictionary<string, object?> { [Prefix + key] = value }));
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(read));
        Assert.Contains(tensor, error.Item, StringComparison.Ordinal);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("blk.1.attn_v_b.weight", "model.layers.1.self_attn.v_b_proj.weight")]
    [InlineData("blk.1.attn_k_b.weight", "model.layers.1.self_attn.k_b_proj.weight")]
    [InlineData("blk.0.attn_kv_a_mqa.weight", "model.layers.0.self_attn.kv_a_proj_with_mqa.weight")]
    [InlineData("blk.2.exp_probs_b.bias", "model.layers.2.mlp.gate.e_score_correction_bias")]
    [InlineData("blk.2.ffn_down_shexp.weight", "model.layers.2.mlp.shared_experts.down_proj.weight")]
    public void A_missing_tensor_is_named(string tensor, string name)
    {
        using GgufFile file = Convert(MoeModels.Make("deepseek_v3", Random.Shared.Next()));
        using var read = new GgufVocabulary(GgufCopy.Of(file, keep: other => other != tensor));
        Assert.Contains(name, Assert.Throws<EngineException>(() => ModelPlanReader.Read(read)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("deepseek_v3 halves rotated, large epsilon", "{}", "rope_interleave")]
    [InlineData("deepseek_v2 normalised, biases", "{}", "attention_bias")]
    [InlineData("deepseek_v3 yarn, four groups", "{}", "rope_scaling")]
    [InlineData("deepseek_v3", """{"norm_topk_prob": null}""", "norm_topk_prob")]
    [InlineData("deepseek_v3", """{"routed_scaling_factor": null}""", "routed_scaling_factor")]
    [InlineData("deepseek_v3", """{"topk_method": "other"}""", "topk_method")]
    [InlineData("deepseek_v3", """{"scoring_func": "softmax"}""", "scoring_func")]
    [InlineData("deepseek_v2", """{"moe_layer_freq": 2}""", "moe_layer_freq")]
    [InlineData("deepseek_v2", """{"kv_lora_rank": null}""", "kv_lora_rank")]
    public void What_gguf_has_no_place_for_is_refused(string name, string differences, string key)
    {
        TinyModel model = MoeModels.Make(name, Random.Shared.Next());
        MoeModels.Change(model.Config, differences);
        Assert.Equal(key, Assert.Throws<EngineException>(() => Convert(model)).Item);
    }

    [Fact]
    public void An_up_projection_that_is_not_of_all_heads_is_refused()
    {
        TinyModel model = MoeModels.Make("deepseek_v2", Random.Shared.Next());
        model.Tensors["model.layers.1.self_attn.kv_b_proj.weight"] = ([95, 16], new float[95 * 16]);
        EngineException error = Assert.Throws<EngineException>(() => Convert(model));
        Assert.Equal("model.layers.1.self_attn.kv_b_proj.weight", error.Item);
        Assert.Contains("4 heads of 12 + 12 rows, found [95, 16]", error.Reason, StringComparison.Ordinal);
    }

    private static TinyModel Make(string name) => MoeModels.Make(name, Random.Shared.Next(), Models[name]);

    private static (TinyModel Model, int[] Tokens, double[][] Logits) Draw(string name) => MoeModels.Draw(name, 13, otherwise: Models[name]);

    private static void RequireLogits(Checkpoint read, TinyModel model, int[] tokens, double[][] expected, bool onCpu = false)
    {
        using var harness = new ModelHarness(
            read, onCpu ? new CpuBackend(new CpuOptions { Threads = 2 }) : new ReferenceBackend(), pageTokens: 4, maxRows: 32);
        FamiliesAgainstOracleTests.AssertClose(
            expected, harness.Run(tokens, chunk: 5), onCpu ? 1e-4 : FamiliesAgainstOracleTests.ReferenceTolerance, model);
    }

    private static ModelPlan Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }

    private GgufFile Convert(TinyModel model, string format = "F32")
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        string path = folder.File($"{Guid.NewGuid():N}.gguf");
        GgufConverter.Convert(checkpoint, path, QuantizationRecipe.Named(format));
        return GgufFile.Open(path);
    }
}
