namespace Engine.Checkpoints.Writing;

/// <summary>DeepSeek-V2 and -V3, as llama.cpp's conversion/deepseek.py writes them.</summary>
internal sealed partial class HfConfig
{
    /// <summary>Elements of a head's key that are made from the latent, and of its value.</summary>
    public (int Keys, int Values) LatentHead => ((int)Integer("qk_nope_head_dim"), (int)Integer("v_head_dim"));

    /// <summary>Query heads.</summary>
    public int Heads => (int)Integer("num_attention_heads");

    /// <summary>The tensor belongs to layers behind the last, which predict further tokens: llama.cpp leaves them out.</summary>
    public bool IsBehindLastLayer(string tensor) => ModelType == "deepseek_v3" && PredictionLayers.Contains(
        tensor, Layers, (int)(Number(config, "num_nextn_predict_layers") ?? PredictionLayers.UsualCount));

    private void AddLatent(Action<string, object> add)
    {
        Refuse("rope_interleave", Flag("rope_interleave") == false);
        Refuse("attention_bias", Flag("attention_bias") == true);
        long rank = Integer("kv_lora_rank"), rotated = Integer("qk_rope_head_dim");
        (int keys, int values) = LatentHead;
        // All heads share what is cached, the latent and a rotated key.
        add("attention.head_count_kv", 1u);
        if (Optional("q_lora_rank") is { } queryRank)
            add("attention.q_lora_rank", (uint)queryRank);
        add("attention.kv_lora_rank", (uint)rank);
        add("attention.key_length", (uint)(rank + rotated));
        add("attention.value_length", (uint)rank);
        add("attention.key_length_mla", (uint)(keys + rotated));
        add("attention.value_length_mla", (uint)values);
    }

    /// <summary>
    /// Groups are written where they are used, and a scale where it is: DeepSeek's code for a softmax either normalises or scales, llama.cpp does both. With one
    /// expert per token DeepSeek's code normalises nothing.
    /// </summary>
    private void AddDeepSeekRouter(Action<string, object> add)
    {
        const string Greedy = "greedy", GroupLimited = "group_limited_greedy", LossFree = "noaux_tc";
        const uint Softmax = 1, Sigmoid = 2;
        string method = Text(config, "topk_method") ?? (ModelType == "deepseek_v3" ? LossFree : Greedy);
        if (method is not (Greedy or GroupLimited or LossFree))
            throw Wrong("topk_method", $"{Greedy}, {GroupLimited} or {LossFree}");
        RequireOneOf("scoring_func", method == LossFree ? "sigmoid" : "softmax");
        // The versions have other defaults: what is computed must be written.
        bool normalizes = (Flag("norm_topk_prob") ?? throw Wrong("norm_topk_prob", "true or false")) && Integer("num_experts_per_tok") > 1;
        double scale = Number(config, "routed_scaling_factor") ?? throw Wrong("routed_scaling_factor", "a number");
        add("expert_gating_func", method == LossFree ? Sigmoid : Softmax);
        add("expert_weights_norm", normalizes);
        add("expert_weights_scale", normalizes && method != LossFree ? 1f : (float)scale);
        if (method != Greedy && Optional("n_group") is { } groups)
        {
            add("expert_group_count", (uint)groups);
            add("expert_group_used_count", (uint)(Optional("topk_group") ?? groups));
        }
    }
}
