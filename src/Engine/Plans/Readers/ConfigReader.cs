using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Plans.Readers;

/// <summary>
/// Typed access to <c>config.json</c>. A JSON null counts as absent; every complaint names the file, the key, and what was found.
/// </summary>
/// <param name="config">The object.</param>
/// <param name="file">The file, for messages.</param>
/// <param name="place">What stands before a key in messages: <c>"mor.recursive."</c>.</param>
internal sealed class ConfigReader(JsonObject config, string file, string place = "")
{
    /// <summary>The largest count: sums of a few, such as the width of q|k|v, stay within an int.</summary>
    public const int LargestCount = int.MaxValue / 4;

    /// <summary>The file, for messages.</summary>
    public string File => file;

    /// <summary>The keys that are present, null or not.</summary>
    public IEnumerable<string> Keys => config.Select(static pair => pair.Key);

    /// <summary>The key is written, if only as null.</summary>
    public bool Mentions(string key) => config.ContainsKey(key);

    /// <summary>The key has a value.</summary>
    public bool Has(string key) => Node(key) is not null;

    /// <summary>The value, or null.</summary>
    public JsonNode? Node(string key) => config.TryGetPropertyValue(key, out JsonNode? node) ? node : null;

    /// <summary>The first of these names for one thing that has a value; the first of all where none has.</summary>
    public string Alias(params ReadOnlySpan<string> keys)
    {
        foreach (string key in keys)
        {
            if (Has(key))
            {
                return key;
            }
        }
        return keys[0];
    }

    /// <summary>A count of at least one.</summary>
    public int Count(string key) => ToCount(key, Node(key) ?? throw Error(key, "the key is missing"));

    /// <summary>A count of at least one, or null where the key is absent.</summary>
    public int? CountOrNull(string key) => Node(key) is { } node ? ToCount(key, node) : null;

    /// <summary>A whole number from 0.</summary>
    public int Whole(string key, int otherwise) => Node(key) is { } node ? ToCount(key, node, least: 0) : otherwise;

    /// <summary>An array of whole numbers from 0, or null where the key is absent.</summary>
    public int[]? WholeNumbers(string key) => Node(key) switch
    {
        null => null,
        JsonArray array => [.. array.Select((node, i) => ToCount($"{key}[{i}]", node, least: 0))],
        { } node => throw Error(key, $"expected an array of whole numbers; found {Show(node)}"),
    };

    /// <summary>An array of finite numbers, or null where the key is absent.</summary>
    public double[]? Numbers(string key) => Node(key) switch
    {
        null => null,
        JsonArray array => [.. array.Select((node, i) =>
            ToNumber(node) ?? throw Error($"{key}[{i}]", $"expected a finite number; found {Show(node)}"))],
        { } node => throw Error(key, $"expected an array of numbers; found {Show(node)}"),
    };

    /// <summary>A count per layer: one number for all, or an array with one for each. Null where the key is absent.</summary>
    /// <param name="key">The key.</param>
    /// <param name="layers">Layers.</param>
    /// <param name="least">The least that an array may hold: 0 where layers may lack what is counted.</param>
    public int[]? CountPerLayer(string key, int layers, int least = 1)
    {
        switch (Node(key))
        {
            case null:
                return null;
            case JsonArray array when array.Count == layers:
                return [.. array.Select((node, layer) => ToCount($"{key}[{layer}]", node, least))];
            case JsonArray array:
                throw Error(key, $"expected {layers} values, one per layer; found {array.Count}");
            case { } node:
                int[] counts = new int[layers];
                Array.Fill(counts, ToCount(key, node));
                return counts;
        }
    }

    /// <summary>A finite number above zero.</summary>
    public double Positive(string key, double? otherwise = null)
    {
        double value = Number(key, otherwise);
        return value > 0 ? value : throw Error(key, $"expected a number above zero; found {value.ToString(CultureInfo.InvariantCulture)}");
    }

    /// <summary>A finite number.</summary>
    public double Number(string key, double? otherwise = null) => NumberOrNull(key) ?? otherwise ?? throw Error(key, "the key is missing");

    /// <summary>A finite number, or null where the key is absent.</summary>
    public double? NumberOrNull(string key) => Node(key) is { } node
        ? ToNumber(node) ?? throw Error(key, $"expected a finite number; found {Show(node)}")
        : null;

    /// <summary>A truth value.</summary>
    public bool Flag(string key, bool otherwise) => FlagOrNull(key) ?? otherwise;

    /// <summary>A truth value, or null where the key is absent.</summary>
    public bool? FlagOrNull(string key) => Node(key) switch
    {
        null => null,
        { } node => node.GetValueKind() switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw Error(key, $"expected true or false; found {Show(node)}"),
        },
    };

    /// <summary>A string.</summary>
    public string? Text(string key, string? otherwise) => Node(key) switch
    {
        null => otherwise,
        { } node when node.GetValueKind() == JsonValueKind.String => node.GetValue<string>(),
        { } node => throw Error(key, $"expected a string; found {Show(node)}"),
    };

    /// <summary>An object inside, read the same way, or null where the key is absent.</summary>
    public ConfigReader? Section(string key) => Node(key) switch
    {
        null => null,
        JsonObject section => new ConfigReader(section, file),
        { } node => throw Error(key, $"expected an object; found {Show(node)}"),
    };

    /// <summary>As <see cref="Section"/>, and messages about what is inside name the section too.</summary>
    public ConfigReader? Part(string key) => Section(key) is null ? null : new ConfigReader((JsonObject)Node(key)!, file, $"{place}{key}.");

    /// <summary>A complaint about a key.</summary>
    public EngineException Error(string key, string reason) => new(reason, file, place + key);

    /// <summary>A value as it is written, cut short.</summary>
    public static string Show(JsonNode? node)
    {
        const int longest = 60;
        string text;
        try
        {
            text = node?.ToJsonString() ?? "null";
        }
        catch (ArgumentException)
        {
            return "a number that is not finite"; // a decorator can make one; JSON cannot write it
        }
        return text.Length <= longest ? text : text[..longest] + "…";
    }

    /// <summary>A number whatever CLR type a decorator made it from; null where it is none or not finite.</summary>
    internal static double? ToNumber(JsonNode? node)
    {
        if (node is not JsonValue value || node.GetValueKind() != JsonValueKind.Number)
        {
            return null;
        }
        if (!value.TryGetValue(out double number))
        {
            if (value.TryGetValue(out float single))
            {
                number = single;
            }
            else if (!double.TryParse(node.ToJsonString(), NumberStyles.Float, CultureInfo.InvariantCulture, out number))
            {
                return null;
            }
        }
        return double.IsFinite(number) ? number : null;
    }

    private int ToCount(string key, JsonNode? node, int least = 1)
    {
        double? number = ToNumber(node);
        return number >= least && number <= LargestCount && number == Math.Floor(number.Value)
            ? (int)number
            : throw Error(key, $"expected a whole number from {least} to {LargestCount}; found {Show(node)}");
    }
}
