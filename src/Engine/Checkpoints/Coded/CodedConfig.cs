using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>Values of a quantization's configuration.</summary>
internal static class CodedConfig
{
    /// <summary>A text, or null where there is none.</summary>
    /// <exception cref="EngineException">It is something else.</exception>
    public static string? Text(JsonObject config, string key, string file) => config[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out string? text) => text,
        { } node => throw Error(file, key, $"expected a text; found {node.ToJsonString()}"),
    };

    /// <summary>A whole number, or null where there is none.</summary>
    /// <exception cref="EngineException">It is something else.</exception>
    public static int? Number(JsonObject config, string key, string file) => config[key] switch
    {
        null => null,
        JsonValue value when value.GetValueKind() == JsonValueKind.Number && value.TryGetValue(out int number) => number,
        { } node => throw Error(file, key, $"expected a whole number; found {node.ToJsonString()}"),
    };

    /// <summary>The first of some keys that there is, a whole number.</summary>
    /// <exception cref="EngineException">There is none of them, or it is something else.</exception>
    public static int RequireNumber(JsonObject config, string file, params ReadOnlySpan<string> keys)
    {
        foreach (string key in keys)
        {
            if (Number(config, key, file) is { } number)
            {
                return number;
            }
        }
        throw Error(file, keys[0], "expected a whole number; found none");
    }

    /// <summary>Inputs of a group; −1 for all.</summary>
    /// <exception cref="EngineException">It is neither −1 nor positive.</exception>
    public static int RequireGroupSize(int value, string file) => value is -1 or > 0
        ? value
        : throw Error(file, "group_size", $"expected -1 or a size of at least 1; found {value}");

    /// <summary>Yes or no; no where there is none.</summary>
    /// <exception cref="EngineException">It is something else.</exception>
    public static bool Flag(JsonObject config, string key, string file) => config[key] switch
    {
        null => false,
        JsonValue value when value.TryGetValue(out bool flag) => flag,
        { } node => throw Error(file, key, $"expected true or false; found {node.ToJsonString()}"),
    };

    /// <summary>A list of texts; null is an empty one.</summary>
    /// <exception cref="EngineException">It is something else.</exception>
    public static string[] Texts(JsonObject config, string key, string file) => config[key] switch
    {
        null => [],
        JsonArray array => [.. array.Select(item => item is JsonValue value && value.TryGetValue(out string? text)
            ? text : throw Error(file, key, $"expected texts; found {item?.ToJsonString() ?? "null"}"))],
        { } node => throw Error(file, key, $"expected a list; found {node.ToJsonString()}"),
    };

    /// <summary>A complaint about a key.</summary>
    public static EngineException Error(string file, string key, string reason) => new(reason, file, "quantization_config." + key);
}
