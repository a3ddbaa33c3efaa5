using System.Text.Json.Nodes;
using Engine.Checkpoints.Gguf;

namespace Engine.Checkpoints.Writing;

/// <summary>Rotary embeddings.</summary>
internal sealed partial class HfConfig
{
    /// <summary>Tables of divisors of the inverse frequencies, [rotated elements / 2], that GGUF stores as tensors, with their names.</summary>
    public IEnumerable<(string Name, float[] Factors)> RopeFactors()
    {
        if (Scaling is { } scaling && ScalingType(scaling) == "longrope")
        {
            yield return (GgufVocabulary.ShortFactorsTensor, LongRopeFactors(scaling, "short_factor"));
            yield return (GgufVocabulary.LongFactorsTensor, LongRopeFactors(scaling, "long_factor"));
        }
        else if (Llama3Factors() is { } factors)
        {
            yield return (GgufVocabulary.RopeFactorsTensor, factors);
        }
    }

    /// <summary>Elements of a head that are rotated.</summary>
    private int RotatedDim => (int)(Optional("qk_rope_head_dim") ?? HeadDim);

    /// <summary>
    /// Llama 3's scaling as divisors of the inverse frequencies, [rotated elements / 2]: long wavelengths are stretched by the factor, short ones
    /// are kept, those between are interpolated (Llama 3.1 model card; transformers, <c>_compute_llama3_parameters</c>). Null for other
    /// models.
    /// </summary>
    private float[]? Llama3Factors()
    {
        if (Scaling is not { } scaling || ScalingType(scaling) != "llama3")
            return null;
        double factor = Needed(scaling, "factor"), low = Needed(scaling, "low_freq_factor"), high = Needed(scaling, "high_freq_factor");
        double original = Needed(scaling, "original_max_position_embeddings");
        var factors = new float[RotatedDim / 2];
        for (int pair = 0; pair < factors.Length; pair++)
        {
            double wavelength = 2 * Math.PI * Math.Pow(RopeTheta, 2.0 * pair / RotatedDim);
            double smooth = Math.Clamp((original / wavelength - low) / (high - low), 0, 1);
            factors[pair] = (float)(1 / ((1 - smooth) / factor + smooth));
        }
        return factors;
    }

    // transformers 5 moved the base and the scaling into one object.
    private JsonObject? Scaling => (config["rope_scaling"] ?? config["rope_parameters"]) as JsonObject;

    private double RopeTheta => Number(config, "rope_theta") ?? (Scaling is { } scaling ? Number(scaling, "rope_theta") : null)
        ?? (ModelType == GptOssType ? throw Wrong("rope_theta", "a number") : 10000.0);

    private void AddScaling(GgufArchitecture architecture, Action<string, object> add)
    {
        if (Scaling is not { } scaling || ScalingType(scaling) is "default" or "llama3")
            return;
        string type = ScalingType(scaling);
        if (type == "longrope")
        {
            AddLongRope(scaling, add);
            return;
        }
        if (type is not ("linear" or "yarn"))
            throw new EngineException($"rotary scaling {type} cannot be stored in GGUF here", source.Path, "rope_scaling");
        if (architecture.Name == GgufArchitecture.DeepSeek2)
            AddLogMultiplier(scaling, add);
        else
            Refuse("rope_scaling", scaling["mscale"] is not null || scaling["mscale_all_dim"] is not null, "mscale");
        // The bounds of gpt-oss, and of no other family, are not rounded where its file is read.
        Refuse("rope_scaling", ModelType == GptOssType
            ? scaling["truncate"] is not JsonValue truncate || !truncate.TryGetValue(out bool rounds) || rounds
            : scaling["truncate"] is not null, "truncate");
        double factor = Needed(scaling, "factor");
        add("rope.scaling.type", type);
        add("rope.scaling.factor", (float)factor);
        if (Number(scaling, "original_max_position_embeddings") is { } original)
            add("rope.scaling.original_context_length", (uint)original);
        if (type == "yarn" && Number(scaling, "attention_factor") is { } attention)
            add("rope.scaling.attn_factor", (float)(attention / (0.1 * Math.Log(factor) + 1)));
        if (Number(scaling, "beta_fast") is { } fast)
            add("rope.scaling.yarn_beta_fast", (float)fast);
        if (Number(scaling, "beta_slow") is { } slow)
            add("rope.scaling.yarn_beta_slow", (float)slow);
    }

    /// <summary>The tables of <see cref="RopeFactors"/> go with one magnitude, whatever the length.</summary>
    private void AddLongRope(JsonObject scaling, Action<string, object> add)
    {
        double magnitude = Number(scaling, "short_mscale") ?? Needed(scaling, "attention_factor");
        Refuse("rope_scaling", Number(scaling, "long_mscale") is { } other && other != magnitude, "long_mscale");
        add("rope.scaling.type", "longrope");
        add("rope.scaling.original_context_length", (uint)OriginalContext(scaling));
        add("rope.scaling.attn_factor", (float)magnitude);
    }

    /// <summary>A tenth of <c>mscale_all_dim</c>; llama.cpp takes <c>mscale</c> for the same.</summary>
    private void AddLogMultiplier(JsonObject scaling, Action<string, object> add)
    {
        double multiplier = Number(scaling, "mscale") ?? 0, multiplierOfAll = Number(scaling, "mscale_all_dim") ?? 0;
        Refuse("rope_scaling", multiplierOfAll != 0 && multiplier != multiplierOfAll, "mscale");
        Refuse("rope_scaling", Number(scaling, "attention_factor") is not null, "attention_factor");
        if (multiplierOfAll != 0)
            add("rope.scaling.yarn_log_multiplier", (float)(0.1 * multiplierOfAll));
    }

    private double OriginalContext(JsonObject scaling) => Number(scaling, "original_max_position_embeddings")
        ?? Number(config, "original_max_position_embeddings") ?? Needed(scaling, "original_max_position_embeddings");

    private float[] LongRopeFactors(JsonObject scaling, string key)
    {
        if (scaling[key] is JsonArray array && array.Count == RotatedDim / 2)
        {
            float[] factors = [.. array.Select(static node => node is JsonValue value && value.TryGetValue(out double factor) ? (float)factor : float.NaN)];
            if (Array.TrueForAll(factors, static factor => factor > 0 && float.IsFinite(factor)))
                return factors;
        }
        throw Wrong($"rope_scaling.{key}", $"{RotatedDim / 2} numbers above zero");
    }

    private string ScalingType(JsonObject scaling) => Text(scaling, "rope_type") ?? Text(scaling, "type") ?? "default";

    private double Needed(JsonObject scaling, string key) => Number(scaling, key) ?? throw Wrong($"rope_scaling.{key}", "a number");
}
