using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Transforms;

/// <summary>
/// Several ParScale models (Chen et al. 2025, section 5) whose backbone was frozen in training, as one: the backbone once, and what each adds to it
/// (prefixes and a gate) under names of its own, so that the number of streams can be chosen per request. A plain model of the same weights counts as
/// one stream.
/// </summary>
public static class StreamSets
{
    /// <summary>The key under which the combined configuration lists the sets, each with the three keys below.</summary>
    public const string SetsKey = "parscale_sets";

    /// <summary>Streams, P.</summary>
    public const string CountKey = "parscale_n";

    /// <summary>Tokens of a prefix.</summary>
    public const string PrefixTokensKey = "parscale_n_tokens";

    /// <summary>Smoothing of the gate.</summary>
    public const string SmoothingKey = "parscale_attn_smooth";

    private const string Family = "qwen2_parscale", Architecture = "Qwen2ParScaleForCausalLM", ContextKey = "max_position_embeddings";

    // A plain Qwen2 is the one-stream model.
    private static readonly string[] families = [Family, "qwen2"];

    private static readonly string[] OwnKeys = [CountKey, PrefixTokensKey, SmoothingKey];

    // What may differ between models that compute the same: names, training, and the class (a plain Qwen2 is the one-stream model).
    private static readonly HashSet<string> Free =
    [
        .. OwnKeys, ContextKey, "architectures", "model_type", "auto_map", "transformers_version", "torch_dtype", "dtype", "_name_or_path",
        "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "initializer_range", "attention_dropout", "_attn_implementation_autoset",
    ];

    /// <summary>What the names of the tensors of set <paramref name="set"/> begin with in the combined checkpoint.</summary>
    public static string Prefix(int set) => $"streams.{set}/";

    /// <summary>
    /// Combines models. Backbone, tokenizer and the rest come from the first; sets are in the order of the parts, and the first is the one used where
    /// none is asked for. The result owns the parts and disposes them; where this fails they are disposed at once.
    /// </summary>
    /// <param name="parts">Qwen2 or ParScale checkpoints.</param>
    /// <exception cref="EngineException">Backbones differ in a tensor, or configurations in a key that changes the numbers.</exception>
    public static Checkpoint Combine(IReadOnlyList<Checkpoint> parts)
    {
        ArgumentNullException.ThrowIfNull(parts);
        ArgumentOutOfRangeException.ThrowIfZero(parts.Count);
        try
        {
            foreach (Checkpoint part in parts)
            {
                RequireFamily(part);
            }
            for (int i = 1; i < parts.Count; i++)
            {
                RequireSameConfig(parts[0], parts[i]);
                RequireSameBackbone(parts[0], parts[i]);
            }
            return new Combined(parts, CombineConfigs(parts));
        }
        catch
        {
            foreach (Checkpoint part in parts)
            {
                part.Dispose();
            }
            throw;
        }
    }

    private static void RequireFamily(Checkpoint part)
    {
        const string Key = "model_type";
        JsonNode? found = Value(part, Key);
        if (found?.GetValueKind() != JsonValueKind.String || !families.Contains(found.GetValue<string>()))
        {
            throw new EngineException($"several models can be one where they are ParScale models over one backbone; found {Show(found)}", part.Path, Key);
        }
    }

    private static bool IsAddOn(string name) =>
        name.EndsWith(".self_attn.prefix_k", StringComparison.Ordinal) || name.EndsWith(".self_attn.prefix_v", StringComparison.Ordinal)
        || name.Contains("aggregate_layer.", StringComparison.Ordinal);

    private static void RequireSameBackbone(Checkpoint first, Checkpoint other)
    {
        foreach (string name in other.TensorNames)
        {
            if (!IsAddOn(name) && !first.TryGetTensor(name, out _))
            {
                throw new EngineException($"the tensor is in {other.Path} but not here: the backbones differ", first.Path, name);
            }
        }
        foreach (string name in first.TensorNames)
        {
            if (IsAddOn(name))
            {
                continue;
            }
            if (!other.TryGetTensor(name, out TensorView? found))
            {
                throw new EngineException($"the tensor is in {first.Path} but not here: the backbones differ", other.Path, name);
            }
            TensorView expected = first[name];
            if (found.DType != expected.DType || !found.Shape.AsSpan().SequenceEqual(expected.Shape))
            {
                throw new EngineException(
                    $"expected {expected.DType} {expected.DescribeShape()} as in {first.Path}; found {found.DType} {found.DescribeShape()}",
                    other.Path, name);
            }
            if (!found.ContentEquals(expected))
            {
                throw new EngineException(
                    $"the values are not those in {first.Path}: these models do not share a backbone, and each must be loaded by itself",
                    other.Path, name);
            }
            found.Evict();
        }
    }

    private static void RequireSameConfig(Checkpoint first, Checkpoint other)
    {
        bool slides = Slides(first) || Slides(other);
        foreach (string key in first.Config.Concat(other.Config).Select(static pair => pair.Key).Distinct())
        {
            bool isFree = Free.Contains(key) || (!slides && key is "sliding_window" or "max_window_layers" or "use_sliding_window" or "layer_types");
            JsonNode? expected = Value(first, key), found = Value(other, key);
            if (!isFree && !AreEqual(expected, found))
            {
                throw new EngineException($"expected {Show(expected)} as in {first.Path}; found {Show(found)}", other.Path, key);
            }
        }
        bool scales = Value(first, "rope_scaling") is not null || Value(first, "rope_parameters") is not null;
        if (scales && !AreEqual(Value(first, ContextKey), Value(other, ContextKey)))
        {
            throw new EngineException("with scaled rotations it must be the same in all parts", other.Path, ContextKey);
        }
    }

    private static bool Slides(Checkpoint part) => Value(part, "use_sliding_window")?.GetValueKind() == JsonValueKind.True;

    private static JsonNode? Value(Checkpoint part, string key) => part.Config.TryGetPropertyValue(key, out JsonNode? node) ? node : null;

    /// <summary>1e6 and 1000000.0 are the same number, whatever their spelling.</summary>
    private static bool AreEqual(JsonNode? a, JsonNode? b) =>
        JsonNode.DeepEquals(a, b)
        || (a is JsonValue && b is JsonValue && a.GetValueKind() == JsonValueKind.Number && b.GetValueKind() == JsonValueKind.Number
            && Number(a) == Number(b));

    private static double Number(JsonNode node) =>
        double.Parse(node.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture);

    private static string Show(JsonNode? node) => node?.ToJsonString() ?? "nothing";

    private static JsonObject CombineConfigs(IReadOnlyList<Checkpoint> parts)
    {
        var config = (JsonObject)parts[0].Config.DeepClone();
        foreach (string key in OwnKeys)
        {
            config.Remove(key);
        }
        config["model_type"] = Family;
        config["architectures"] = new JsonArray(Architecture);
        JsonNode? shortest = parts.Select(static part => Value(part, ContextKey))
            .Where(static node => node is JsonValue && node.GetValueKind() == JsonValueKind.Number).MinBy(static node => Number(node!));
        if (shortest is not null)
        {
            config[ContextKey] = shortest.DeepClone();
        }
        var sets = new JsonArray();
        foreach (Checkpoint part in parts)
        {
            var set = new JsonObject();
            foreach (string key in OwnKeys)
            {
                set[key] = Value(part, key)?.DeepClone();
            }
            sets.Add(set);
        }
        config[SetsKey] = sets;
        return config;
    }

    private sealed class Combined : Checkpoint
    {
        private readonly IReadOnlyList<Checkpoint> parts;
        private readonly OrderedDictionary<string, TensorView> tensors = [];

        public Combined(IReadOnlyList<Checkpoint> parts, JsonObject config)
        {
            this.parts = [.. parts];
            Config = config;
            foreach (string name in parts[0].TensorNames.Where(static name => !IsAddOn(name)))
            {
                tensors.Add(name, parts[0][name]);
            }
            for (int i = 0; i < parts.Count; i++)
            {
                foreach (string name in parts[i].TensorNames.Where(IsAddOn))
                {
                    tensors.Add(Prefix(i) + name, parts[i][name]);
                }
            }
        }

        public override string Path => parts[0].Path;

        public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

        public override JsonObject Config { get; }

        public override IReadOnlyDictionary<string, object> Metadata => parts[0].Metadata;

        public override IReadOnlyList<string> AssetNames => parts[0].AssetNames;

        public override byte[]? ReadAsset(string fileName) => parts[0].ReadAsset(fileName);

        public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                foreach (Checkpoint part in parts)
                {
                    part.Dispose();
                }
            }
            base.Dispose(disposing);
        }
    }
}
