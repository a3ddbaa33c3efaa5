using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Plans.Readers;

/// <summary>
/// Keys of other models' configurations that would change the numbers if they were obeyed. A family that does not obey them refuses a value
/// other than the neutral one rather than ignoring it.
/// </summary>
internal static class NeutralFields
{
    private static readonly (string[] Keys, Func<JsonNode, bool> IsNeutral, string Meaning)[] Fields =
    [
        (["quantization_config", "compression_config"], static _ => false, "weights in this quantization format are not supported yet"),
        (["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok"], IsZero,
            "this family has no mixtures of experts"),
        (["n_group", "topk_group", "routed_scaling_factor"], IsOne, "this family's router has no groups and no scale"),
        (["parscale_n"], IsOne, "this family has no parallel streams"),
        (["mor", "kv_sharing"], IsDisabled, "this family has no recursion"),
        (["attn_logit_softcapping", "final_logit_softcapping", "attn_logit_softcap", "clip_qkv"], IsZero,
            "capped activations are not supported"),
        (["logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier", "scale_emb", "lm_head_multiplier",
            "rope_ratio"], IsOne,
            "scaled activations are not supported"),
        (["attention_multiplier", "query_pre_attn_scalar", "scale_depth", "dim_model_base", "mup_width_multiplier"], static _ => false,
            "scaled activations are not supported"),
        (["alibi", "use_alibi", "use_mrope", "use_parallel_residual", "parallel_attn", "add_cross_attention", "is_encoder_decoder",
            "use_bidirectional_attention", "apply_residual_connection_post_layernorm"], IsFalse, "this variant is not supported"),
        (["is_causal", "causal"], IsTrue, "only causal attention is supported"),
        (["block_configs", "num_key_value_heads_per_layer"], static _ => false, "this family has no layers of several kinds"),
        (["no_rope_layers", "attention_chunk_size"], static _ => false, "this variant is not supported"),
    ];

    /// <summary>Refuses a configuration that asks for what the family does not compute.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="obeyed">Keys that the family reads itself.</param>
    /// <exception cref="EngineException">A field is not neutral.</exception>
    public static void Require(ConfigReader config, params ReadOnlySpan<string> obeyed)
    {
        foreach ((string[] keys, Func<JsonNode, bool> isNeutral, string meaning) in Fields)
        {
            foreach (string key in keys)
            {
                if (!obeyed.Contains(key) && config.Node(key) is { } node && !isNeutral(node))
                {
                    throw config.Error(key, $"{meaning}; found {ConfigReader.Show(node)}");
                }
            }
        }
    }

    private static bool IsZero(JsonNode node) => ConfigReader.ToNumber(node) == 0;

    private static bool IsOne(JsonNode node) => ConfigReader.ToNumber(node) == 1;

    private static bool IsTrue(JsonNode node) => node.GetValueKind() == JsonValueKind.True;

    private static bool IsDisabled(JsonNode node) =>
        node is JsonObject section && section["enable"] is { } enable && enable.GetValueKind() == JsonValueKind.False;

    private static bool IsFalse(JsonNode node) => node.GetValueKind() == JsonValueKind.False;
}
