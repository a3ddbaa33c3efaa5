using System.Globalization;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>How <see cref="PythonJson"/> writes: the arguments of Python's <c>json.dumps</c>.</summary>
internal sealed record PythonJsonOptions(bool EnsureAscii, string? Indent, string ItemSeparator, string KeySeparator, bool SortKeys);

/// <summary>
/// Python's <c>json.dumps</c>, which the <c>tojson</c> filter of chat templates is: no HTML escaping, non-ASCII text as it is.
/// </summary>
internal sealed class PythonJson
{
    private readonly StringBuilder _json = new();
    private readonly PythonJsonOptions _options;
    private readonly Interpreter _render;

    private PythonJson(PythonJsonOptions options, Interpreter render) => (_options, _render) = (options, render);

    public static string Write(Value value, PythonJsonOptions options, Interpreter render)
    {
        var writer = new PythonJson(options, render);
        writer.Write(value, 0);
        return writer._json.ToString();
    }

    private void Write(Value value, int depth)
    {
        _render.Budget.Step();
        switch (value)
        {
            case NoneValue or BoolValue or IntValue or FloatValue: Append(Scalar(value)); break;
            case StringValue s: AppendString(s.Text); break;
            case SequenceValue { Kind: SequenceKind.List or SequenceKind.Tuple } list:
                WriteItems('[', list.Items, ']', depth, item => Write(item, depth + 1));
                break;
            case DictValue dict:
                WriteItems('{', SortedItems(dict), '}', depth, item =>
                {
                    AppendString(item.Key is StringValue key ? key.Text : Scalar(item.Key));
                    Append(_options.KeySeparator);
                    Write(item.Value, depth + 1);
                });
                break;
            case UndefinedValue undefined: throw new TemplateFault($"tojson cannot write an undefined value: {undefined.Fault().Message}");
            default: throw new TemplateFault($"tojson cannot write a value of type {value.TypeName}");
        }
    }

    private void WriteItems<T>(char open, IReadOnlyList<T> items, char close, int depth, Action<T> writeItem)
    {
        Append(open.ToString());
        for (int i = 0; i < items.Count; i++)
        {
            if (i > 0) Append(_options.ItemSeparator);
            NewLine(depth + 1);
            writeItem(items[i]);
        }
        if (items.Count > 0) NewLine(depth);
        Append(close.ToString());
    }

    private void NewLine(int depth)
    {
        if (_options.Indent is null) return;
        _render.Budget.Append(_json, (long)_options.Indent.Length * depth);
        Append("\n");
        _json.Insert(_json.Length, _options.Indent, depth);
    }

    private IReadOnlyList<KeyValuePair<Value, Value>> SortedItems(DictValue dict) =>
        _options.SortKeys ? _render.Sort(dict.Items, item => item.Key, reverse: false) : dict.Items;

    private static string Scalar(Value value) => value switch
    {
        NoneValue => "null",
        BoolValue b => b.IsTrue ? "true" : "false",
        IntValue i => i.Number.ToString(CultureInfo.InvariantCulture),
        FloatValue f when double.IsNaN(f.Number) => "NaN",
        FloatValue f when double.IsInfinity(f.Number) => f.Number > 0 ? "Infinity" : "-Infinity",
        FloatValue f => PythonNumbers.Repr(f.Number),
        _ => throw new TemplateFault($"tojson cannot write a key of type {value.TypeName}"),
    };

    private void AppendString(string text)
    {
        _render.Budget.Append(_json, text.Length);
        _json.Append('"');
        foreach (char c in text)
        {
            switch (c)
            {
                case '"': _json.Append("\\\""); break;
                case '\\': _json.Append("\\\\"); break;
                case '\n': _json.Append("\\n"); break;
                case '\r': _json.Append("\\r"); break;
                case '\t': _json.Append("\\t"); break;
                case '\b': _json.Append("\\b"); break;
                case '\f': _json.Append("\\f"); break;
                default:
                    if (c < ' ' || (_options.EnsureAscii && c > '~')) _json.Append($"\\u{(int)c:x4}");
                    else _json.Append(c);
                    break;
            }
        }
        _json.Append('"');
    }

    private void Append(string text)
    {
        _render.Budget.Append(_json, text.Length);
        _json.Append(text);
    }
}
