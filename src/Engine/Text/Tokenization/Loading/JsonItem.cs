using System.Text.Json;

namespace Engine.Text.Tokenization.Loading;

/// <summary>A JSON value with its place in its file, whose accessors say what they expected and what they found.</summary>
internal readonly record struct JsonItem(JsonElement Element, string File, string Place)
{
    /// <summary>Parses a file whose value is an object.</summary>
    /// <exception cref="EngineException">It is not valid JSON or not an object.</exception>
    public static JsonItem Parse(byte[] json, string file)
    {
        try
        {
            ReadOnlyMemory<byte> content = json.AsMemory().TrimStart("\uFEFF"u8);
            var item = new JsonItem(JsonDocument.Parse(content, new JsonDocumentOptions { MaxDepth = 64 }).RootElement, file, "");
            item.Require(JsonValueKind.Object);
            return item;
        }
        catch (JsonException exception)
        {
            throw new EngineException($"the file is not valid JSON: {exception.Message}", file, inner: exception);
        }
    }

    public bool IsObject => Element.ValueKind == JsonValueKind.Object;

    public bool IsArray => Element.ValueKind == JsonValueKind.Array;

    public bool IsString => Element.ValueKind == JsonValueKind.String;

    /// <summary>A field that must be there.</summary>
    public JsonItem this[string name] => Find(name) ?? throw new EngineException("the field is missing", File, At(name));

    /// <summary>A field, or null where it is absent or null.</summary>
    public JsonItem? Find(string name) =>
        Require(JsonValueKind.Object).TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null
            ? new JsonItem(value, File, At(name))
            : null;

    /// <summary>A field is written down, be it as null.</summary>
    public bool Mentions(string name) => Require(JsonValueKind.Object).TryGetProperty(name, out _);

    public string? FindString(string name) => Find(name)?.AsString();

    public bool FindBool(string name, bool otherwise) => Find(name)?.AsBool() ?? otherwise;

    public string AsString()
    {
        Require(JsonValueKind.String);
        try
        {
            return Element.GetString()!;
        }
        catch (InvalidOperationException exception)
        {
            throw Error("the string is not valid Unicode", exception);
        }
    }

    public bool AsBool() =>
        Element.ValueKind is JsonValueKind.True or JsonValueKind.False ? Element.GetBoolean() : throw Unexpected("true or false");

    public long AsInteger() =>
        Element.ValueKind == JsonValueKind.Number && Element.TryGetInt64(out long value) ? value : throw Unexpected("an integer");

    public double AsNumber() =>
        Element.ValueKind == JsonValueKind.Number && Element.TryGetDouble(out double value) && double.IsFinite(value)
            ? value
            : throw Unexpected("a number");

    public IEnumerable<JsonItem> AsArray()
    {
        string file = File, place = Place;
        return Require(JsonValueKind.Array).EnumerateArray().Select((element, index) => new JsonItem(element, file, $"{place}[{index}]"));
    }

    /// <summary>The fields of an object.</summary>
    public IEnumerable<(string Name, JsonItem Value)> AsFields()
    {
        JsonItem self = this;
        return Require(JsonValueKind.Object).EnumerateObject()
            .Select(property => (self.Name(property), new JsonItem(property.Value, self.File, self.Place)));
    }

    public JsonElement Require(JsonValueKind kind) => Element.ValueKind == kind ? Element : throw Unexpected($"{kind}");

    public EngineException Error(string reason, Exception? inner = null) => new(reason, File, Place.Length == 0 ? null : Place, inner);

    /// <summary>What a closed list of names does not hold.</summary>
    public EngineException Unsupported(string name) => Error($"\"{name}\" is not supported");

    private EngineException Unexpected(string expected) => Error($"expected {expected}, found {Element.ValueKind}");

    private string At(string name) => Place.Length == 0 ? name : $"{Place}.{name}";

    private string Name(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException exception)
        {
            throw Error("a field's name is not valid Unicode", exception);
        }
    }
}
