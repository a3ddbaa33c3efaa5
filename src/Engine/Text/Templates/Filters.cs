using System.Collections.Frozen;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>jinja2's filters on single values; those on sequences are in <see cref="SequenceFilters"/>.</summary>
internal static class Filters
{
    /// <summary>Every filter by its name.</summary>
    public static readonly FrozenDictionary<string, Native> All =
        ((Native[])[.. Scalars(), .. SequenceFilters.All()]).ToFrozenDictionary(filter => filter.Name, StringComparer.Ordinal);

    private static Native[] Scalars() =>
    [
        new("abs", "", (_, value, _) => Abs(value)),
        new("attr", "name", (_, value, a) => Attributes.Own(value, Text(a[0]!))),
        new("capitalize", "", (r, value, _) => r.NewText(PythonCase.Capitalize(r.Str(value)))),
        new("center", "width?", (r, value, a) => StringMethods.Center(r, AsText(r, value), a[0] ?? new IntValue(80))),
        new("d", "default_value? boolean?", (_, value, a) => Default(value, a)),
        new("default", "default_value? boolean?", (_, value, a) => Default(value, a)),
        new("e", "", (r, value, _) => Escape(r, value)),
        new("escape", "", (r, value, _) => Escape(r, value)),
        new("filesizeformat", "binary?", (r, value, a) => r.NewText(FileSize(ToFloat(value) ?? throw NotANumber(value), IsTrue(a[0])))),
        new("float", "default?", (_, value, a) => ToFloat(value) is double number ? new FloatValue(number) : a[0] ?? new FloatValue(0)),
        new("forceescape", "", (r, value, _) => r.NewText(PythonStrings.Escape(r.Str(value)), isMarkup: true)),
        new("format", (r, value, a) => r.NewText(PythonFormat.Percent(
            r.Str(value), a.Named.Count > 0 ? Interpreter.DictOf(a.Named) : SequenceValue.Tuple([.. a.Positional]), r))),
        new("indent", "width? first? blank?", Indent),
        new("int", "default? base?", (_, value, a) =>
            ToInteger(value, Integer(a[1], 10)) is BigInteger number ? new IntValue(number) : a[0] ?? new IntValue(0)),
        new("lower", "", (r, value, _) => r.NewText(PythonCase.Lower(r.Str(value)), IsMarkup(value))),
        new("replace", "old new count?", (r, value, a) => new StringValue(PythonStrings.Replace(
            r.Str(value), r.Str(a[0]!), r.Str(a[1]!), a[2] is null or NoneValue ? -1 : Integer(a[2], -1), r.Budget))),
        new("round", "precision? method?", (_, value, a) => Round(value, Integer(a[0], 0), a[1] is null ? "common" : Text(a[1]!))),
        new("safe", "", (r, value, _) => new StringValue(r.Str(value), isMarkup: true)),
        new("string", "", (r, value, _) => value is StringValue ? value : r.NewText(r.Str(value))),
        new("title", "", (r, value, _) => r.NewText(Title(r.Str(value)))),
        new("tojson", "ensure_ascii? indent? separators? sort_keys?", ToJson),
        new("trim", "chars?", (r, value, a) => r.NewText(PythonStrings.Strip(
            r.Str(value), a[0] is null or NoneValue ? null : Text(a[0]!), start: true, end: true), IsMarkup(value))),
        new("truncate", "length? killwords? end? leeway?", Truncate),
        new("upper", "", (r, value, _) => r.NewText(PythonCase.Upper(r.Str(value)), IsMarkup(value))),
        new("urlencode", "", (r, value, _) => r.NewText(UrlEncode(r, value))),
        new("wordcount", "", (r, value, _) => new IntValue(WordCount(r.Str(value)))),
    ];

    public static bool IsTrue(Value? value) => value is not null && value.IsTrue;

    /// <summary>An argument that has to be a string.</summary>
    public static string Text(Value value) => value is StringValue text
        ? text.Text : throw new TemplateFault($"a string is expected, found a value of type {value.TypeName}");

    /// <summary>An argument that has to be an integer, of 32 bits where it is given.</summary>
    public static int Integer(Value? value, int absent)
    {
        if (value is null) return absent;
        if (!PythonNumbers.TryInteger(value, out BigInteger number))
            throw new TemplateFault($"an integer is expected, found a value of type {value.TypeName}");
        return number >= int.MinValue && number <= int.MaxValue ? (int)number : throw new TemplateFault($"{number} is too large here");
    }

    private static StringValue AsText(Interpreter render, Value value) => value as StringValue ?? render.NewText(render.Str(value));

    private static bool IsMarkup(Value value) => value is StringValue { IsMarkup: true };

    private static TemplateFault NotANumber(Value value) => new($"a number is expected, found a value of type {value.TypeName}");

    private static Value Abs(Value value) => value switch
    {
        FloatValue f => new FloatValue(Math.Abs(f.Number)),
        UndefinedValue undefined => throw undefined.Fault(),
        _ => PythonNumbers.TryInteger(value, out BigInteger number) ? new IntValue(BigInteger.Abs(number)) : throw NotANumber(value),
    };

    private static Value Default(Value value, Value?[] arguments) =>
        value is UndefinedValue || (IsTrue(arguments[1]) && !value.IsTrue) ? arguments[0] ?? StringValue.Empty : value;

    private static StringValue Escape(Interpreter render, Value value) =>
        value is StringValue { IsMarkup: true } markup ? markup : render.NewText(PythonStrings.Escape(render.Str(value)), isMarkup: true);

    private static string FileSize(double bytes, bool binary)
    {
        if (bytes == 1) return "1 Byte";
        double unit = binary ? 1024 : 1000;
        if (bytes < unit) return $"{new BigInteger(Math.Truncate(bytes))} Bytes";
        string[] prefixes = binary
            ? ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
            : ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
        int power = 0;
        while (power < prefixes.Length - 1 && bytes >= Math.Pow(unit, power + 2)) power++;
        return $"{PythonNumbers.Fixed(unit * bytes / Math.Pow(unit, power + 2), 1)} {prefixes[power]}";
    }

    /// <summary>Python's <c>float(value)</c>, or null where it fails.</summary>
    private static double? ToFloat(Value value)
    {
        switch (value)
        {
            case UndefinedValue undefined: throw undefined.Fault();
            case StringValue text: return ParseFloat(text.Text);
            default: return PythonNumbers.TryFloat(value, out double number) ? number : null;
        }
    }

    private static double? ParseFloat(string text)
    {
        string trimmed = PythonStrings.Strip(text, null, start: true, end: true);
        string digits = RemoveUnderscores(trimmed) ?? "";
        switch (digits.TrimStart('+', '-').ToLowerInvariant())
        {
            case "inf" or "infinity" when digits.Length - digits.TrimStart('+', '-').Length <= 1:
                return digits[0] == '-' ? double.NegativeInfinity : double.PositiveInfinity;
            case "nan" when digits.Length <= 4: return double.NaN;
        }
        const NumberStyles Style = NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent;
        bool isPlain = digits.Length > 0 && (char.IsAsciiDigit(digits[^1]) || digits[^1] == '.') && !char.IsLetter(digits[0]);
        return isPlain && double.TryParse(digits, Style, CultureInfo.InvariantCulture, out double number) ? number : null;
    }

    /// <summary>Python's <c>int(value, base)</c>, then <c>int(float(value))</c>, or null where both fail.</summary>
    private static BigInteger? ToInteger(Value value, int radix)
    {
        if (value is StringValue text && ParseInteger(text.Text, radix) is BigInteger parsed) return parsed;
        if (PythonNumbers.TryInteger(value, out BigInteger integer)) return integer;
        if (value is FloatValue { Number: double.PositiveInfinity or double.NegativeInfinity })
            throw new TemplateFault("an infinite float has no integer");
        return ToFloat(value) is double number && double.IsFinite(number) ? new BigInteger(Math.Truncate(number)) : null;
    }

    private static BigInteger? ParseInteger(string text, int radix)
    {
        if (radix is not (0 or (>= 2 and <= 36))) return null;
        string digits = PythonStrings.Strip(text, null, start: true, end: true);
        bool negative = digits.StartsWith('-');
        if (negative || digits.StartsWith('+')) digits = digits[1..];
        int prefixed = digits switch { ['0', 'x' or 'X', ..] => 16, ['0', 'o' or 'O', ..] => 8, ['0', 'b' or 'B', ..] => 2, _ => 0 };
        if (prefixed != 0 && (radix == 0 || radix == prefixed)) (digits, radix) = (digits[2..], prefixed);
        if (radix == 0) radix = 10;
        if (RemoveUnderscores(digits) is not { Length: > 0 and <= PythonNumbers.MaxDigits } plain) return null;

        BigInteger number = 0;
        foreach (char c in plain)
        {
            int digit = char.IsAsciiDigit(c) ? c - '0' : char.IsAsciiLetter(c) ? (c | 0x20) - 'a' + 10 : int.MaxValue;
            if (digit >= radix) return null;
            number = number * radix + digit;
        }
        return negative ? -number : number;
    }

    /// <summary>The digits without the underscores that may stand between them; null where one stands elsewhere.</summary>
    private static string? RemoveUnderscores(string digits)
    {
        if (!digits.Contains('_')) return digits;
        for (int i = 0; i < digits.Length; i++)
        {
            bool isBetween = i > 0 && i + 1 < digits.Length
                && char.IsAsciiLetterOrDigit(digits[i - 1]) && char.IsAsciiLetterOrDigit(digits[i + 1]);
            if (digits[i] == '_' && !isBetween) return null;
        }
        return digits.Replace("_", "", StringComparison.Ordinal);
    }

    private static StringValue Indent(Interpreter render, Value value, Value?[] arguments)
    {
        string indentation = arguments[0] is StringValue given ? given.Text : StringMethods.Spaces(render, Integer(arguments[0], 4));
        bool first = IsTrue(arguments[1]), blank = IsTrue(arguments[2]);
        if (value is not StringValue text) throw new TemplateFault($"a string is expected, found a value of type {value.TypeName}");
        List<string> lines = PythonStrings.SplitLines(text.Text + "\n", keepEnds: false);
        render.Budget.Text(text.Text.Length + (long)indentation.Length * lines.Count);
        IEnumerable<string> indented = lines.Select((line, i) => (i == 0 ? first : blank || line.Length > 0) ? indentation + line : line);
        return new StringValue(string.Join('\n', indented), text.IsMarkup);
    }

    private static Value Round(Value value, int precision, string method)
    {
        if (value is UndefinedValue undefined) throw undefined.Fault();
        if (method is not ("common" or "ceil" or "floor")) throw new TemplateFault("the method of round is 'common', 'ceil' or 'floor'");
        if (method == "common" && PythonNumbers.TryInteger(value, out BigInteger integer))
            return new IntValue(PythonNumbers.Round(integer, precision));
        if (!PythonNumbers.TryFloat(value, out double number)) throw NotANumber(value);
        if (method == "common") return new FloatValue(PythonNumbers.Round(number, precision));
        double scale = Math.Pow(10, precision), scaled = number * scale;
        return new FloatValue((method == "ceil" ? Math.Ceiling(scaled) : Math.Floor(scaled)) / scale);
    }

    /// <summary>A letter after the start, whitespace, a hyphen or an opening bracket is upper case, everything else lower case.</summary>
    private static string Title(string text)
    {
        var words = new StringBuilder();
        bool atStart = true;
        foreach (string point in CodePoints.Split(text))
        {
            bool separates = PythonStrings.IsWhitespace(point[0]) || point[0] is '-' or '(' or '{' or '[' or '<';
            words.Append(separates ? point : atStart ? PythonCase.Upper(point) : PythonCase.Lower(point));
            atStart = separates;
        }
        return words.ToString();
    }

    private static StringValue ToJson(Interpreter render, Value value, Value?[] arguments)
    {
        string? indent = arguments[1] switch
        {
            null or NoneValue => null,
            StringValue text => text.Text,
            Value width => StringMethods.Spaces(render, Integer(width, 0)),
        };
        string item = indent is null ? ", " : ",", key = ": ";
        if (arguments[2] is not (null or NoneValue))
        {
            Value[] separators = [.. render.Iterate(arguments[2]!)];
            if (separators is not [StringValue first, StringValue second])
                throw new TemplateFault("the separators of tojson are two strings");
            (item, key) = (first.Text, second.Text);
        }
        var options = new PythonJsonOptions(IsTrue(arguments[0]), indent, item, key, IsTrue(arguments[3]));
        return new StringValue(PythonJson.Write(value, options, render));
    }

    private static Value Truncate(Interpreter render, Value value, Value?[] arguments)
    {
        string end = arguments[2] is null ? "..." : Text(arguments[2]!);
        int length = Integer(arguments[0], 255), leeway = arguments[3] is null or NoneValue ? 5 : Integer(arguments[3], 5);
        int endLength = CodePoints.Count(end), count = value.Length;
        if (length < endLength || leeway < 0)
            throw new TemplateFault("truncate needs a length of at least that of its end, and no negative leeway");
        if (count >= 0 && count <= (long)length + leeway) return value;
        string text = Text(value);
        string start = CodePoints.Slice(text, 0, 1, Math.Min(count, length - endLength));
        if (!IsTrue(arguments[1]) && start.LastIndexOf(' ') is int space and >= 0) start = start[..space];
        return render.NewText(start + end);
    }

    private static string UrlEncode(Interpreter render, Value value)
    {
        if (value is StringValue text) return Quote(text.Text, keepSlash: true);
        if (!Interpreter.IsIterable(value)) return Quote(render.Str(value), keepSlash: true);
        IEnumerable<Value> pairs = value is DictValue dict
            ? dict.Items.Select(item => SequenceValue.Tuple(item.Key, item.Value))
            : render.Iterate(value);
        return string.Join('&', pairs.Select(pair => render.Iterate(pair).ToArray() is [Value name, Value content]
            ? $"{QuotePart(name)}={QuotePart(content)}" : throw new TemplateFault("urlencode takes a mapping or pairs")));

        string QuotePart(Value part) => Quote(render.Str(part), keepSlash: false).Replace("%20", "+", StringComparison.Ordinal);
        static string Quote(string part, bool keepSlash)
        {
            string quoted = Uri.EscapeDataString(part);
            return keepSlash ? quoted.Replace("%2F", "/", StringComparison.Ordinal) : quoted;
        }
    }

    private static int WordCount(string text)
    {
        int count = 0;
        bool inWord = false;
        foreach (Rune rune in text.EnumerateRunes())
        {
            bool isWord = Rune.IsLetter(rune) || Rune.IsNumber(rune) || rune.Value == '_';
            if (isWord && !inWord) count++;
            inWord = isWord;
        }
        return count;
    }
}
