using System.Globalization;
using System.Numerics;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>
/// Python's two ways to format text: <c>"%5.1f" % x</c> and <c>"{:>5.1f}".format(x)</c>, which share the formats of numbers.
/// </summary>
internal static class PythonFormat
{
    private const int MaxPrecision = 1000;

    /// <summary>One field: <c>[[fill]align][sign][#][0][width][,][.precision][type]</c>.</summary>
    private readonly record struct Spec(
        char Fill, char Align, char Sign, bool Alternate, int Width, bool Grouped, int Precision, char Type);

    /// <summary>The text of <c>format % values</c>.</summary>
    public static string Percent(string format, Value values, Interpreter render)
    {
        var text = new StringBuilder();
        IReadOnlyList<Value> positional = values is SequenceValue { Kind: SequenceKind.Tuple } tuple ? tuple.Items : [values];
        int next = 0;
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%')
            {
                text.Append(format[i]);
                continue;
            }
            i++;
            string? key = null;
            if (i < format.Length && format[i] == '(')
            {
                int close = format.IndexOf(')', i);
                if (close < 0) throw new TemplateFault("the format has an unclosed key");
                key = format[(i + 1)..close];
                i = close + 1;
            }
            Spec spec = ParsePercent(format, ref i, Star);
            if (i >= format.Length) throw new TemplateFault("the format ends within a field");
            string field = format[i] == '%' ? "%" : Pad(PercentField(format[i], spec, Argument(key)), spec, render.Budget);
            render.Budget.Append(text, field.Length);
            text.Append(field);
        }
        if (next < positional.Count && values is not (DictValue or UndefinedValue or SequenceValue { Kind: not SequenceKind.Tuple }))
            throw new TemplateFault("not all arguments are used by the format");
        return text.ToString();

        Value Argument(string? key)
        {
            if (key is null)
                return next < positional.Count ? positional[next++] : throw new TemplateFault("the format needs more arguments");
            if (values is not DictValue dict) throw new TemplateFault("the format needs a mapping");
            return dict.Find(key) ?? throw new TemplateFault($"the format needs the key '{key}'");
        }

        int Star() => PythonNumbers.TryInteger(Argument(null), out BigInteger width) && BigInteger.Abs(width) < int.MaxValue
            ? (int)width : throw new TemplateFault("the format needs an integer for '*'");

        string PercentField(char type, Spec spec, Value value)
        {
            switch (type)
            {
                case 's' or 'r' or 'a':
                    string shown = type == 's' ? PythonText.Str(value, render.Budget) : PythonText.Repr(value, render.Budget);
                    return spec.Precision >= 0 ? Truncate(shown, spec.Precision) : shown;
                case 'c' when value is StringValue { Length: 1 } character: return character.Text;
                case 'd' or 'i' or 'u' when value is FloatValue f && double.IsFinite(f.Number):
                    return FormatInteger(new BigInteger(Math.Truncate(f.Number)), spec with { Type = 'd' });
                case 'd' or 'i' or 'u' when PythonNumbers.TryInteger(value, out BigInteger number):
                    return FormatInteger(number, spec with { Type = 'd' });
                case 'x' or 'X' or 'o' when PythonNumbers.TryInteger(value, out BigInteger number):
                    return FormatInteger(number, spec with { Type = type });
                case 'e' or 'E' or 'f' or 'F' or 'g' or 'G' when PythonNumbers.TryFloat(value, out double number):
                    return FormatFloat(number, spec with { Type = type });
                default: throw new TemplateFault($"the format %{type} does not take a value of type {value.TypeName}");
            }
        }
    }

    /// <summary>The text of <c>format.format(*positional, **named)</c>.</summary>
    public static string Braces(string format, CallArguments arguments, Interpreter render)
    {
        var text = new StringBuilder();
        int next = 0;
        for (int i = 0; i < format.Length; i++)
        {
            char c = format[i];
            if (c is not ('{' or '}'))
            {
                text.Append(c);
            }
            else if (i + 1 < format.Length && format[i + 1] == c)
            {
                text.Append(c);
                i++;
            }
            else
            {
                int close = c == '{' ? format.IndexOf('}', i) : -1;
                if (close < 0) throw new TemplateFault($"the format has a single '{c}'");
                string name = format[(i + 1)..close];
                if (name.Contains('{')) throw new TemplateFault("nested fields in a format are not supported");
                string field = BraceField(name, arguments, ref next, render);
                render.Budget.Append(text, field.Length);
                text.Append(field);
                i = close;
            }
        }
        return text.ToString();
    }

    /// <summary>A value under a format specification, as <c>format(value, specification)</c> gives it.</summary>
    private static string Format(Value value, string specification, Interpreter render)
    {
        if (specification.Length == 0) return PythonText.Str(value, render.Budget);
        Spec spec = ParseSpec(specification);
        string field = value switch
        {
            StringValue s when spec.Type is '\0' or 's' => spec.Precision >= 0 ? Truncate(s.Text, spec.Precision) : s.Text,
            _ when spec.Type is '\0' or 'd' or 'x' or 'X' or 'o' or 'b' or 'n' && PythonNumbers.TryInteger(value, out BigInteger number)
                => FormatInteger(number, spec),
            _ when PythonNumbers.TryFloat(value, out double number) => FormatFloat(number, spec),
            _ => throw new TemplateFault($"a value of type {value.TypeName} does not take the format '{specification}'"),
        };
        if (spec.Align == '\0') spec = spec with { Align = value is StringValue ? '<' : '>' };
        return Pad(field, spec, render.Budget);
    }

    private static string BraceField(string field, CallArguments arguments, ref int next, Interpreter render)
    {
        int colon = field.IndexOf(':');
        string specification = colon < 0 ? "" : field[(colon + 1)..];
        string name = colon < 0 ? field : field[..colon];
        char conversion = '\0';
        if (name.Length >= 2 && name[^2] == '!') (name, conversion) = (name[..^2], name[^1]);

        string first = name.Split('.', '[')[0];
        Value value;
        if (first.Length == 0 || first.All(char.IsAsciiDigit))
        {
            int index = first.Length == 0 ? next++
                : int.TryParse(first, CultureInfo.InvariantCulture, out int given) ? given : int.MaxValue;
            value = index < arguments.Positional.Count ? arguments.Positional[index]
                : throw new TemplateFault("the format needs more arguments");
        }
        else
        {
            value = arguments.Find(first) ?? throw new TemplateFault($"the format needs the argument '{first}'");
        }
        value = FollowPath(value, name[first.Length..], render);
        return conversion switch
        {
            '\0' => Format(value, specification, render),
            's' => Format(new StringValue(PythonText.Str(value, render.Budget)), specification, render),
            'r' => Format(new StringValue(PythonText.Repr(value, render.Budget)), specification, render),
            _ => throw new TemplateFault($"the conversion '!{conversion}' is not supported"),
        };
    }

    /// <summary>The rest of a field's name: <c>.attribute</c> and <c>[key]</c>.</summary>
    private static Value FollowPath(Value value, string path, Interpreter render)
    {
        while (path.Length > 0)
        {
            bool isKey = path[0] == '[';
            int end = isKey ? path.IndexOf(']') : path.AsSpan(1).IndexOfAny('.', '[') is int at and >= 0 ? at + 1 : path.Length;
            if (end < 0) throw new TemplateFault("the format has an unclosed '['");
            string part = path[1..end];
            path = path[(isKey ? end + 1 : end)..];
            bool isIndex = int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int index);
            value = isKey
                ? Attributes.Item(value, isIndex ? new IntValue(index) : new StringValue(part), render)
                : Attributes.Get(value, part);
        }
        return value;
    }

    private static Spec ParsePercent(string format, ref int i, Func<int> star)
    {
        var spec = new Spec(' ', '>', '\0', false, 0, false, -1, '\0');
        for (; i < format.Length && "-+ #0".Contains(format[i]); i++)
        {
            spec = format[i] switch
            {
                '-' => spec with { Align = '<', Fill = ' ' },
                '+' => spec with { Sign = '+' },
                ' ' when spec.Sign != '+' => spec with { Sign = ' ' },
                '#' => spec with { Alternate = true },
                '0' when spec.Align != '<' => spec with { Align = '=', Fill = '0' },
                _ => spec,
            };
        }
        spec = spec with { Width = ReadCount(format, ref i, star) };
        if (spec.Width < 0) spec = spec with { Width = -spec.Width, Align = '<', Fill = ' ' };
        if (i < format.Length && format[i] == '.')
        {
            i++;
            spec = spec with { Precision = Math.Max(0, ReadCount(format, ref i, star)) };
        }
        if (i < format.Length && format[i] is 's' or 'r' or 'a' or 'c' && spec.Align == '=') spec = spec with { Align = '>', Fill = ' ' };
        return spec;
    }

    private static int ReadCount(string format, ref int i, Func<int>? star = null)
    {
        if (star is not null && i < format.Length && format[i] == '*')
        {
            i++;
            return star();
        }
        long count = 0;
        for (; i < format.Length && char.IsAsciiDigit(format[i]); i++)
        {
            count = count * 10 + (format[i] - '0');
            if (count > int.MaxValue) throw new TemplateFault("the format has a number that is too large");
        }
        return (int)count;
    }

    private static Spec ParseSpec(string text)
    {
        var spec = new Spec(' ', '\0', '\0', false, 0, false, -1, '\0');
        int i = 0;
        if (text.Length > 1 && "<>^=".Contains(text[1])) (spec, i) = (spec with { Fill = text[0], Align = text[1] }, 2);
        else if ("<>^=".Contains(text[0])) (spec, i) = (spec with { Align = text[0] }, 1);
        if (i < text.Length && text[i] is '+' or '-' or ' ') spec = spec with { Sign = text[i++] };
        if (i < text.Length && text[i] == '#') (spec, i) = (spec with { Alternate = true }, i + 1);
        if (i < text.Length && text[i] == '0')
        {
            if (spec.Align == '\0') spec = spec with { Fill = '0', Align = '=' };
            i++;
        }
        spec = spec with { Width = ReadCount(text, ref i) };
        if (i < text.Length && text[i] == ',') (spec, i) = (spec with { Grouped = true }, i + 1);
        if (i < text.Length && text[i] == '.')
        {
            i++;
            spec = spec with { Precision = ReadCount(text, ref i) };
        }
        if (i < text.Length) spec = spec with { Type = text[i++] };
        return i == text.Length ? spec : throw new TemplateFault($"'{text}' is not a format");
    }

    private static string FormatInteger(BigInteger number, Spec spec)
    {
        BigInteger absolute = BigInteger.Abs(number);
        (string digits, string prefix) = spec.Type switch
        {
            'x' => (Hexadecimal(absolute).ToLowerInvariant(), "0x"),
            'X' => (Hexadecimal(absolute), "0X"),
            'o' => (Radix(absolute, 3), "0o"),
            'b' => (Radix(absolute, 1), "0b"),
            _ => (absolute.ToString(CultureInfo.InvariantCulture), ""),
        };
        if (spec.Precision > MaxPrecision) throw new TemplateFault($"a format's precision is at most {MaxPrecision}");
        if (spec.Precision > 0) digits = digits.PadLeft(spec.Precision, '0');
        return SignOf(number.Sign < 0, spec) + (spec.Alternate ? prefix : "") + (spec.Grouped ? Group(digits) : digits);
    }

    private static string Hexadecimal(BigInteger number) =>
        number.IsZero ? "0" : number.ToString("X", CultureInfo.InvariantCulture).TrimStart('0');

    private static string Radix(BigInteger number, int bitsPerDigit)
    {
        var digits = new StringBuilder();
        for (; !number.IsZero; number >>= bitsPerDigit) digits.Insert(0, (char)('0' + (int)(number & ((1 << bitsPerDigit) - 1))));
        return digits.Length == 0 ? "0" : digits.ToString();
    }

    private static string FormatFloat(double number, Spec spec)
    {
        if (spec.Precision > MaxPrecision) throw new TemplateFault($"a format's precision is at most {MaxPrecision}");
        string sign = SignOf(double.IsNegative(number) && !double.IsNaN(number), spec);
        double absolute = Math.Abs(number);
        if (!double.IsFinite(number)) return sign + (double.IsNaN(number) ? "nan" : "inf");
        int precision = spec.Precision >= 0 ? spec.Precision : 6;
        string digits = spec.Type switch
        {
            'f' or 'F' => PythonNumbers.Fixed(absolute, precision),
            'e' or 'E' => Scientific(absolute, precision),
            'g' or 'G' or 'n' => General(absolute, Math.Max(precision, 1)),
            '%' => PythonNumbers.Fixed(absolute * 100, precision) + "%",
            '\0' when spec.Precision < 0 => PythonNumbers.Repr(absolute),
            _ => throw new TemplateFault($"the format '{spec.Type}' is not supported for a float"),
        };
        if (char.IsUpper(spec.Type)) digits = digits.ToUpperInvariant();
        if (spec.Grouped)
        {
            int point = digits.AsSpan().IndexOfAny('.', 'e', '%') is int at and >= 0 ? at : digits.Length;
            digits = Group(digits[..point]) + digits[point..];
        }
        return sign + digits;
    }

    private static string Scientific(double number, int precision)
    {
        string text = number.ToString("E" + precision, CultureInfo.InvariantCulture); // d.ddddE+004
        int e = text.IndexOf('E');
        return $"{text[..e]}e{text[e + 1]}{text[(e + 2)..].TrimStart('0').PadLeft(2, '0')}";
    }

    private static string General(double number, int precision)
    {
        string scientific = Scientific(number, precision - 1);
        int e = scientific.IndexOf('e');
        int exponent = int.Parse(scientific[(e + 1)..], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        return exponent >= -4 && exponent < precision
            ? TrimZeros(PythonNumbers.Fixed(number, precision - 1 - exponent))
            : TrimZeros(scientific[..e]) + scientific[e..];

        static string TrimZeros(string digits) => digits.Contains('.') ? digits.TrimEnd('0').TrimEnd('.') : digits;
    }

    private static string SignOf(bool negative, Spec spec) => negative ? "-" : spec.Sign is '+' or ' ' ? spec.Sign.ToString() : "";

    private static string Group(string digits)
    {
        var grouped = new StringBuilder(digits);
        for (int at = digits.Length - 3; at > 0; at -= 3) grouped.Insert(at, ',');
        return grouped.ToString();
    }

    private static string Truncate(string text, int count) => CodePoints.Slice(text, 0, 1, Math.Min(count, CodePoints.Count(text)));

    private static string Pad(string field, Spec spec, Budget budget)
    {
        int missing = spec.Width - CodePoints.Count(field);
        if (missing <= 0) return field;
        budget.Text(spec.Width);
        switch (spec.Align)
        {
            case '<': return field + new string(spec.Fill, missing);
            case '^': return new string(spec.Fill, missing / 2) + field + new string(spec.Fill, missing - missing / 2);
            case '=':
                int digits = field.AsSpan().IndexOfAnyExcept("+- ");
                return field[..digits] + new string(spec.Fill, missing) + field[digits..];
            default: return new string(spec.Fill, missing) + field;
        }
    }
}
