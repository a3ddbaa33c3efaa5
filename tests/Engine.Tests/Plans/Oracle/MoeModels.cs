using System.Globalization;
using System.Text.Json.Nodes;

namespace Engine.Tests.Plans.Oracle;

/// <summary>Tiny mixtures of experts, one per thing that families do differently, under the names and keys that Hugging Face's code reads.</summary>
internal static class MoeModels
{
    /// <summary>Choices nearer than this to falling otherwise are not a fair test of float32: another model is drawn.</summary>
    private const double LeastMargin = 1e-3;

    private const string Common = """
        {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false}
        """;

    private const string Latent = """
        {"num_key_value_heads": 4, "intermediate_size": 44, "moe_intermediate_size": 20, "n_routed_experts": 8, "n_shared_experts": 2,
         "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "kv_lora_rank": 16, "q_lora_rank": 24,
         "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 12, "attention_bias": false, "rms_norm_eps": 1e-6, "ep_size": 1}
        """;

    /// <summary>What each family's config.json has besides <see cref="Common"/>.</summary>
    private static readonly Dictionary<string, string[]> Families = new()
    {
        ["mixtral"] = ["""
            {"intermediate_size": 20, "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": null, "router_jitter_noise": 0.0,
             "output_router_logits": false}
            """],
        ["qwen2_moe"] = ["""
            {"intermediate_size": 44, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28, "num_experts": 8,
             "num_experts_per_tok": 3, "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": false,
             "sliding_window": 4, "max_window_layers": 1}
            """],
        ["qwen3_moe"] = ["""
            {"intermediate_size": 44, "moe_intermediate_size": 20, "head_dim": 10, "num_experts": 8, "num_experts_per_tok": 3,
             "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": false, "use_sliding_window": false,
             "sliding_window": null, "max_window_layers": 3}
            """],
        ["olmoe"] = ["""
            {"intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": false, "attention_bias": false,
             "num_key_value_heads": 4, "clip_qkv": null, "rope_scaling": null}
            """],
        ["deepseek"] = ["""
            {"num_key_value_heads": 4, "intermediate_size": 44, "moe_intermediate_size": 20, "n_routed_experts": 8, "n_shared_experts": 2,
             "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": false, "scoring_func": "softmax",
             "attention_bias": false, "rope_scaling": null, "pretraining_tp": 1}
            """],
        ["deepseek_v2"] = [Latent, """
            {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "norm_topk_prob": false, "routed_scaling_factor": 1.6,
             "scoring_func": "softmax", "rope_scaling": null}
            """],
        ["deepseek_v3"] = [Latent, """
            {"topk_method": "noaux_tc", "n_group": 2, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5,
             "scoring_func": "sigmoid", "rope_scaling": null, "num_nextn_predict_layers": 1}
            """],
        ["phimoe"] = ["""
            {"intermediate_size": 20, "num_local_experts": 6, "num_experts_per_tok": 2, "router_jitter_noise": 0.01, "input_jitter_noise": 0.01,
             "attention_bias": true, "lm_head_bias": true, "sliding_window": null, "rope_scaling": null}
            """],
        ["gpt_oss"] = ["""
            {"hidden_size": 64, "intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2, "experts_per_token": 2, "head_dim": 10,
             "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "attention_bias": true,
             "swiglu_limit": 7.0, "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
             "original_max_position_embeddings": 64}, "max_position_embeddings": 2048, "initial_context_length": 64}
            """],
        ["llama_moe_rnn"] = ["""
            {"intermediate_size": 44, "moe_expert_intermediate_size": 20, "moe_share_expert_intermediate_size": null, "num_local_experts": 6,
             "num_experts_per_tok": 2, "moe_num_layers": 3, "add_moe_share_expert": false, "share_weight": 0.5, "moe_weight": 0.5,
             "add_moe_bias": false, "moe_router_type": "gru", "moe_router_rnn_hidden_size": 14, "attention_bias": false, "pretraining_tp": 1}
            """],
    };

    /// <summary>Families and what each model changes in its family's configuration; a name begins with its model type.</summary>
    private static readonly Dictionary<string, string> Models = new()
    {
        ["mixtral"] = "{}",
        ["mixtral window 8, tied, one expert"] = """{"sliding_window": 8, "tie_word_embeddings": true, "num_experts_per_tok": 1}""",
        ["mixtral all experts, head_dim"] = """{"num_experts_per_tok": 6, "head_dim": 12}""",
        ["qwen2_moe"] = "{}",
        ["qwen2_moe every other layer"] = """{"decoder_sparse_step": 2, "tie_word_embeddings": true}""",
        ["qwen2_moe first layer dense, normalised"] = """{"mlp_only_layers": [0], "norm_topk_prob": true}""",
        ["qwen3_moe"] = "{}",
        ["qwen3_moe some layers dense, not normalised"] = """{"mlp_only_layers": [1], "norm_topk_prob": false, "tie_word_embeddings": true}""",
        ["qwen3_moe as transformers 5 writes it"] = """
            {"num_local_experts": 8, "num_experts": null, "rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
            """,
        ["olmoe"] = "{}",
        ["olmoe normalised, clipped"] = """{"norm_topk_prob": true, "clip_qkv": 0.7}""",
        ["olmoe grouped queries, clipped"] = """{"num_key_value_heads": 2, "clip_qkv": 1.1}""",
        ["deepseek"] = "{}",
        ["deepseek normalised, every other layer"] = """{"norm_topk_prob": true, "first_k_dense_replace": 0, "moe_layer_freq": 2}""",
        ["deepseek without shared experts"] = """{"n_shared_experts": null, "num_key_value_heads": 2}""",
        ["deepseek_v2"] = "{}",
        ["deepseek_v2 lite"] = """
            {"q_lora_rank": null, "topk_method": "greedy", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "rope_scaling":
             {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
             "original_max_position_embeddings": 64}, "max_position_embeddings": 2560}
            """,
        ["deepseek_v2 normalised, biases"] = """{"norm_topk_prob": true, "attention_bias": true}""",
        ["deepseek_v2 normalised, one expert"] = """{"norm_topk_prob": true, "num_experts_per_tok": 1}""",
        ["deepseek_v3"] = "{}",
        ["deepseek_v3 yarn, four groups"] = """
            {"n_group": 4, "topk_group": 2, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
             "mscale_all_dim": 0.6, "original_max_position_embeddings": 64}, "max_position_embeddings": 2560}
            """,
        ["deepseek_v3 one group, not normalised, whole queries"] = """
            {"n_group": 1, "topk_group": 1, "norm_topk_prob": false, "q_lora_rank": null, "n_shared_experts": 1}
            """,
        ["deepseek_v3 halves rotated, large epsilon"] = """{"rope_interleave": false, "rms_norm_eps": 0.01}""",
        ["phimoe"] = "{}",
        ["phimoe wide mixing"] = """{"router_jitter_noise": 0.3, "lm_head_bias": false, "attention_bias": false}""",
        ["phimoe longrope"] = """
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.25, 1.6], "long_factor": [1.0, 2.0, 4.0, 8.0],
             "short_mscale": 1.243, "long_mscale": 1.4, "original_max_position_embeddings": 32}}
            """,
        ["gpt_oss"] = "{}",
        ["gpt_oss tight limit, three experts"] = """{"swiglu_limit": 0.6, "num_experts_per_tok": 3, "experts_per_token": 3}""",
        ["gpt_oss other alpha, plain rope"] = """{"swiglu_alpha": 1.3, "rope_scaling": null}""",
        ["llama_moe_rnn"] = "{}",
        ["llama_moe_rnn shared expert, bias, first layer dense"] = """
            {"add_moe_share_expert": true, "moe_share_expert_intermediate_size": 28, "add_moe_bias": true, "moe_num_layers": 2,
             "share_weight": 0.4, "moe_weight": 0.7}
            """,
        ["llama_moe_rnn plain cell"] = """{"moe_router_type": "rnn", "num_experts_per_tok": 3, "moe_expert_intermediate_size": null}""",
        ["llama_moe_rnn without recurrence"] = """{"moe_router_type": "other", "add_moe_share_expert": true}""",
    };

    /// <summary>All names.</summary>
    public static IEnumerable<string> Names => Models.Keys;

    /// <summary>The model type that a name begins with.</summary>
    public static string Family(string name) => name.Split(' ')[0];

    /// <summary>Draws models until one has no choice too close to call.</summary>
    /// <param name="name">Which model.</param>
    /// <param name="tokens">Tokens to draw.</param>
    /// <param name="change">Done to the model before anything is computed, or null.</param>
    /// <param name="expertsPerToken">Experts that a token is sent to, instead of the configuration's.</param>
    /// <param name="order">The layers in the order in which they run; null for each once.</param>
    /// <param name="otherwise">Keys of its configuration that are to be different.</param>
    /// <param name="dropped">Experts whose logits count as −∞.</param>
    public static (TinyModel Model, int[] Tokens, double[][] Logits) Draw(
        string name, int tokens, Action<TinyModel>? change = null, int? expertsPerToken = null, int[]? order = null, string otherwise = "{}", params int[] dropped)
    {
        for (int attempt = 0; attempt < 500; attempt++)
        {
            int seed = Random.Shared.Next();
            TinyModel model = Make(name, seed, otherwise);
            change?.Invoke(model);
            int[] ids = model.Tokens(tokens);
            var oracle = new MoeOracle(model, expertsPerToken) { Dropped = dropped };
            double[][] logits = oracle.Logits(ids, order);
            if (oracle.Margin >= LeastMargin)
            {
                TestContext.Current.TestOutputHelper?.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{model}, margin {oracle.Margin:0.0000}"));
                return (model, ids, logits);
            }
        }
        throw new InvalidOperationException("no model without close choices was drawn");
    }

    /// <summary>Makes a model.</summary>
    /// <param name="name">Which.</param>
    /// <param name="seed">Decides all numbers.</param>
    /// <param name="otherwise">Keys of its configuration that are to be different.</param>
    public static TinyModel Make(string name, int seed, string otherwise = "{}")
    {
        var config = (JsonObject)JsonNode.Parse(Common)!;
        config["model_type"] = Family(name);
        foreach (string differences in (string[])[.. Families[Family(name)], Models[name], otherwise])
        {
            Change(config, differences);
        }
        var model = new TinyModel(name, config, seed);
        int hidden = (int)config["hidden_size"]!, vocabulary = (int)config["vocab_size"]!;
        bool biased = Family(name) == "phimoe";
        model.AddTable("model.embed_tokens.weight", vocabulary, hidden);
        for (int layer = 0; layer < (int)config["num_hidden_layers"]!; layer++)
        {
            string prefix = $"model.layers.{layer}.";
            Norm(prefix + "input_layernorm");
            if (config["kv_lora_rank"] is null)
            {
                AddGrouped(model, prefix + "self_attn.");
            }
            else
            {
                AddLatent(model, prefix + "self_attn.");
            }
            Norm(prefix + "post_attention_layernorm");
            AddFeedForward(model, layer, prefix);
        }
        if (config["num_nextn_predict_layers"] is not null)
        {
            // The layers behind the last predict tokens further ahead; no logits come from them.
            string ahead = $"model.layers.{config["num_hidden_layers"]}.";
            AddLinear(model, ahead + "eh_proj", hidden, 2 * hidden, false);
            foreach (string norm in (string[])["enorm", "hnorm", "input_layernorm", "post_attention_layernorm", "shared_head.norm"])
            {
                Norm(ahead + norm);
            }
            AddLatent(model, ahead + "self_attn.");
            AddFeedForward(model, (int)config["num_hidden_layers"]!, ahead);
        }
        Norm("model.norm");
        if (config["moe_router_type"] is not null)
        {
            AddCell(model, (string)config["moe_router_type"]!, (int)config["moe_router_rnn_hidden_size"]!);
        }
        if (!config["tie_word_embeddings"]!.GetValue<bool>())
        {
            AddLinear(model, "lm_head", vocabulary, hidden, config["lm_head_bias"]?.GetValue<bool>() == true);
        }
        return model;

        void Norm(string norm)
        {
            model.AddGain(norm + ".weight", hidden);
            if (biased)
            {
                model.AddBias(norm + ".bias", hidden);
            }
        }
    }

    /// <summary>Gives keys of a configuration other values.</summary>
    public static void Change(JsonObject config, string differences)
    {
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            config[key] = value?.DeepClone();
        }
    }

    /// <summary>Whether a layer is a mixture.</summary>
    public static bool IsSparse(JsonObject config, int layer) => (string)config["model_type"]! switch
    {
        "qwen2_moe" or "qwen3_moe" =>
            !((JsonArray)config["mlp_only_layers"]!).Any(dense => (int)dense! == layer) && (layer + 1) % (int)config["decoder_sparse_step"]! == 0,
        "deepseek" or "deepseek_v2" or "deepseek_v3" =>
            layer >= (int)config["first_k_dense_replace"]! && layer % (int)config["moe_layer_freq"]! == 0,
        "llama_moe_rnn" => layer >= (int)config["num_hidden_layers"]! - (int)config["moe_num_layers"]!,
        _ => true,
    };

    /// <summary>A model whose mixtures add a bias (RMoE's <c>add_moe_bias</c>).</summary>
    public static bool HasBias(string name) => Models[name].Contains("\"add_moe_bias\": true", StringComparison.Ordinal);

    /// <summary>What the names of a mixture begin with, inside its layer.</summary>
    public static string Mixture(JsonObject config) =>
        (string)config["model_type"]! is "mixtral" or "phimoe" or "llama_moe_rnn" ? "block_sparse_moe." : "mlp.";

    /// <summary>The names of an expert's gate, up and down projections.</summary>
    public static (string Gate, string Up, string Down) Projections(JsonObject config) =>
        Mixture(config) == "mlp." ? ("gate_proj", "up_proj", "down_proj") : ("w1", "w3", "w2");

    /// <summary>The number of experts, under whatever key.</summary>
    public static int Experts(JsonObject config) =>
        (config["num_experts"] ?? config["num_local_experts"] ?? config["n_routed_experts"])!.GetValue<int>();

    /// <summary>The width of an expert.</summary>
    private static int Width(JsonObject config) =>
        (config["moe_intermediate_size"] ?? config["moe_expert_intermediate_size"] ?? config["intermediate_size"])!.GetValue<int>();

    private static void AddGrouped(TinyModel model, string name)
    {
        JsonObject config = model.Config;
        string family = Family(model.Name);
        int hidden = (int)config["hidden_size"]!, heads = (int)config["num_attention_heads"]!, kvHeads = (int)config["num_key_value_heads"]!;
        int headDim = config["head_dim"]?.GetValue<int>() ?? hidden / heads;
        bool biased = config["attention_bias"]?.GetValue<bool>() == true;
        foreach ((string linear, int count) in new[] { ("q_proj", heads), ("k_proj", kvHeads), ("v_proj", kvHeads) })
        {
            AddLinear(model, name + linear, count * headDim, hidden, biased || family == "qwen2_moe");
        }
        AddLinear(model, name + "o_proj", hidden, heads * headDim, biased);
        if (family is "qwen3_moe" or "olmoe")
        {
            model.AddGain(name + "q_norm.weight", family == "olmoe" ? heads * headDim : headDim);
            model.AddGain(name + "k_norm.weight", family == "olmoe" ? kvHeads * headDim : headDim);
        }
        if (family == "gpt_oss")
        {
            model.Add(name + "sinks", [heads], 0.5, 1);
        }
    }

    private static void AddLatent(TinyModel model, string name)
    {
        JsonObject config = model.Config;
        int hidden = (int)config["hidden_size"]!, heads = (int)config["num_attention_heads"]!, rank = (int)config["kv_lora_rank"]!;
        int ropeDim = (int)config["qk_rope_head_dim"]!, nopeDim = (int)config["qk_nope_head_dim"]!, valueDim = (int)config["v_head_dim"]!;
        bool biased = config["attention_bias"]!.GetValue<bool>();
        if (config["q_lora_rank"]?.GetValue<int>() is { } queryRank)
        {
            AddLinear(model, name + "q_a_proj", queryRank, hidden, biased);
            model.AddGain(name + "q_a_layernorm.weight", queryRank);
            AddLinear(model, name + "q_b_proj", heads * (nopeDim + ropeDim), queryRank, false);
        }
        else
        {
            AddLinear(model, name + "q_proj", heads * (nopeDim + ropeDim), hidden, false);
        }
        AddLinear(model, name + "kv_a_proj_with_mqa", rank + ropeDim, hidden, biased);
        model.AddGain(name + "kv_a_layernorm.weight", rank);
        AddLinear(model, name + "kv_b_proj", heads * (nopeDim + valueDim), rank, false);
        AddLinear(model, name + "o_proj", hidden, heads * valueDim, biased);
    }

    private static void AddFeedForward(TinyModel model, int layer, string prefix)
    {
        JsonObject config = model.Config;
        string family = Family(model.Name), mixture = prefix + Mixture(config);
        int hidden = (int)config["hidden_size"]!, experts = Experts(config), width = Width(config);
        if (!IsSparse(config, layer))
        {
            AddMlp(model, prefix + "mlp.", hidden, (int)config["intermediate_size"]!, ("gate_proj", "up_proj", "down_proj"));
            return;
        }
        if (family == "gpt_oss")
        {
            AddLinear(model, mixture + "router", experts, hidden, true);
            AddFused(model, mixture + "experts.", experts, hidden, width);
            return;
        }
        if (config["moe_router_type"] is { } cell && (string)cell! is "gru" or "rnn")
        {
            int state = (int)config["moe_router_rnn_hidden_size"]!;
            model.AddMatrix(mixture + "weight1", state, hidden, hidden);
            model.Add(mixture + "weight2", [experts, state], 0, 3 / Math.Sqrt(state));
        }
        else
        {
            model.AddMatrix(mixture + "gate.weight", experts, hidden, hidden);
        }
        if (family == "deepseek_v3")
        {
            model.Add(mixture + "gate.e_score_correction_bias", [experts], -0.3, 0.4);
        }
        for (int expert = 0; expert < experts; expert++)
        {
            AddMlp(model, $"{mixture}experts.{expert}.", hidden, width, Projections(config));
        }
        if (family == "qwen2_moe")
        {
            AddMlp(model, mixture + "shared_expert.", hidden, (int)config["shared_expert_intermediate_size"]!, Projections(config));
            model.AddMatrix(mixture + "shared_expert_gate.weight", 1, hidden, hidden);
        }
        if (config["n_shared_experts"]?.GetValue<int>() is { } shared)
        {
            AddMlp(model, mixture + "shared_experts.", hidden, shared * width, Projections(config));
        }
        if (config["add_moe_bias"]?.GetValue<bool>() == true)
        {
            model.AddBias(mixture + "bias", hidden);
        }
        if (config["add_moe_share_expert"]?.GetValue<bool>() == true)
        {
            int sharedWidth = (config["moe_share_expert_intermediate_size"] ?? config["intermediate_size"])!.GetValue<int>();
            AddMlp(model, prefix + "mlp_share.", hidden, sharedWidth, ("gate_proj", "up_proj", "down_proj"));
        }
    }

    /// <summary>gpt-oss' experts: matrices [experts, in, out] of numbers that MXFP4 holds exactly, gate and up in turn, and biases.</summary>
    private static void AddFused(TinyModel model, string experts, int count, int hidden, int width)
    {
        Add("gate_up_proj", hidden, 2 * width);
        Add("down_proj", width, hidden);

        void Add(string name, int inputs, int outputs)
        {
            model.Add(experts + name, [count, inputs, outputs], Mxfp4.Draw);
            float[] values = model.Tensors[experts + name].Values;
            for (int i = 0; i < values.Length; i++)
            {
                // Blocks, which run along the inputs, have different scales.
                int block = i / outputs / 32, output = i % outputs;
                values[i] *= ((block + output) % 3) switch { 0 => 0.5f, 1 => 1, _ => 2 };
            }
            model.Add(experts + name + "_bias", [count, outputs], 0, 0.4);
        }
    }

    private static void AddMlp(TinyModel model, string name, int hidden, int width, (string Gate, string Up, string Down) names)
    {
        AddLinear(model, name + names.Gate, width, hidden, false);
        AddLinear(model, name + names.Up, width, hidden, false);
        AddLinear(model, name + names.Down, hidden, width, false);
    }

    private static void AddCell(TinyModel model, string type, int width)
    {
        foreach (string gate in type switch { "gru" => (string[])["r", "z", "n"], "rnn" => ["n"], _ => [] })
        {
            foreach (string side in (string[])["i", "h"])
            {
                model.AddMatrix($"model.rnn_router.weight_{side}{gate}", width, width, width);
                model.AddBias($"model.rnn_router.bias_{side}{gate}", width);
            }
        }
    }

    private static void AddLinear(TinyModel model, string name, int outputs, int inputs, bool bias)
    {
        model.AddMatrix(name + ".weight", outputs, inputs, inputs);
        if (bias)
        {
            model.AddBias(name + ".bias", outputs);
        }
    }
}
