using System.Text;

namespace Engine.Text.Templates;

/// <summary>The methods of Python's <c>str</c>. What one makes of marked-up text is marked up as well.</summary>
internal static class StringMethods
{
    public static Native[] All() =>
    [
        new("capitalize", "", Change(PythonCase.Capitalize)),
        new("casefold", "", Change(text => PythonCase.Lower(text).Replace("ß", "ss", StringComparison.Ordinal).Replace('ς', 'σ'))),
        new("center", "width fillchar?", (r, self, a) => Pad(r, self, a, (missing, width) => missing / 2 + (missing & width & 1))),
        new("count", "sub start? end?", Count),
        new("endswith", "suffix start? end?", (r, self, a) => HasAffix(r, self, a, atEnd: true)),
        new("find", "sub start? end?", (r, self, a) => new IntValue(Find(r, self, a, fromEnd: false))),
        new("format", (r, self, a) => r.NewText(PythonFormat.Braces(Text(self), a, r))),
        new("index", "sub start? end?", (r, self, a) => Found(Find(r, self, a, fromEnd: false))),
        new("isalnum", "", Is(rune => Rune.IsLetter(rune) || Rune.IsNumber(rune))),
        new("isalpha", "", Is(Rune.IsLetter)),
        new("isascii", "", (_, self, _) => BoolValue.Of(Ascii.IsValid(Text(self)))),
        new("isdecimal", "", Is(Rune.IsDigit)),
        new("isdigit", "", Is(rune => Rune.IsDigit(rune) || (Rune.IsNumber(rune) && Rune.GetNumericValue(rune) is >= 0 and <= 9
            && Rune.GetUnicodeCategory(rune) == System.Globalization.UnicodeCategory.OtherNumber && IsSuperOrSubscript(rune)))),
        new("islower", "", (_, self, _) => BoolValue.Of(PythonCase.HasCase(Text(self), upper: false))),
        new("isnumeric", "", Is(Rune.IsNumber)),
        new("isspace", "", Is(rune => rune.IsBmp && PythonStrings.IsWhitespace((char)rune.Value))),
        new("istitle", "", (_, self, _) => BoolValue.Of(Text(self).Any(char.IsLetter) && Text(self) == PythonCase.Title(Text(self)))),
        new("isupper", "", (_, self, _) => BoolValue.Of(PythonCase.HasCase(Text(self), upper: true))),
        new("join", "iterable", Join),
        new("ljust", "width fillchar?", (r, self, a) => Pad(r, self, a, (_, _) => 0)),
        new("lower", "", Change(PythonCase.Lower)),
        new("lstrip", "chars?", (r, self, a) => Strip(r, self, a, start: true, end: false)),
        new("partition", "sep", (r, self, a) => Partition(r, self, a, fromEnd: false)),
        new("removeprefix", "prefix", (r, self, a) => RemoveAffix(r, self, a, atEnd: false)),
        new("removesuffix", "suffix", (r, self, a) => RemoveAffix(r, self, a, atEnd: true)),
        new("replace", "old new count?", (r, self, a) => new StringValue(PythonStrings.Replace(
            Text(self), Filters.Text(a[0]!), Filters.Text(a[1]!), Filters.Integer(a[2], -1), r.Budget), IsMarkup(self))),
        new("rfind", "sub start? end?", (r, self, a) => new IntValue(Find(r, self, a, fromEnd: true))),
        new("rindex", "sub start? end?", (r, self, a) => Found(Find(r, self, a, fromEnd: true))),
        new("rjust", "width fillchar?", (r, self, a) => Pad(r, self, a, (missing, _) => missing)),
        new("rpartition", "sep", (r, self, a) => Partition(r, self, a, fromEnd: true)),
        new("rsplit", "sep? maxsplit?", (r, self, a) => Split(r, self, a, fromEnd: true)),
        new("rstrip", "chars?", (r, self, a) => Strip(r, self, a, start: false, end: true)),
        new("split", "sep? maxsplit?", (r, self, a) => Split(r, self, a, fromEnd: false)),
        new("splitlines", "keepends?", (r, self, a) => List(r, PythonStrings.SplitLines(Text(self), Filters.IsTrue(a[0])))),
        new("startswith", "prefix start? end?", (r, self, a) => HasAffix(r, self, a, atEnd: false)),
        new("strip", "chars?", (r, self, a) => Strip(r, self, a, start: true, end: true)),
        new("swapcase", "", Change(text => string.Concat(CodePoints.Split(text).Select(SwapCase)))),
        new("title", "", Change(PythonCase.Title)),
        new("upper", "", Change(PythonCase.Upper)),
        new("zfill", "width", ZeroFill),
    ];

    /// <summary><c>str.center</c>, with the filter's rule for where an odd space goes.</summary>
    public static StringValue Center(Interpreter render, Value self, Value width) =>
        Pad(render, self, [width, null], (missing, total) => missing / 2 + (missing & total & 1));

    /// <summary>So many spaces, paid for.</summary>
    public static string Spaces(Interpreter render, int count)
    {
        render.Budget.Text(Math.Max(count, 0));
        return new string(' ', Math.Max(count, 0));
    }

    private static string Text(Value self) => ((StringValue)self).Text;

    private static bool IsMarkup(Value self) => ((StringValue)self).IsMarkup;

    private static NativeBody Change(Func<string, string> change) => (r, self, _) => r.NewText(change(Text(self)), IsMarkup(self));

    private static NativeBody Is(Func<Rune, bool> predicate) => (r, self, _) =>
    {
        r.Budget.Scan(Text(self).Length);
        return BoolValue.Of(PythonStrings.All(Text(self), predicate));
    };

    private static SequenceValue List(Interpreter render, List<string> texts)
    {
        render.Budget.Text(texts.Sum(text => (long)text.Length));
        return render.NewList(texts.Select(text => new StringValue(text)));
    }

    private static bool IsSuperOrSubscript(Rune rune) => rune.Value is 0xB2 or 0xB3 or 0xB9 or (>= 0x2070 and <= 0x2089);

    private static string SwapCase(string point)
    {
        string upper = PythonCase.Upper(point);
        return upper == point ? PythonCase.Lower(point) : upper;
    }

    private static StringValue Strip(Interpreter render, Value self, Value?[] arguments, bool start, bool end)
    {
        string? characters = arguments[0] is null or NoneValue ? null : Filters.Text(arguments[0]!);
        return render.NewText(PythonStrings.Strip(Text(self), characters, start, end), IsMarkup(self));
    }

    private static SequenceValue Split(Interpreter render, Value self, Value?[] arguments, bool fromEnd)
    {
        string? separator = arguments[0] is null or NoneValue ? null : Filters.Text(arguments[0]!);
        if (separator is "") throw new TemplateFault("a string cannot be split at nothing");
        render.Budget.Scan(Text(self).Length);
        int most = Filters.Integer(arguments[1], -1);
        List<string> parts = fromEnd ? PythonStrings.SplitFromEnd(Text(self), separator, most)
            : separator is null ? PythonStrings.SplitAtWhitespace(Text(self), most)
            : PythonStrings.Split(Text(self), separator, most);
        return List(render, parts);
    }

    private static SequenceValue Partition(Interpreter render, Value self, Value?[] arguments, bool fromEnd)
    {
        string text = Text(self), separator = Filters.Text(arguments[0]!);
        if (separator.Length == 0) throw new TemplateFault("a string cannot be split at nothing");
        render.Budget.Text(text.Length);
        int at = fromEnd ? PythonStrings.LastIndexOf(text, separator) : PythonStrings.IndexOf(text, separator);
        (string before, string between, string after) = at >= 0 ? (text[..at], separator, text[(at + separator.Length)..])
            : fromEnd ? ("", "", text) : (text, "", "");
        return SequenceValue.Tuple(new StringValue(before), new StringValue(between), new StringValue(after));
    }

    private static StringValue Join(Interpreter render, Value self, Value?[] arguments)
    {
        var text = new StringBuilder();
        bool first = true;
        foreach (Value item in render.Iterate(arguments[0]!))
        {
            string piece = first ? Filters.Text(item) : Text(self) + Filters.Text(item);
            first = false;
            render.Budget.Append(text, piece.Length);
            text.Append(piece);
        }
        return new StringValue(text.ToString(), IsMarkup(self));
    }

    /// <summary>
    /// The string between the arguments <c>start</c> and <c>end</c>, the second and third; null where start lies behind its end.
    /// </summary>
    private static string? Window(Interpreter render, Value self, Value?[] arguments, out int start)
    {
        render.Budget.Scan(Text(self).Length);
        start = 0;
        if (arguments[1] is null or NoneValue && arguments[2] is null or NoneValue) return Text(self);
        if (PythonNumbers.TryInteger(arguments[1], out var first) && first > self.Length) return null;
        start = self.Length - Operators.Slice(self, arguments[1], null, null, render).Length;
        int end = Operators.Slice(self, null, arguments[2], null, render).Length;
        return end < start ? null : CodePoints.Slice(Text(self), start, 1, end - start);
    }

    /// <summary>Where the first argument is found, in code points of the whole string; −1 where it is not.</summary>
    private static int Find(Interpreter render, Value self, Value?[] arguments, bool fromEnd)
    {
        string part = Filters.Text(arguments[0]!);
        if (Window(render, self, arguments, out int start) is not string window) return -1;
        int at = fromEnd ? PythonStrings.LastIndexOf(window, part) : PythonStrings.IndexOf(window, part);
        return at < 0 ? -1 : start + CodePoints.IndexOf(window, at);
    }

    private static IntValue Found(int index) => index >= 0 ? new IntValue(index) : throw new TemplateFault("the substring is not found");

    private static IntValue Count(Interpreter render, Value self, Value?[] arguments)
    {
        string part = Filters.Text(arguments[0]!);
        if (Window(render, self, arguments, out _) is not string window) return new IntValue(0);
        return new IntValue(part.Length == 0 ? CodePoints.Count(window) + 1 : PythonStrings.Matches(window, part).Count());
    }

    private static BoolValue HasAffix(Interpreter render, Value self, Value?[] arguments, bool atEnd)
    {
        Value[] affixes = arguments[0] is SequenceValue { Kind: SequenceKind.Tuple } several ? [.. several.Items] : [arguments[0]!];
        string[] texts = Array.ConvertAll(affixes, Filters.Text);
        if (Window(render, self, arguments, out _) is not string window) return BoolValue.False;
        return BoolValue.Of(texts.Any(affix =>
        {
            render.Budget.Scan(affix.Length);
            return atEnd ? window.EndsWith(affix, StringComparison.Ordinal) : window.StartsWith(affix, StringComparison.Ordinal);
        }));
    }

    private static StringValue RemoveAffix(Interpreter render, Value self, Value?[] arguments, bool atEnd)
    {
        string text = Text(self), affix = Filters.Text(arguments[0]!);
        bool found = atEnd ? text.EndsWith(affix, StringComparison.Ordinal) : text.StartsWith(affix, StringComparison.Ordinal);
        if (!found) return (StringValue)self;
        return render.NewText(atEnd ? text[..^affix.Length] : text[affix.Length..], IsMarkup(self));
    }

    /// <summary>
    /// Fills up to a width of code points; <paramref name="missingBefore"/> says how many of the missing ones go in front.
    /// </summary>
    private static StringValue Pad(Interpreter render, Value self, Value?[] arguments, Func<int, int, int> missingBefore)
    {
        int width = Filters.Integer(arguments[0], 0), missing = width - self.Length;
        string fill = arguments[1] is null ? " " : Filters.Text(arguments[1]!);
        if (CodePoints.Count(fill) != 1) throw new TemplateFault("what a string is filled up with is one character");
        if (missing <= 0) return (StringValue)self;
        render.Budget.Text(width + (long)fill.Length * missing);
        int before = missingBefore(missing, width);
        string padded = Repeat(fill, before) + Text(self) + Repeat(fill, missing - before);
        return new StringValue(padded, IsMarkup(self));

        static string Repeat(string fill, int count) => new StringBuilder().Insert(0, fill, count).ToString();
    }

    private static StringValue ZeroFill(Interpreter render, Value self, Value?[] arguments)
    {
        string text = Text(self);
        int missing = Filters.Integer(arguments[0], 0) - self.Length;
        if (missing <= 0) return (StringValue)self;
        render.Budget.Text((long)text.Length + missing);
        int sign = text.Length > 0 && text[0] is '+' or '-' ? 1 : 0;
        return new StringValue(text[..sign] + new string('0', missing) + text[sign..], IsMarkup(self));
    }
}
