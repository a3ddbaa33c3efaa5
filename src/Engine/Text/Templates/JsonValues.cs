using System.Globalization;
using System.Numerics;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Text.Templates;

/// <summary>JSON as the values Python's <c>json</c> makes of it.</summary>
internal static class JsonValues
{
    private const int MaxDepth = 128;

    public static Value ToValue(JsonNode? node, int depth = 0)
    {
        if (depth > MaxDepth) throw new TemplateFault($"the input nests deeper than {MaxDepth}");
        switch (node)
        {
            case null: return NoneValue.Instance;
            case JsonArray array: return SequenceValue.List([.. array.Select(item => ToValue(item, depth + 1))]);
            case JsonObject fields:
                OrderedDictionary<Value, Value> items = DictValue.NewItems();
                foreach ((string name, JsonNode? value) in Properties(fields)) items[new StringValue(name)] = ToValue(value, depth + 1);
                return new DictValue(items);
        }
        return node.GetValueKind() switch
        {
            JsonValueKind.Null => NoneValue.Instance,
            JsonValueKind.True => BoolValue.True,
            JsonValueKind.False => BoolValue.False,
            JsonValueKind.String => new StringValue(ToText(node)),
            _ => ToNumber(node.ToJsonString()),
        };
    }

    /// <summary>The fields of an object; a fault where one appears twice, which JSON nodes find out only when they are read.</summary>
    public static IReadOnlyList<KeyValuePair<string, JsonNode?>> Properties(JsonObject fields)
    {
        try
        {
            return [.. fields];
        }
        catch (ArgumentException e)
        {
            throw new TemplateFault($"an object of the input has a field twice: {e.Message}");
        }
    }

    private static string ToText(JsonNode node)
    {
        try
        {
            return node.GetValue<string>();
        }
        catch (InvalidOperationException)
        {
            throw new TemplateFault("a string of the input is not valid Unicode");
        }
    }

    private static Value ToNumber(string digits)
    {
        if (digits.AsSpan().IndexOfAny(".eE") >= 0) return new FloatValue(double.Parse(digits, CultureInfo.InvariantCulture));
        if (digits.Length > PythonNumbers.MaxDigits)
            throw new TemplateFault($"a number of the input has more than {PythonNumbers.MaxDigits} digits");
        return new IntValue(BigInteger.Parse(digits, CultureInfo.InvariantCulture));
    }
}
