using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>What cannot be computed as asked is refused, with the file, the key or tensor, and what was found.</summary>
public sealed class RefusalTests
{
    public static TheoryData<string> Models => [.. TinyModels.Names];

    /// <summary>Model, what is changed in its configuration, the item that the message must name, and a part of the reason.</summary>
    public static TheoryData<string, string, string, string> Configurations => new()
    {
        { "llama tied", """{"model_type": "rwkv"}""", "model_type", "'rwkv' is not supported; known: llama, mistral, qwen2, qwen3, gpt2, qwen2_parscale" },
        { "llama tied", """{"model_type": "dbrx"}""", "model_type", "'dbrx' is not supported; known" },
        { "llama tied", """{"model_type": "deepseek2"}""", "model_type", "the model family 'deepseek2' is not supported" },
        { "llama tied", """{"model_type": "mixtral"}""", "num_local_experts", "missing" },
        { "llama tied", """{"model_type": 3}""", "model_type", "expected a string; found 3" },
        { "llama tied", """{"model_type": null, "architectures": ["MambaForCausalLM"]}""", "architectures",
            "'MambaForCausalLM' is not supported" },
        { "llama tied", """{"architectures": ["LlamaForSequenceClassification"]}""", "architectures", "LlamaForCausalLM" },
        { "llama tied", """{"architectures": "LlamaForCausalLM"}""", "architectures", "expected an array" },
        { "llama tied", """{"hidden_size": null}""", "hidden_size", "missing" },
        { "llama tied", """{"hidden_size": "32"}""", "hidden_size", "found \"32\"" },
        { "llama tied", """{"hidden_size": 32.5}""", "hidden_size", "found 32.5" },
        { "llama tied", """{"hidden_size": -32}""", "hidden_size", "found -32" },
        { "llama tied", """{"hidden_size": 4294967328}""", "hidden_size", "found 4294967328" },
        { "llama tied", """{"num_hidden_layers": 500000000}""", "num_hidden_layers", "500000000 layers" },
        { "llama tied", """{"num_attention_heads": 5}""", "num_attention_heads", "found 5" },
        { "llama tied", """{"num_key_value_heads": 3}""", "num_key_value_heads", "found 3" },
        { "llama tied", """{"num_attention_heads": [4, 4]}""", "num_attention_heads", "expected 3 values" },
        { "llama tied", """{"num_attention_heads": [4, 0, 4]}""", "num_key_value_heads[1]", "there are no query heads; found 2" },
        { "llama tied", """{"num_attention_heads": [4, -1, 4]}""", "num_attention_heads[1]", "found -1" },
        { "llama tied", """{"head_dim": 2147483647}""", "head_dim", "2147483647" },
        { "llama tied", """{"intermediate_size": 43}""", "model.layers.0.mlp.gate_proj.weight", "expected shape [43, 32]; found [44, 32]" },
        { "llama tied", """{"vocab_size": 49}""", "model.embed_tokens.weight", "expected shape [49 or more, 32]; found [48, 32]" },
        { "llama tied", """{"max_position_embeddings": null}""", "max_position_embeddings", "missing" },
        { "llama tied", """{"rms_norm_eps": 0}""", "rms_norm_eps", "above zero" },
        { "llama tied", """{"rope_theta": 1e400}""", "rope_theta", "finite" },
        { "llama tied", """{"hidden_act": "relu"}""", "hidden_act", "found 'relu'" },
        { "llama tied", """{"tie_word_embeddings": "yes"}""", "tie_word_embeddings", "expected true or false" },
        { "llama tied", """{"tie_word_embeddings": false}""", "", "a tensor is missing from this llama model: lm_head.weight" },
        { "llama tied", """{"attention_bias": true}""", "", "missing from this llama model: model.layers.{0…2}.self_attn.q_proj.bias, " },
        { "llama tied", """{"mlp_bias": true}""", "", "missing from this llama model: model.layers.{0…2}.mlp.gate_proj.bias, " },
        { "llama biases, gelu", """{"attention_bias": false}""", "attention_bias", "model.layers.0.self_attn.q_proj.bias exists" },
        { "llama tied", """{"num_hidden_layers": 2}""", "", "not known in a llama model: model.layers.2.input_layernorm.weight" },
        { "llama tied", """{"num_hidden_layers": 4}""", "", "missing from this llama model: model.layers.3.self_attn.q_proj.weight" },
        { "llama tied", """{"model_type": "qwen2"}""", "", "missing from this qwen2 model: model.layers.{0…2}.self_attn.q_proj.bias, " },
        { "llama tied", """{"model_type": "qwen3"}""", "", "self_attn.q_norm.weight" },
        { "qwen3", """{"model_type": "llama"}""", "", "not known in a llama model: model.layers.{0…2}.self_attn.q_norm.weight" },
        { "llama tied", """{"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [2]}}""", "rope_scaling.short_factor",
            "expected 4 numbers above zero, one per pair; found [1]" },
        { "llama tied", """{"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 0]}}""", "rope_scaling.short_factor", "above zero" },
        { "llama tied", """{"rope_scaling": {"type": "longrope", "short_factor": 1}}""", "short_factor", "array" },
        { "llama tied", """{"rope_scaling": {"type": "longrope"}}""", "rope_scaling.short_factor", "missing" },
        { "llama tied", """{"lm_head_bias": true}""", "", "missing from this llama model: lm_head.bias" },
        { "llama tied", """{"rope_scaling": {"type": "su"}}""", "rope_scaling", "known: default, linear, dynamic, llama3, yarn" },
        { "llama tied", """{"rope_scaling": 4}""", "rope_scaling", "expected an object" },
        { "llama tied", """{"rope_scaling": {"type": "linear"}}""", "factor", "missing" },
        { "llama tied", """{"rope_scaling": {"type": "linear", "factor": 0}}""", "factor", "above zero" },
        { "llama tied", """{"rope_scaling": {"type": "dynamic", "factor": 2, "alpha": 1000}}""", "rope_scaling.alpha", "not known" },
        { "llama tied", """{"rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}}""", "rope_scaling.mrope_section",
            "not known" },
        { "llama tied", """{"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}}""",
            "rope_scaling.original_max_position_embeddings", "missing" },
        { "llama tied", """
            {"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
             "original_max_position_embeddings": 32}}
            """, "rope_scaling.high_freq_factor", "more than low_freq_factor" },
        { "llama tied", """{"rope_scaling": {"type": "yarn"}}""", "rope_scaling.factor", "missing" },
        { "llama tied", """{"rope_theta": 0.5, "rope_scaling": {"type": "yarn", "factor": 2}}""", "rope_scaling", "rope_theta above 1" },
        { "llama tied", """{"rope_pairing": "odd"}""", "rope_pairing", "'odd'" },
        { "llama tied", """{"rope_factors_tensor": "rope_freqs.weight"}""", "rope_freqs.weight", "missing" },
        { "llama tied", """{"rope_factors_tensor": "model.norm.weight"}""", "model.norm.weight", "expected F32 [4]; found F32 [32]" },
        { "llama yarn", """{"rope_factors_tensor": "model.norm.weight"}""", "rope_factors_tensor", "cannot both apply" },
        { "llama tied", """{"partial_rotary_factor": 0.125}""", "partial_rotary_factor", "found 1" },
        { "llama tied", """{"partial_rotary_factor": 1.5}""", "partial_rotary_factor", "found 12" },
        { "llama tied", """{"sliding_window": 8}""", "sliding_window", "found 8" },
        { "llama tied", """{"layer_types": ["full_attention", "full_attention", "chunked_attention"]}""", "layer_types[2]",
            "chunked_attention" },
        { "qwen3", """{"layer_types": ["full_attention", "full_attention", "sliding_attention"]}""", "layer_types[2]",
            "expected 'full_attention'" },
        { "mistral window 8", """{"layer_types": ["sliding_attention"]}""", "layer_types", "3 strings" },
        { "llama tied", """{"quantization_config": {"quant_method": "gptq", "bits": 4}}""", "quantization_config", "not supported yet" },
        { "llama tied", """{"num_local_experts": 8}""", "num_local_experts", "no mixtures of experts" },
        { "qwen3", """{"num_experts": 128}""", "num_experts", "no mixtures of experts" },
        { "qwen2", """{"parscale_n": 4}""", "parscale_n", "no parallel streams" },
        { "qwen2", """{"mor": {"recursive": {}}}""", "mor", "no recursion" },
        { "mistral window 8", """{"kv_sharing": {"enable": true}}""", "kv_sharing", "no recursion" },
        { "llama tied", """{"logits_scaling": 8.0}""", "logits_scaling", "found 8" },
        { "llama tied", """{"embedding_multiplier": 12.0}""", "embedding_multiplier", "found 12" },
        { "llama tied", """{"attention_multiplier": 0.015625}""", "attention_multiplier", "scaled" },
        { "llama tied", """{"final_logit_softcapping": 30.0}""", "final_logit_softcapping", "found 30" },
        { "llama tied", """{"is_causal": false}""", "is_causal", "causal" },
        { "gpt2", """{"n_embd": 25}""", "n_head", "25" },
        { "gpt2", """{"n_positions": 41}""", "transformer.wpe.weight", "[41 or more, 24]" },
        { "gpt2", """{"n_inner": 90}""", "transformer.h.0.mlp.c_fc.weight", "expected shape [24, 90]; found [24, 96]" },
        { "gpt2", """{"activation_function": "relu"}""", "activation_function", "'relu'" },
        { "gpt2", """{"conv1d_transposed": false}""", "transformer.h.0.attn.c_attn.weight", "expected shape [72, 24]; found [24, 72]" },
        { "gpt2", """{"add_cross_attention": true}""", "add_cross_attention", "not supported" },
    };

    [Theory]
    [MemberData(nameof(Configurations))]
    public void A_configuration_is_refused(string name, string differences, string item, string reason)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            model.Config[key] = value?.DeepClone();
        }
        EngineException error = Refuse(model);
        Assert.Equal(name, error.File);
        Assert.Equal(item, error.Item ?? "");
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Every_tensor_is_needed_and_missed_by_name(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        bool mayLack(string tensor) => tensor.EndsWith("o_proj.bias", StringComparison.Ordinal);
        foreach ((string tensor, (long[], float[]) value) in model.Tensors.Where(entry => !mayLack(entry.Key)).ToArray())
        {
            model.Tensors.Remove(tensor);
            EngineException error = Refuse(model);
            Assert.True(error.Message.Contains($"model: {tensor}", StringComparison.Ordinal), $"{model} without {tensor}: {error.Message}");
            model.Tensors.Add(tensor, value);
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Every_shape_is_checked(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        foreach ((string tensor, (long[] Shape, float[] Values) value) in model.Tensors.ToArray())
        {
            long[] actual = value.Shape;
            long[][] wrongShapes = [[.. actual[..^1], actual[^1] + 1], [actual[0] - 1, .. actual[1..]], [1, .. actual], []];
            foreach (long[] shape in wrongShapes)
            {
                model.Tensors[tensor] = (shape, new float[shape.Aggregate(1L, static (a, b) => a * b)]);
                EngineException error = Refuse(model);
                Assert.True(error.Item == tensor, $"{model}, {tensor} [{string.Join(", ", shape)}]: {error.Message}");
            }
            model.Tensors[tensor] = value;
        }
    }

    [Fact]
    public void Integers_are_no_weights()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        checkpoint.Add("model.layers.1.mlp.up_proj.weight", DType.I32, [44, 32], new byte[44 * 32 * 4]);
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Equal("llama tied: model.layers.1.mlp.up_proj.weight: expected weights; found I32", error.Message);
    }

    [Fact]
    public void Factors_that_are_not_above_zero_are_refused()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        model.Config["rope_factors_tensor"] = "rope_freqs.weight";
        foreach (float wrong in (float[])[0, -1, float.NaN, float.PositiveInfinity])
        {
            using MemoryCheckpoint checkpoint = model.ToCheckpoint();
            checkpoint.Add("rope_freqs.weight", DType.F32, [4], MemoryMarshal.AsBytes<float>([1, 1, wrong, 1]));
            EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
            Assert.Equal("rope_freqs.weight", error.Item);
        }
    }

    [Fact]
    public void Numbers_that_json_cannot_write_are_refused()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        checkpoint.Config["rms_norm_eps"] = JsonValue.Create(double.NaN);
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Equal("rms_norm_eps", error.Item);
        checkpoint.Config["rms_norm_eps"] = JsonValue.Create(float.PositiveInfinity);
        Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Whatever_a_configuration_says_it_makes_a_plan_or_our_exception(string name)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        string[] values = ["null", "0", "-1", "1", "2", "3", "1e308", "1e-308", "2147483647", "2147483648", "536870911",
            "1e30", "0.5", "true", "false", "\"x\"", "[]", "{}", "[1,2,3]", "[null]", "[[1],[2],[3]]", """{"type":"yarn","factor":1e300}""",
            """{"rope_type":"llama3"}""",
            """{"type":"linear","factor":1e-320}"""];
        TinyModel model = TinyModels.Make(name, seed);
        if (random.Next(2) == 0)
        {
            // Without tensors, no shape stops a number that is too large.
            foreach (string tensor in model.Tensors.Keys.Where(_ => random.Next(2) == 0).ToArray())
            {
                model.Tensors.Remove(tensor);
            }
        }
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        string[] keys = [.. checkpoint.Config.Select(static pair => pair.Key), "rope_scaling", "rope_parameters", "layer_types",
            "partial_rotary_factor", "head_dim", "use_sliding_window", "sliding_window", "rope_factors_tensor", "quantization_config",
            "architectures"];
        for (int round = 0; round < 300; round++)
        {
            var saved = (JsonObject)checkpoint.Config.DeepClone();
            string key = keys[random.Next(keys.Length)], other = keys[random.Next(keys.Length)];
            checkpoint.Config[key] = JsonNode.Parse(values[random.Next(values.Length)]);
            checkpoint.Config[other] = JsonNode.Parse(values[random.Next(values.Length)]);
            string text = checkpoint.Config.ToJsonString();
            try
            {
                ModelPlanReader.Read(checkpoint);
            }
            catch (Exception exception) when (exception is not EngineException)
            {
                Assert.Fail($"{model}: {text}: {exception}");
            }
            catch (EngineException)
            {
            }
            checkpoint.Config.Clear();
            foreach ((string savedKey, JsonNode? value) in saved)
            {
                checkpoint.Config[savedKey] = value?.DeepClone();
            }
        }
    }

    private static EngineException Refuse(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
    }
}
