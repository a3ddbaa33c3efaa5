using System.Globalization;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>Python's <c>str</c> and <c>repr</c> of any value.</summary>
internal sealed class PythonText
{
    private readonly StringBuilder _text = new();
    private readonly Budget _budget;
    private readonly HashSet<NamespaceValue> _open = []; // a namespace can contain itself

    private PythonText(Budget budget) => _budget = budget;

    public static string Str(Value value, Budget budget) => value switch
    {
        StringValue s => s.Text,
        UndefinedValue => "",
        IntValue i => i.Number.ToString(CultureInfo.InvariantCulture),
        _ => Repr(value, budget),
    };

    public static string Repr(Value value, Budget budget)
    {
        var writer = new PythonText(budget);
        writer.Write(value);
        return writer._text.ToString();
    }

    private void Write(Value value)
    {
        _budget.Step();
        switch (value)
        {
            case NoneValue: Append("None"); break;
            case UndefinedValue: Append("Undefined"); break;
            case BoolValue b: Append(b.IsTrue ? "True" : "False"); break;
            case IntValue i: Append(i.Number.ToString(CultureInfo.InvariantCulture)); break;
            case FloatValue f: Append(PythonNumbers.Repr(f.Number)); break;
            case StringValue { IsMarkup: true } s: Append("Markup("); Append(Quote(s.Text)); Append(")"); break;
            case StringValue s: Append(Quote(s.Text)); break;
            case SequenceValue s: WriteSequence(s); break;
            case DictValue d: WriteDict(d.Items); break;
            case NamespaceValue n: WriteNamespace(n); break;
            case MacroValue m: Append(m.Definition.Name is string name ? $"<Macro {Quote(name)}>" : "<Macro anonymous>"); break;
            case LoopValue l: Append($"<LoopContext {l.Index0 + 1}/{l.Length}>"); break;
            case BoundNative n: Append($"<function {n.Name}>"); break;
            default: Append($"<{value.TypeName} object>"); break;
        }
    }

    private void WriteSequence(SequenceValue sequence)
    {
        switch (sequence.Kind)
        {
            case SequenceKind.List: WriteItems("[", sequence.Items, "]"); break;
            case SequenceKind.Tuple: WriteItems("(", sequence.Items, sequence.Length == 1 ? ",)" : ")"); break;
            case SequenceKind.Range: Append(sequence.Description ?? throw new TemplateFault("this range has no text")); break;
            default: WriteItems(sequence.TypeName + "([", sequence.Items, "])"); break;
        }
    }

    private void WriteItems(string open, IReadOnlyList<Value> items, string close)
    {
        Append(open);
        for (int i = 0; i < items.Count; i++)
        {
            if (i > 0) Append(", ");
            Write(items[i]);
        }
        Append(close);
    }

    private void WriteDict(IEnumerable<KeyValuePair<Value, Value>> items)
    {
        Append("{");
        bool first = true;
        foreach ((Value key, Value value) in items)
        {
            if (!first) Append(", ");
            first = false;
            Write(key);
            Append(": ");
            Write(value);
        }
        Append("}");
    }

    private void WriteNamespace(NamespaceValue value)
    {
        if (!_open.Add(value)) throw new TemplateFault("a namespace that contains itself has no text");
        Append("<Namespace ");
        WriteDict(value.Attributes);
        Append(">");
        _open.Remove(value);
    }

    private void Append(string text)
    {
        _budget.Append(_text, text.Length);
        _text.Append(text);
    }

    /// <summary>A string literal in single quotes, or in double quotes where that saves escaping.</summary>
    private static string Quote(string text)
    {
        char quote = text.Contains('\'') && !text.Contains('"') ? '"' : '\'';
        var quoted = new StringBuilder(text.Length + 2).Append(quote);
        foreach (string point in CodePoints.Split(text))
        {
            int code = point.Length == 2 ? char.ConvertToUtf32(point, 0) : point[0];
            if (code == quote || code == '\\') quoted.Append('\\').Append(point);
            else if (code == '\n') quoted.Append("\\n");
            else if (code == '\r') quoted.Append("\\r");
            else if (code == '\t') quoted.Append("\\t");
            else if (IsPrintable(point, code)) quoted.Append(point);
            else if (code <= 0xFF) quoted.Append($"\\x{code:x2}");
            else if (code <= 0xFFFF) quoted.Append($"\\u{code:x4}");
            else quoted.Append($"\\U{code:x8}");
        }
        return quoted.Append(quote).ToString();
    }

    private static bool IsPrintable(string point, int code) => code == ' ' || CharUnicodeInfo.GetUnicodeCategory(point, 0) is not (
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse
        or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
        or UnicodeCategory.SpaceSeparator);
}
