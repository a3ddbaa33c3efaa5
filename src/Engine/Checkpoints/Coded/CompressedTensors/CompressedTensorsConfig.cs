using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>The <c>quantization_config</c> of compressed-tensors (specification: compressed_tensors/quantization/quant_config.py and quant_args.py).</summary>
internal sealed class CompressedTensorsConfig
{
    /// <summary>Two of every four neighbouring inputs are stored.</summary>
    public const string TwoOfFour = "sparse-24-bitmask";

    private const string Dense = "dense", AnySparsity = "sparse-bitmask", Mixed = "mixed-precision";

    private readonly string file, place;
    private readonly List<(ModuleTargets Targets, CodedScheme? Scheme)> groups = [];
    private readonly ModuleTargets ignored, notSparse;
    private readonly ModuleTargets? sparse;
    private readonly string format;

    /// <summary>Reads it.</summary>
    /// <param name="config">The object.</param>
    /// <param name="file">The file that has it.</param>
    /// <param name="place">Its key there and a dot, for messages.</param>
    /// <exception cref="EngineException">It is malformed, or says something that would change the numbers and is not done.</exception>
    public CompressedTensorsConfig(JsonObject config, string file, string place)
    {
        (this.file, this.place) = (file, place);
        format = Text(config, "format", "") ?? Dense;
        ignored = new ModuleTargets(config["ignore"], file, Key("ignore"));
        notSparse = new ModuleTargets(null, file, Key("sparsity_config"));
        if (Text(config, "quantization_status", "") is { } status and not ("compressed" or "frozen"))
        {
            throw Error("quantization_status", $"expected compressed; found {status}");
        }
        if (config["transform_config"] is JsonObject { Count: > 0 } transforms && transforms["config_groups"] is JsonObject { Count: > 0 })
        {
            throw Error("transform_config", "rotated activations are not supported");
        }
        if (config["sparsity_config"] is JsonObject { Count: > 0 } sparsity)
        {
            Sparsity = Text(sparsity, "format", "sparsity_config.") ?? Dense;
            if (Sparsity is not (Dense or TwoOfFour or AnySparsity))
            {
                throw Error("sparsity_config.format", $"the sparse format '{Sparsity}' is not known; expected {Dense}, {TwoOfFour} or {AnySparsity}");
            }
            sparse = sparsity["targets"] is { } targets ? new ModuleTargets(targets, file, Key("sparsity_config.targets")) : null;
            notSparse = new ModuleTargets(sparsity["ignore"], file, Key("sparsity_config.ignore"));
        }
        if (config["config_groups"] is not { } all)
        {
            return;
        }
        if (all is not JsonObject named)
        {
            throw Error("config_groups", $"expected an object; found {all.ToJsonString()}");
        }
        foreach ((string name, JsonNode? group) in named)
        {
            string key = $"config_groups.{name}";
            if (CodedScheme.Preset(name) is { } preset && group is JsonArray targets)
            {
                groups.Add((new ModuleTargets(targets, file, Key(key)), format is Dense or Mixed ? preset : preset with { Format = format }));
            }
            else if (group is JsonObject settings)
            {
                var modules = new ModuleTargets(settings["targets"], file, Key(key + ".targets"));
                groups.Add((modules, settings["weights"] switch
                {
                    null => null,
                    JsonObject weights => ReadScheme(weights, Text(settings, "format", key + "."), key + ".weights"),
                    { } node => throw Error(key + ".weights", $"expected an object; found {node.ToJsonString()}"),
                }));
            }
            else
            {
                throw Error(key, $"expected an object, or a list of targets for a preset; found {group?.ToJsonString() ?? "null"}");
            }
        }
        RequireKnown(format, "format");
    }

    /// <summary>How zeros are left out: <c>dense</c>, <c>sparse-24-bitmask</c> or <c>sparse-bitmask</c>.</summary>
    public string Sparsity { get; } = Dense;

    /// <summary>The module is stored without its zeros: all are where no targets are named.</summary>
    public bool IsSparse(string module) => Sparsity != Dense && sparse?.Match(module, file) is null or > 0 && notSparse.Match(module, file) == 0;

    /// <summary>
    /// The scheme of a module, with its format; null where it is not quantized: it is ignored, no group names it, or its group quantizes activations alone. Of
    /// several groups, the one that names it most closely counts, and the first of those.
    /// </summary>
    public CodedScheme? SchemeOf(string module)
    {
        if (ignored.Match(module, file) > 0)
        {
            return null;
        }
        int best = 0;
        CodedScheme? found = null;
        foreach ((ModuleTargets targets, CodedScheme? scheme) in groups)
        {
            int match = targets.Match(module, file);
            if (match > best)
            {
                (best, found) = (match, scheme);
            }
        }
        return found is null ? null : found with { Format = found.Format ?? format };
    }

    private CodedScheme ReadScheme(JsonObject weights, string? packing, string key)
    {
        if (packing is not null)
        {
            RequireKnown(packing, key + ".format");
        }
        int bits = Number(weights, "num_bits", key) ?? 8;
        string type = Text(weights, "type", key + ".") ?? "int";
        if (weights["dynamic"] is JsonValue dynamic && !(dynamic.TryGetValue(out bool isDynamic) && !isDynamic))
        {
            throw Error(key + ".dynamic", $"stored weights have stored scales; found {dynamic.ToJsonString()}");
        }
        if (type is not ("int" or "float") || bits is < 1 or > 8)
        {
            throw Error(key, $"expected int or float of 1 to 8 bits; found {type} of {bits}");
        }
        int? group = Number(weights, "group_size", key);
        string strategy = Text(weights, "strategy", key + ".") ?? (group is null ? "tensor" : group == -1 ? "channel" : "group");
        ScaleReach reach = strategy switch
        {
            "tensor" => ScaleReach.Tensor,
            "channel" => ScaleReach.Channel,
            "group" or "tensor_group" => ScaleReach.Group,
            "block" => ScaleReach.Block,
            _ => throw Error(key + ".strategy", $"expected tensor, channel, group, tensor_group or block; found {strategy}"),
        };
        if (reach == ScaleReach.Group && group is null or 0 or < -1)
        {
            throw Error(key + ".group_size", $"expected a size of at least 1; found {group?.ToString(CultureInfo.InvariantCulture) ?? "none"}");
        }
        if (reach == ScaleReach.Group && group == -1)
        {
            reach = ScaleReach.Channel;
        }
        string? order = weights["actorder"] switch
        {
            null => null,
            JsonValue value when value.TryGetValue(out bool on) => on ? "group" : null,
            { } node => node.ToString(),
        };
        if (order is not (null or "group" or "dynamic" or "weight" or "static"))
        {
            throw Error(key + ".actorder", $"expected group or weight; found {order}");
        }
        return new CodedScheme(
            packing, bits, type == "float", Flag(weights, "symmetric", key) ?? true, reach, group ?? 0, reach == ScaleReach.Block ? Block(weights, key) : default,
            order is "group" or "dynamic");
    }

    private (int Rows, int Columns) Block(JsonObject weights, string key)
    {
        JsonNode? node = weights["block_structure"];
        string[] parts = node switch
        {
            JsonArray { Count: 2 } array => [array[0]?.ToString() ?? "", array[1]?.ToString() ?? ""],
            JsonValue value when value.TryGetValue(out string? text) => text.Split('x'),
            _ => [],
        };
        return parts is [var rows, var columns] && int.TryParse(rows, NumberStyles.None, CultureInfo.InvariantCulture, out int r)
            && int.TryParse(columns, NumberStyles.None, CultureInfo.InvariantCulture, out int c) && r > 0 && c > 0
            ? (r, c)
            : throw Error(key + ".block_structure", $"expected two sizes of at least 1; found {node?.ToJsonString() ?? "null"}");
    }

    private void RequireKnown(string name, string key)
    {
        if (name is not (Dense or Mixed) && !CompressedModules.Formats.Contains(name))
        {
            throw Error(key, $"the format '{name}' is not known; expected {string.Join(", ", CompressedModules.Formats)}");
        }
    }

    private string? Text(JsonObject from, string key, string place) => from[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out string? text) => text,
        { } node => throw Error(place + key, $"expected a text; found {node.ToJsonString()}"),
    };

    private int? Number(JsonObject from, string key, string place) => from[key] switch
    {
        null => null,
        JsonValue value when value.GetValueKind() == JsonValueKind.Number && value.TryGetValue(out int number) => number,
        { } node => throw Error($"{place}.{key}", $"expected a whole number; found {node.ToJsonString()}"),
    };

    private bool? Flag(JsonObject from, string key, string place) => from[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out bool flag) => flag,
        { } node => throw Error($"{place}.{key}", $"expected true or false; found {node.ToJsonString()}"),
    };

    private string Key(string key) => place + key;

    private EngineException Error(string key, string reason) => new(reason, file, Key(key));
}
