using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Engine.Plans.Readers;

/// <summary>
/// Reads the YAML that OmegaConf writes (mappings, sequences, plain and quoted scalars) as JSON. Aliases, tags and a second document are refused,
/// and size and depth are bounded: such files come with models from anywhere.
/// </summary>
internal static partial class Yaml
{
    private const int MostBytes = 1 << 20, MostNodes = 20_000, Deepest = 32;

    /// <summary>Parses a mapping.</summary>
    /// <param name="utf8">The file's bytes.</param>
    /// <param name="file">The checkpoint, for messages.</param>
    /// <param name="name">The file's name beside it.</param>
    /// <exception cref="EngineException">It is malformed, too large, or uses what is refused.</exception>
    public static JsonObject ParseObject(byte[] utf8, string file, string name)
    {
        if (utf8.Length > MostBytes)
        {
            throw new EngineException($"the file has {utf8.Length} bytes, expected at most {MostBytes}", file, name);
        }
        try
        {
            string text = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true).GetString(utf8);
            var reader = new Reader(new Parser(new StringReader(text.TrimStart('\uFEFF'))));
            return reader.Document() as JsonObject ?? throw new FormatException("expected a mapping");
        }
        // The library's scanner has more ways to fail on a hostile file than its own exception.
        catch (Exception exception) when (exception is YamlException or FormatException or ArgumentException or InvalidOperationException
            or IndexOutOfRangeException or NullReferenceException or InvalidCastException or OverflowException)
        {
            throw new EngineException($"the file is not YAML that can be read: {exception.Message}", file, name, exception);
        }
    }

    private sealed class Reader(IParser parser)
    {
        private int nodes;

        public JsonNode? Document()
        {
            Next<StreamStart>();
            Next<DocumentStart>();
            JsonNode? root = Node(Deepest);
            Next<DocumentEnd>();
            Next<StreamEnd>();
            return root;
        }

        private JsonNode? Node(int depth)
        {
            ParsingEvent item = Next<ParsingEvent>();
            if (++nodes > MostNodes || depth == 0)
            {
                throw new FormatException($"it has more than {MostNodes} values, or they nest deeper than {Deepest}");
            }
            if (item is AnchorAlias)
            {
                throw new FormatException($"aliases are not supported (line {item.Start.Line})");
            }
            if (item is NodeEvent { Tag: { IsEmpty: false } tag })
            {
                throw new FormatException($"the tag {tag} is not supported (line {item.Start.Line})");
            }
            switch (item)
            {
                case Scalar scalar:
                    return scalar.Style == ScalarStyle.Plain ? Value(scalar.Value) : JsonValue.Create(scalar.Value);
                case SequenceStart:
                    var array = new JsonArray();
                    while (parser.Current is not SequenceEnd)
                    {
                        array.Add(Node(depth - 1));
                    }
                    parser.MoveNext();
                    return array;
                case MappingStart:
                    var map = new JsonObject();
                    while (parser.Current is not MappingEnd)
                    {
                        Scalar key = Next<Scalar>();
                        if (!map.TryAdd(key.Value, null))
                        {
                            throw new FormatException($"the key '{key.Value}' occurs twice (line {key.Start.Line})");
                        }
                        map[key.Value] = Node(depth - 1);
                    }
                    parser.MoveNext();
                    return map;
                default:
                    throw new FormatException($"line {item.Start.Line} is not a value");
            }
        }

        /// <summary>Takes an event, and makes the one after it current.</summary>
        private T Next<T>()
            where T : ParsingEvent
        {
            if (parser.Current is null)
            {
                parser.MoveNext();
            }
            T item = parser.Current as T ?? throw new FormatException($"line {parser.Current?.Start.Line ?? 1} is not understood");
            parser.MoveNext();
            return item;
        }
    }

    /// <summary>An unquoted scalar by the rules of YAML 1.1, which OmegaConf follows, with floats that need no point.</summary>
    private static JsonValue? Value(string text) => text switch
    {
        "" or "~" or "null" or "Null" or "NULL" => null,
        "true" or "True" or "TRUE" or "yes" or "Yes" or "YES" or "on" or "On" or "ON" => JsonValue.Create(true),
        "false" or "False" or "FALSE" or "no" or "No" or "NO" or "off" or "Off" or "OFF" => JsonValue.Create(false),
        _ when Number().IsMatch(text) && double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double number)
            && double.IsFinite(number) => JsonValue.Create(number),
        _ => JsonValue.Create(text),
    };

    [GeneratedRegex(@"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$", RegexOptions.CultureInvariant)]
    private static partial Regex Number();
}
