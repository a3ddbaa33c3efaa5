using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// Keys of a configuration that say what layers have, and their form where layers differ: an array with a number per layer, in which 0 is for what a layer lacks.
/// No query heads are no attention; query heads without key and value heads are a matrix in place of it, as in GGUF's architecture <c>deci</c>.
/// </summary>
internal static class PrunedConfig
{
    public const string Heads = "num_attention_heads", KvHeads = "num_key_value_heads", HeadDim = "head_dim", Width = "intermediate_size",
        Layers = "num_hidden_layers", Hidden = "hidden_size";

    /// <summary>A whole number above zero; null where there is none or the key holds something else, which the family's reader complains about.</summary>
    public static int? Count(JsonObject config, string key) =>
        config[key] is JsonValue value && value.GetValueKind() == JsonValueKind.Number && value.TryGetValue(out int number) && number > 0 ? number : null;

    /// <summary>Writes a number per layer, or one where all are the same.</summary>
    public static void Set(JsonObject config, string key, IReadOnlyList<int> perLayer) =>
        config[key] = perLayer.Distinct().Count() == 1 && perLayer[0] > 0
            ? perLayer[0]
            : new JsonArray([.. perLayer.Select(static number => JsonValue.Create(number))]);
}
