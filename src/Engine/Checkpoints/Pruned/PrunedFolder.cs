using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// A Hugging Face folder whose layers were pruned one by one, as readers and converters know such models: configurations of pruning tools (LLM-Pruner: Ma et al.
/// 2023; ShortGPT: Men et al. 2024; LLM-Drop: He et al. 2024) say what the model had before, and shapes say what is left. Here the configuration has a number per
/// layer (<see cref="PrunedConfig"/>), layers are numbered without gaps, and norms of sublayers that are gone are not seen. Weights stay as they are.
/// </summary>
internal sealed class PrunedFolder : Checkpoint
{
    private static readonly string[] families = ["llama", "mistral", "qwen2", "qwen3", "deci", "nemotron-nas"];

    private readonly Checkpoint source;
    private readonly OrderedDictionary<string, string> names;

    private PrunedFolder(Checkpoint source, OrderedDictionary<string, string> names, JsonObject config)
    {
        this.source = source;
        this.names = names;
        Config = config;
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => names.Keys;

    /// <inheritdoc/>
    public override JsonObject Config { get; }

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <summary>The folder as it is read; itself where it was not pruned. Owns it from here on, but not where this fails.</summary>
    /// <param name="source">A folder with a configuration.</param>
    /// <exception cref="EngineException">What is left of a layer cannot be told.</exception>
    public static Checkpoint Open(Checkpoint source)
    {
        JsonObject config = source.Config;
        if (config["model_type"] is not JsonValue type || !type.TryGetValue(out string? family) || !families.Contains(family) || config["mor"] is not null)
        {
            return source;
        }
        string prefix = source.TensorNames.Any(static name => name.StartsWith("model.", StringComparison.Ordinal)) ? "model.layers." : "layers.";
        if (BlockConfigs.Translate(config, source.Path) is { } translated)
        {
            return new PrunedFolder(source, Names(source, prefix, [], []), translated);
        }
        if (PrunedConfig.Count(config, PrunedConfig.Layers) is not { } count)
        {
            return source;
        }
        SortedDictionary<int, StoredLayer> stored = StoredLayer.Find(source, prefix);
        if (stored.Count != count)
        {
            return source; // what is missing or left over is said by the family's reader
        }
        StoredLayer[] layers = [.. stored.Values];
        JsonObject? narrowed = Narrowed(config, stored, source.Path);
        bool gaps = stored.Keys.Last() != count - 1;
        return narrowed is null && !gaps
            ? source
            : new PrunedFolder(source, Names(source, prefix, [.. stored.Keys], layers), narrowed ?? config);
    }

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        tensor = null;
        if (!names.TryGetValue(name, out string? stored) || !source.TryGetTensor(stored, out tensor))
        {
            return false;
        }
        tensor = stored == name ? tensor : tensor with { Name = name };
        return true;
    }

    /// <inheritdoc/>
    public override bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline)
    {
        outline = null;
        if (!names.TryGetValue(name, out string? stored) || !source.TryGetOutline(stored, out outline))
        {
            return false;
        }
        outline = stored == name ? outline : outline with { Name = name };
        return true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            source.Dispose();
        }
        base.Dispose(disposing);
    }

    /// <summary>Names here and in the folder: layers in the order of their numbers, without norms that nothing follows.</summary>
    private static OrderedDictionary<string, string> Names(Checkpoint source, string prefix, int[] numbers, StoredLayer[] layers)
    {
        var names = new OrderedDictionary<string, string>();
        foreach (string tensor in source.TensorNames)
        {
            string name = tensor;
            if (numbers.Length > 0 && StoredLayer.Split(tensor, prefix) is (var number, var inLayer))
            {
                int layer = Array.BinarySearch(numbers, number);
                if ((!layers[layer].HasAttention && inLayer.StartsWith(StoredLayer.AttentionNorm, StringComparison.Ordinal))
                    || (!layers[layer].HasFeedForward && inLayer.StartsWith(StoredLayer.FeedForwardNorm, StringComparison.Ordinal)))
                {
                    continue;
                }
                name = string.Create(CultureInfo.InvariantCulture, $"{prefix}{layer}.{inLayer}");
            }
            if (!names.TryAdd(name, tensor))
            {
                throw new EngineException($"it and another tensor are {name}", source.Path, tensor);
            }
        }
        return names;
    }

    /// <summary>
    /// The configuration with what shapes say where that is less than it says; null where all agree. What is more, or fits nothing, stays for the family's reader to
    /// complain about.
    /// </summary>
    private static JsonObject? Narrowed(JsonObject config, SortedDictionary<int, StoredLayer> stored, string file)
    {
        int? heads = PrunedConfig.Count(config, PrunedConfig.Heads), width = PrunedConfig.Count(config, PrunedConfig.Width);
        if (heads is null || width is null || (config[PrunedConfig.KvHeads] is not null && PrunedConfig.Count(config, PrunedConfig.KvHeads) is null))
        {
            return null;
        }
        if (HeadWidth.Find(config, stored, file) is not { } headDim)
        {
            return null;
        }
        StoredLayer[] layers = [.. stored.Values];
        int kvHeads = PrunedConfig.Count(config, PrunedConfig.KvHeads) ?? heads.Value;
        int[] queries = [.. layers.Select(layer => layer.HasAttention ? Left(layer.QueryRows, headDim, heads.Value) : 0)];
        int[] keys = [.. layers.Select(layer => layer.HasAttention ? Left(layer.KeyRows, headDim, kvHeads) : 0)];
        int[] widths = [.. layers.Select(layer => layer.HasFeedForward ? Left(layer.Width, 1, width.Value) : 0)];
        if (queries.All(number => number == heads) && (config[PrunedConfig.KvHeads] is null || keys.All(number => number == kvHeads))
            && widths.All(number => number == width))
        {
            return null;
        }
        var narrowed = (JsonObject)config.DeepClone();
        PrunedConfig.Set(narrowed, PrunedConfig.Heads, queries);
        PrunedConfig.Set(narrowed, PrunedConfig.KvHeads, keys);
        PrunedConfig.Set(narrowed, PrunedConfig.Width, widths);
        narrowed[PrunedConfig.HeadDim] = headDim;
        return ConfigJson.Normalize(narrowed);
    }

    private static int Left(long? rows, int unit, int before) =>
        rows is > 0 && rows % unit == 0 && rows / unit < before ? (int)(rows.Value / unit) : before;
}
