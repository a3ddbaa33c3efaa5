using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// Layers as architecture search left them (Bercovich et al. 2024, Puzzle: Nemotron-NAS; DeciLM): <c>block_configs</c> says of each layer's attention how many
/// query heads share keys and values, and of its feed-forward how wide it is, or that it is gone, or a matrix. DeciLM-7B has
/// <c>num_key_value_heads_per_layer</c> instead. Source of the rules: the models' own <c>configuration_decilm.py</c>.
/// </summary>
internal static class BlockConfigs
{
    private const string Key = "block_configs", KvKey = "num_key_value_heads_per_layer";

    private const int WidthMultiple = 256;

    /// <summary>The configuration with arrays (<see cref="PrunedConfig"/>) for these keys, or null where it has none of them.</summary>
    /// <param name="config">The configuration; stays as it is.</param>
    /// <param name="file">Where it is from, for messages.</param>
    /// <exception cref="EngineException">A layer asks for what is not supported, or a key is malformed.</exception>
    public static JsonObject? Translate(JsonObject config, string file)
    {
        if (config[Key] is null && config[KvKey] is null)
        {
            return null;
        }
        var translated = (JsonObject)config.DeepClone();
        translated.Remove(Key);
        translated.Remove(KvKey);
        if (config[KvKey] is { } perLayer)
        {
            translated[PrunedConfig.KvHeads] = perLayer.DeepClone();
        }
        if (config[Key] is { } blocks)
        {
            Translate(blocks as JsonArray ?? throw Wrong(file, Key, "an array", blocks), translated, file);
        }
        return ConfigJson.Normalize(translated);
    }

    private static void Translate(JsonArray blocks, JsonObject config, string file)
    {
        int layers = Require(config, PrunedConfig.Layers, file), heads = Require(config, PrunedConfig.Heads, file);
        int hidden = Require(config, PrunedConfig.Hidden, file);
        if (blocks.Count != layers)
        {
            throw new EngineException($"expected {layers} entries, one per layer; found {blocks.Count}", file, Key);
        }
        if (PrunedConfig.Count(config, PrunedConfig.HeadDim) is null)
        {
            config[PrunedConfig.HeadDim] = hidden % heads == 0
                ? hidden / heads
                : throw new EngineException($"expected a divisor of hidden_size, {hidden}; found {heads}", file, PrunedConfig.Heads);
        }
        var queries = new int[layers];
        var keys = new int[layers];
        var widths = new int[layers];
        for (int layer = 0; layer < layers; layer++)
        {
            string place = $"{Key}[{layer}]";
            (queries[layer], keys[layer]) = Attention(Section(blocks[layer], "attention", place, file), heads, $"{place}.attention", file);
            widths[layer] = Width(Section(blocks[layer], "ffn", place, file), hidden, config, $"{place}.ffn", file);
        }
        PrunedConfig.Set(config, PrunedConfig.Heads, queries);
        PrunedConfig.Set(config, PrunedConfig.KvHeads, keys);
        PrunedConfig.Set(config, PrunedConfig.Width, widths);
    }

    private static (int Heads, int KvHeads) Attention(JsonObject attention, int heads, string place, string file)
    {
        RequireNeutral(attention, place, file, "n_heads_in_group", "no_op", "replace_with_linear", PrunedConfig.KvHeads);
        if (Flag(attention, "no_op", place, file))
        {
            return (0, 0);
        }
        if (Flag(attention, "replace_with_linear", place, file))
        {
            return (heads, 0);
        }
        if (PrunedConfig.Count(attention, PrunedConfig.KvHeads) is { } kvHeads)
        {
            return (heads, kvHeads);
        }
        return PrunedConfig.Count(attention, "n_heads_in_group") is { } group && heads % group == 0
            ? (heads, heads / group)
            : throw Wrong(file, $"{place}.n_heads_in_group", $"a divisor of the {heads} heads", attention["n_heads_in_group"]);
    }

    private static int Width(JsonObject feedForward, int hidden, JsonObject config, string place, string file)
    {
        const string activation = "hidden_act", gated = "gated";
        RequireNeutral(feedForward, place, file, "ffn_mult", PrunedConfig.Width, "no_op", "replace_with_linear", activation, gated);
        if (feedForward[activation] is { } own && !JsonNode.DeepEquals(own, config[activation] ?? "silu"))
        {
            throw Wrong(file, $"{place}.{activation}", "the model's own", own);
        }
        if (feedForward[gated] is { } gate && gate.GetValueKind() != JsonValueKind.True)
        {
            throw Wrong(file, $"{place}.{gated}", "true", gate);
        }
        // A matrix in place of it is told by its tensor.
        if (Flag(feedForward, "no_op", place, file) || Flag(feedForward, "replace_with_linear", place, file))
        {
            return 0;
        }
        if (PrunedConfig.Count(feedForward, PrunedConfig.Width) is { } width)
        {
            return width;
        }
        if (feedForward["ffn_mult"] is JsonValue value && value.GetValueKind() == JsonValueKind.Number && value.TryGetValue(out double factor)
            && factor > 0 && factor * hidden < int.MaxValue)
        {
            return ((int)(2 * factor * hidden / 3) + WidthMultiple - 1) / WidthMultiple * WidthMultiple;
        }
        throw Wrong(file, $"{place}.ffn_mult", "a number above zero", feedForward["ffn_mult"]);
    }

    /// <summary>What is not known here must be absent or off: windows, sinks, mixtures, state spaces.</summary>
    private static void RequireNeutral(JsonObject section, string place, string file, params ReadOnlySpan<string> known)
    {
        foreach ((string key, JsonNode? node) in section)
        {
            if (node is not null && node.GetValueKind() != JsonValueKind.False && !known.Contains(key))
            {
                throw new EngineException($"this kind of layer is not supported; found {node.ToJsonString()}", file, $"{place}.{key}");
            }
        }
    }

    private static JsonObject Section(JsonNode? block, string key, string place, string file) =>
        block is not JsonObject sections ? throw Wrong(file, place, "an object", block)
        : sections[key] as JsonObject ?? throw Wrong(file, $"{place}.{key}", "an object", sections[key]);

    private static bool Flag(JsonObject section, string key, string place, string file) => section[key] switch
    {
        null => false,
        { } node when node.GetValueKind() is JsonValueKind.True or JsonValueKind.False => node.GetValueKind() == JsonValueKind.True,
        { } node => throw Wrong(file, $"{place}.{key}", "true or false", node),
    };

    private static int Require(JsonObject config, string key, string file) =>
        PrunedConfig.Count(config, key) ?? throw Wrong(file, key, "a whole number above zero", config[key]);

    private static EngineException Wrong(string file, string key, string expected, JsonNode? found) =>
        new($"expected {expected}; found {found?.ToJsonString() ?? "none"}", file, key);
}
