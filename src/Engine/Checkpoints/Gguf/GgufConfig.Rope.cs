using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Gguf;

/// <summary>Rotary embeddings.</summary>
internal sealed partial class GgufConfig
{
    private const string AttentionFactorKey = "rope.scaling.attn_factor";

    /// <param name="architecture">The architecture.</param>
    /// <param name="headDim">Elements of a head, of which a part may be rotated; null where the number of rotated ones is said otherwise.</param>
    /// <param name="pairing">Which elements rotate together.</param>
    private void BuildRope(GgufArchitecture architecture, long? headDim, string pairing)
    {
        config["rope_theta"] = Number("rope.freq_base") ?? 10000.0;
        config["rope_pairing"] = pairing;
        if (headDim is { } elements && Integer("rope.dimension_count") is { } rotated && rotated != elements)
            config["partial_rotary_factor"] = (double)rotated / elements;
        if (Has(GgufVocabulary.ShortFactorsTensor) || Has(GgufVocabulary.LongFactorsTensor))
        {
            BuildLongRope();
            return;
        }
        if (Has(GgufVocabulary.RopeFactorsTensor))
            config["rope_factors_tensor"] = GgufVocabulary.RopeFactorsTensor;

        string? type = source.Metadata.GetString(prefix + "rope.scaling.type", source.Path);
        double? factor = Number("rope.scaling.factor");
        if (type is null && Number("rope.scale_linear") is { } oldFactor)
            (type, factor) = ("linear", oldFactor);
        if (type is null or "none" || factor is null or 0)
        {
            if (type is not (null or "none"))
                throw Missing("rope.scaling.factor");
            return;
        }
        var scaling = new JsonObject { ["rope_type"] = type, ["factor"] = factor };
        if (Integer("rope.scaling.original_context_length") is { } original)
            scaling["original_max_position_embeddings"] = original;
        if (type == "yarn")
        {
            double? attention = Number(AttentionFactorKey);
            if (architecture.Name == GgufArchitecture.DeepSeek2)
                AddLogMultiplier(scaling, attention);
            // GGUF's factor multiplies YaRN's own 0.1·ln(factor) + 1 (Peng et al. 2023, §3.4); Hugging Face's replaces it.
            else if (attention is not (null or 1))
                scaling["attention_factor"] = attention.Value * (0.1 * Math.Log(factor.Value) + 1);
            if (Number("rope.scaling.yarn_beta_fast") is { } fast)
                scaling["beta_fast"] = fast;
            if (Number("rope.scaling.yarn_beta_slow") is { } slow)
                scaling["beta_slow"] = slow;
            // The one family whose bounds are not rounded; GGUF has no key for it, and llama.cpp rounds them all the same.
            if (architecture.Name == GgufArchitecture.GptOss)
                scaling["truncate"] = false;
        }
        config["rope_scaling"] = scaling;
    }

    /// <summary>
    /// LongRoPE is there where its two tables are: converters of Phi write no <c>rope.scaling.type</c>. One magnitude stands for both (llama.cpp).
    /// </summary>
    private void BuildLongRope()
    {
        if (Has(GgufVocabulary.RopeFactorsTensor))
            throw new EngineException($"{GgufVocabulary.RopeFactorsTensor} and the tables of LongRoPE cannot both apply", source.Path);
        config["rope_short_factors_tensor"] = GgufVocabulary.ShortFactorsTensor;
        config["rope_long_factors_tensor"] = GgufVocabulary.LongFactorsTensor;
        config["rope_scaling"] = new JsonObject
        {
            ["rope_type"] = "longrope",
            ["original_max_position_embeddings"] = Required("rope.scaling.original_context_length"),
            ["attention_factor"] = Number(AttentionFactorKey) ?? 1,
        };
    }

    /// <summary>
    /// <c>yarn_log_multiplier</c> is a tenth of <c>mscale_all_dim</c>, and <c>mscale</c>, which has no key, the same (llama.cpp, conversion/deepseek.py): the
    /// rotation's own magnitude is 1 then, and only scores are scaled.
    /// </summary>
    private void AddLogMultiplier(JsonObject scaling, double? attention)
    {
        if (attention is not (null or 1))
            throw new EngineException($"expected 1 in {GgufArchitecture.DeepSeek2}, found {attention}", source.Path, prefix + AttentionFactorKey);
        if (Number("rope.scaling.yarn_log_multiplier") is { } tenth && tenth != 0)
            (scaling["mscale"], scaling["mscale_all_dim"]) = (tenth * 10, tenth * 10);
    }
}
