namespace Engine.Checkpoints.Gguf;

/// <summary>DeepSeek-V2 and -V3, which are one architecture in GGUF (llama.cpp, src/models/deepseek2.cpp).</summary>
internal sealed partial class GgufConfig
{
    /// <summary><c>LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID</c>.</summary>
    private const long SigmoidGating = 2;

    /// <summary>
    /// Ranks and widths of latent attention. Files whose keys and values are absorbed (2025-04 and later) describe the heads that are cached, and under
    /// <c>…_mla</c> those of the model; earlier ones have the model's.
    /// </summary>
    private void BuildLatent()
    {
        bool isAbsorbed = Integer("attention.key_length_mla") is not null || Integer("attention.value_length_mla") is not null;
        string keyName = isAbsorbed ? "attention.key_length_mla" : "attention.key_length";
        string valueName = isAbsorbed ? "attention.value_length_mla" : "attention.value_length";
        long key = Required(keyName), rotated = Required("rope.dimension_count");
        if (key <= rotated)
            throw new EngineException($"expected more than the {rotated} rotated elements, found {key}", source.Path, prefix + keyName);
        config["kv_lora_rank"] = Required("attention.kv_lora_rank");
        config["qk_rope_head_dim"] = rotated;
        config["qk_nope_head_dim"] = key - rotated;
        config["v_head_dim"] = Required(valueName);
        // Absent, or 0, in models that do not compress queries.
        if (Integer("attention.q_lora_rank") is > 0 and var queryRank)
            config["q_lora_rank"] = queryRank;
    }

    /// <summary>
    /// The gating function tells the versions apart. Files without it are DeepSeek-V2's, and without groups choose among all experts. V2's code normalises or
    /// scales, V3's may do both.
    /// </summary>
    /// <exception cref="EngineException">The function is another, or a softmax is normalised and scaled.</exception>
    private void BuildDeepSeekRouter()
    {
        long gating = Integer(GatingKey) ?? 0;
        if (gating is not (0 or SoftmaxGating or SigmoidGating))
            throw new EngineException($"expected {SoftmaxGating} (softmax) or {SigmoidGating} (sigmoid), found {gating}", source.Path, prefix + GatingKey);
        double scale = Number("expert_weights_scale") is { } found && found != 0 ? found : 1;
        config["routed_scaling_factor"] = scale;
        if (gating == SigmoidGating)
        {
            config["model_type"] = "deepseek_v3";
            config["scoring_func"] = "sigmoid";
            config["topk_method"] = "noaux_tc";
            return;
        }
        config["scoring_func"] = "softmax";
        config["topk_method"] = Integer("expert_group_count") > 1 ? "group_limited_greedy" : "greedy";
        if (scale != 1 && config["norm_topk_prob"]!.GetValue<bool>())
        {
            throw new EngineException(
                $"expected 1 where the weights of a softmax are normalised, found {scale}", source.Path, prefix + "expert_weights_scale");
        }
    }
}
