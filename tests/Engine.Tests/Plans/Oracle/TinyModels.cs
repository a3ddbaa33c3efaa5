using System.Text.Json.Nodes;

namespace Engine.Tests.Plans.Oracle;

/// <summary>One tiny model per thing that families do differently.</summary>
internal static class TinyModels
{
    private static readonly Dictionary<string, Func<string, int, TinyModel>> Makers = new()
    {
        ["llama tied"] = static (name, seed) => Gated(name, seed, """{"tie_word_embeddings": true}"""),
        ["llama grouped queries, llama3 rope, untied"] = static (name, seed) => Gated(name, seed, """
            {"head_dim": 16, "rope_theta": 1000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}
            """),
        ["llama with heads of 128"] = static (name, seed) => Gated(name, seed, """
            {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
            """),
        ["llama linear rope, head_dim"] = static (name, seed) => Gated(name, seed, """
            {"rope_scaling": {"type": "linear", "factor": 2.5}, "head_dim": 6, "num_key_value_heads": 1}
            """),
        ["llama dynamic rope within its context"] = static (name, seed) => Gated(name, seed, """
            {"rope_scaling": {"type": "dynamic", "factor": 4.0}}
            """),
        ["llama yarn"] = static (name, seed) => Gated(name, seed, """
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
             "max_position_embeddings": 128, "head_dim": 16}
            """),
        ["llama yarn with its own factors"] = static (name, seed) => Gated(name, seed, """
            {"rope_scaling": {"rope_type": "yarn", "factor": 16.0, "beta_fast": 8, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.7,
             "truncate": false, "original_max_position_embeddings": 64}, "max_position_embeddings": 1024, "head_dim": 16}
            """),
        ["llama rope_parameters"] = static (name, seed) => Gated(name, seed, """
            {"rope_theta": null, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 2.0, "attention_factor": 1.3,
             "original_max_position_embeddings": 64}}
            """),
        ["llama biases, gelu"] = static (name, seed) => Gated(name, seed, """
            {"attention_bias": true, "mlp_bias": true, "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 0.01}
            """),
        ["smollm"] = static (name, seed) => Gated(name, seed, """
            {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 36, "tie_word_embeddings": true, "rope_interleaved": false,
             "is_llama_config": true, "rope_theta": 100000, "pretraining_tp": 1, "transformers.js_config": {"kv_cache_dtype": {}}}
            """),
        ["mistral window 8"] = static (name, seed) => Gated(name, seed, """{"model_type": "mistral", "sliding_window": 8}"""),
        ["mistral without window"] = static (name, seed) => Gated(name, seed, """
            {"model_type": "mistral", "sliding_window": null, "head_dim": 4}
            """),
        ["qwen2"] = static (name, seed) => Gated(name, seed, """
            {"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": false, "max_window_layers": 1, "tie_word_embeddings": true}
            """),
        ["qwen2 window above layer 1"] = static (name, seed) => Gated(name, seed, """
            {"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": true, "max_window_layers": 1}
            """),
        ["qwen3"] = static (name, seed) => Gated(name, seed, """
            {"model_type": "qwen3", "head_dim": 10, "attention_bias": false, "tie_word_embeddings": true, "sliding_window": null,
             "use_sliding_window": false, "max_window_layers": 3}
            """),
        ["qwen3 layer types"] = static (name, seed) => Gated(name, seed, """
            {"model_type": "qwen3", "head_dim": 10, "sliding_window": 5, "use_sliding_window": true,
             "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
            """),
        ["gpt2"] = static (name, seed) => Gpt2(name, seed, "{}", "transformer."),
        ["gpt2 without prefix, inner width, exact gelu"] = static (name, seed) => Gpt2(name, seed, """
            {"n_inner": 52, "activation_function": "gelu", "layer_norm_epsilon": 0.003}
            """, ""),
        ["gpt2 scaled by layer, own head"] = static (name, seed) => Gpt2(name, seed, """
            {"scale_attn_by_inverse_layer_idx": true, "reorder_and_upcast_attn": true, "tie_word_embeddings": false}
            """, "transformer."),
        ["gpt2 not scaled"] = static (name, seed) => Gpt2(name, seed, """{"scale_attn_weights": false}""", "transformer."),
    };

    /// <summary>All names.</summary>
    public static IEnumerable<string> Names => Makers.Keys;

    /// <summary>Makes a model.</summary>
    public static TinyModel Make(string name, int seed) => Makers[name](name, seed);

    private static TinyModel Gated(string name, int seed, string differences)
    {
        JsonObject config = Merge("""
            {"model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
             "hidden_act": "silu", "tie_word_embeddings": false}
            """, differences);
        string type = (string)config["model_type"]!;
        int hidden = (int)config["hidden_size"]!, width = (int)config["intermediate_size"]!, vocabulary = (int)config["vocab_size"]!;
        int heads = (int)config["num_attention_heads"]!, kvHeads = (int)config["num_key_value_heads"]!;
        int headDim = config["head_dim"]?.GetValue<int>() ?? hidden / heads;
        bool attentionBias = config["attention_bias"]?.GetValue<bool>() == true, mlpBias = config["mlp_bias"]?.GetValue<bool>() == true;
        var model = new TinyModel(name, config, seed);
        model.AddTable("model.embed_tokens.weight", vocabulary, hidden);
        for (int layer = 0; layer < (int)config["num_hidden_layers"]!; layer++)
        {
            string prefix = $"model.layers.{layer}.";
            model.AddGain(prefix + "input_layernorm.weight", hidden);
            Linear(prefix + "self_attn.q_proj", heads * headDim, hidden, attentionBias || type == "qwen2");
            Linear(prefix + "self_attn.k_proj", kvHeads * headDim, hidden, attentionBias || type == "qwen2");
            Linear(prefix + "self_attn.v_proj", kvHeads * headDim, hidden, attentionBias || type == "qwen2");
            Linear(prefix + "self_attn.o_proj", hidden, heads * headDim, attentionBias);
            if (type == "qwen3")
            {
                model.AddGain(prefix + "self_attn.q_norm.weight", headDim);
                model.AddGain(prefix + "self_attn.k_norm.weight", headDim);
            }
            model.AddGain(prefix + "post_attention_layernorm.weight", hidden);
            Linear(prefix + "mlp.gate_proj", width, hidden, mlpBias);
            Linear(prefix + "mlp.up_proj", width, hidden, mlpBias);
            Linear(prefix + "mlp.down_proj", hidden, width, mlpBias);
        }
        model.AddGain("model.norm.weight", hidden);
        if (!(bool)config["tie_word_embeddings"]!)
        {
            model.AddMatrix("lm_head.weight", vocabulary, hidden, hidden);
        }
        return model;

        void Linear(string linear, int outputs, int inputs, bool bias)
        {
            model.AddMatrix(linear + ".weight", outputs, inputs, inputs);
            if (bias)
            {
                model.AddBias(linear + ".bias", outputs);
            }
        }
    }

    private static TinyModel Gpt2(string name, int seed, string differences, string prefix)
    {
        JsonObject config = Merge("""
            {"model_type": "gpt2", "vocab_size": 48, "n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 40, "n_ctx": 40,
             "n_inner": null, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
             "resid_pdrop": 0.1}
            """, differences);
        int hidden = (int)config["n_embd"]!, inner = config["n_inner"]?.GetValue<int>() ?? 4 * hidden;
        int vocabulary = (int)config["vocab_size"]!;
        var model = new TinyModel(name, config, seed);
        model.AddTable(prefix + "wte.weight", vocabulary, hidden);
        model.AddTable(prefix + "wpe.weight", (int)config["n_positions"]!, hidden);
        for (int layer = 0; layer < (int)config["n_layer"]!; layer++)
        {
            string block = $"{prefix}h.{layer}.";
            Norm(block + "ln_1");
            Conv1D(block + "attn.c_attn", hidden, 3 * hidden);
            Conv1D(block + "attn.c_proj", hidden, hidden);
            Norm(block + "ln_2");
            Conv1D(block + "mlp.c_fc", hidden, inner);
            Conv1D(block + "mlp.c_proj", inner, hidden);
        }
        Norm(prefix + "ln_f");
        if (config["tie_word_embeddings"]?.GetValue<bool>() == false)
        {
            model.AddMatrix("lm_head.weight", vocabulary, hidden, hidden);
        }
        return model;

        void Conv1D(string linear, int inputs, int outputs)
        {
            model.AddMatrix(linear + ".weight", inputs, outputs, inputs);
            model.AddBias(linear + ".bias", outputs);
        }

        void Norm(string norm)
        {
            model.AddGain(norm + ".weight", hidden);
            model.AddBias(norm + ".bias", hidden);
        }
    }

    private static JsonObject Merge(string defaults, string differences)
    {
        var config = (JsonObject)JsonNode.Parse(defaults)!;
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            config[key] = value?.DeepClone();
        }
        return config;
    }
}
