using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Plans.Readers;

/// <summary>Where families differ on which layers see a window only.</summary>
internal static class SlidingWindows
{
    private const string Full = "full_attention";
    private const string Sliding = "sliding_attention";

    private const int DefaultMaxWindowLayers = 28; // Hugging Face's default for Qwen 2 and 3

    /// <summary>
    /// No layer has a window (llama). A window that could matter is refused: implementations disagree on whether a llama obeys it.
    /// </summary>
    public static int?[] None(ConfigReader config, int layers)
    {
        if (config.CountOrNull("sliding_window") is { } window && config.Flag("use_sliding_window", true)
            && window < config.Count("max_position_embeddings"))
        {
            throw config.Error("sliding_window", $"this family has no sliding window; found {window}");
        }
        return LayerTypes(config, layers, null) ?? new int?[layers];
    }

    /// <summary>All layers have the window, where there is one, or those that <c>layer_types</c> names.</summary>
    public static int?[] All(ConfigReader config, int layers)
    {
        int? window = config.CountOrNull("sliding_window");
        return LayerTypes(config, layers, window) ?? From(0, window, layers);
    }

    /// <summary>
    /// Qwen: layers from <c>max_window_layers</c> on have the window, where <c>use_sliding_window</c> is true; <c>layer_types</c> overrules
    /// the count.
    /// </summary>
    public static int?[] AboveMaxWindowLayers(ConfigReader config, int layers)
    {
        int? window = config.Flag("use_sliding_window", false) ? config.CountOrNull("sliding_window") : null;
        double first = config.Number("max_window_layers", DefaultMaxWindowLayers);
        return LayerTypes(config, layers, window) ?? From(first, window, layers);
    }

    /// <summary>gpt-oss: the first layer, the third and so on have the window, unless <c>layer_types</c> says which.</summary>
    public static int?[] EveryOther(ConfigReader config, int layers)
    {
        int? window = config.CountOrNull("sliding_window");
        return LayerTypes(config, layers, window) ?? [.. Enumerable.Range(0, layers).Select(layer => layer % 2 == 0 ? window : null)];
    }

    /// <summary>Layers from <paramref name="first"/> on have the window.</summary>
    public static int?[] From(double first, int? window, int layers) =>
        [.. Enumerable.Range(0, layers).Select(layer => layer >= first ? window : null)];

    /// <summary>The windows that <c>layer_types</c> names, or null where the key is absent.</summary>
    public static int?[]? LayerTypes(ConfigReader config, int layers, int? window)
    {
        if (config.Node("layer_types") is not { } node)
        {
            return null;
        }
        if (node is not JsonArray types || types.Count != layers)
        {
            throw config.Error("layer_types", $"expected an array of {layers} strings, one per layer; found {ConfigReader.Show(node)}");
        }
        return [.. types.Select((type, layer) => (type?.GetValueKind() == JsonValueKind.String ? type.GetValue<string>() : null) switch
        {
            Full => (int?)null,
            Sliding when window is not null => window,
            _ => throw config.Error($"layer_types[{layer}]",
                $"expected '{Full}'{(window is null ? "" : $" or '{Sliding}'")}; found {ConfigReader.Show(type)}"),
        })];
    }
}
