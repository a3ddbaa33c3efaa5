using System.Globalization;

namespace Engine.Text.Tokenization.Patterns;

/// <summary>
/// Reads the regular expressions of <c>tokenizer.json</c>: the subset of Oniguruma's Ruby syntax that pre-tokenizers use, with possessive
/// quantifiers, class intersections and scripts, which .NET's dialect lacks. Source: https://github.com/kkos/oniguruma/blob/master/doc/RE.
/// </summary>
internal sealed class PatternParser
{
    /// <summary>Stands for "no upper bound" in a <see cref="PatternNode.Repeat"/>.</summary>
    public const int Unbounded = int.MaxValue;

    private const int MaxDepth = 100;
    private const int MaxRepeat = 1000;
    private const int MaxQuantifiers = 8;

    // Far above any published pattern; a set takes 136 KB.
    private const int MaxLength = 16384;
    private const int MaxSets = 256;

    private readonly string text;
    private int position;
    private int depth;
    private int sets;

    private PatternParser(string text) => this.text = text;

    private bool AtEnd => position == text.Length;

    private char Next => position < text.Length ? text[position] : '\0';

    /// <summary>Parses a pattern.</summary>
    /// <exception cref="FormatException">It is malformed or uses what is not supported; the message says what and where.</exception>
    public static PatternNode Parse(string pattern)
    {
        if (pattern.Length > MaxLength)
            throw new FormatException($"the pattern has {pattern.Length} characters, expected at most {MaxLength}");
        var parser = new PatternParser(pattern);
        PatternNode node = parser.Choice(ignoreCase: false);
        return parser.AtEnd ? node : throw parser.Error("unbalanced ')'");
    }

    private FormatException Error(string problem) => new($"{problem} at character {position} of the pattern");

    private PatternNode Choice(bool ignoreCase)
    {
        if (++depth > MaxDepth)
            throw Error("groups nest too deeply");
        var alternatives = new List<PatternNode>();
        do
        {
            alternatives.Add(Sequence(ref ignoreCase));
        }
        while (Accept('|'));
        depth--;
        return alternatives.Count == 1 ? alternatives[0] : new PatternNode.Choice(alternatives);
    }

    private PatternNode.Sequence Sequence(ref bool ignoreCase)
    {
        var items = new List<PatternNode>();
        while (!AtEnd && Next is not ('|' or ')'))
        {
            if (Accept("(?i)"))
                ignoreCase = true;
            else if (Accept("(?-i)"))
                ignoreCase = false;
            else
                items.Add(Quantified(Atom(ignoreCase)));
        }
        return new PatternNode.Sequence(items);
    }

    private PatternNode Quantified(PatternNode item)
    {
        for (int count = 0; !AtEnd; count++)
        {
            if (count > MaxQuantifiers)
                throw Error("too many quantifiers in a row");
            (int minimum, int maximum) bounds;
            if (Accept('*'))
                bounds = (0, Unbounded);
            else if (Accept('+'))
                bounds = (1, Unbounded);
            else if (Accept('?'))
                bounds = (0, 1);
            else if (Next != '{' || !TryBounds(out bounds))
                return item;
            bool lazy = Accept('?');
            item = new PatternNode.Repeat(item, bounds.minimum, bounds.maximum, lazy);
            if (!lazy && Accept('+'))
                item = new PatternNode.Atomic(item);
        }
        return item;
    }

    /// <summary>
    /// Reads <c>{n}</c>, <c>{n,}</c>, <c>{,m}</c> or <c>{n,m}</c>; anything else after a brace makes the brace a literal.
    /// </summary>
    private bool TryBounds(out (int Minimum, int Maximum) bounds)
    {
        int start = position++;
        int? minimum = Number(), maximum = minimum;
        if (Accept(','))
            maximum = Number() ?? Unbounded;
        bounds = (minimum ?? 0, maximum ?? 0);
        if (maximum is null || !Accept('}'))
        {
            position = start;
            return false;
        }
        if (bounds.Minimum > MaxRepeat || (bounds.Maximum > MaxRepeat && bounds.Maximum != Unbounded) || bounds.Minimum > bounds.Maximum)
            throw Error($"the bounds of a repetition are not an ordered pair of numbers up to {MaxRepeat}");
        return true;
    }

    private int? Number()
    {
        int start = position;
        while (char.IsAsciiDigit(Next))
            position++;
        if (position == start)
            return null;
        return int.TryParse(text.AsSpan(start, position - start), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? number
            : throw Error("the number is too large");
    }

    private PatternNode Atom(bool ignoreCase)
    {
        if (Accept('('))
            return Group(ignoreCase);
        if (Accept('['))
            return Set(Class(), ignoreCase);
        if (Accept('.'))
            return Set(Single('\n').Complement(), ignoreCase: false);
        if (Accept('^'))
            return new PatternNode.Assertion(PatternAssertion.LineStart);
        if (Accept('$'))
            return new PatternNode.Assertion(PatternAssertion.LineEnd);
        if (Next is '*' or '+' or '?')
            throw Error($"'{Next}' repeats nothing");
        if (Next != '\\')
            return Literal(CodePoint(), ignoreCase);
        PatternAssertion? assertion = position + 1 == text.Length ? null : text[position + 1] switch
        {
            'A' => PatternAssertion.TextStart,
            'z' => PatternAssertion.TextEnd,
            'b' => PatternAssertion.WordBoundary,
            'B' => PatternAssertion.NotWordBoundary,
            _ => null,
        };
        if (assertion is { } kind)
        {
            position += 2;
            return new PatternNode.Assertion(kind);
        }
        CharacterSet? set = Escape(out int codePoint);
        return set is null ? Literal(codePoint, ignoreCase) : Set(set, ignoreCase);
    }

    private PatternNode Group(bool ignoreCase)
    {
        PatternNode node;
        if (Accept("?:"))
            node = Choice(ignoreCase);
        else if (Accept("?i:"))
            node = Choice(true);
        else if (Accept("?-i:"))
            node = Choice(false);
        else if (Accept("?="))
            node = new PatternNode.Lookahead(Choice(ignoreCase), Negative: false);
        else if (Accept("?!"))
            node = new PatternNode.Lookahead(Choice(ignoreCase), Negative: true);
        else if (Accept("?>"))
            node = new PatternNode.Atomic(Choice(ignoreCase));
        else if (Next == '?')
            throw Error("this kind of group is not supported");
        else
            node = Choice(ignoreCase);
        return Accept(')') ? node : throw Error("expected ')'");
    }

    /// <summary>
    /// Reads a class after its opening bracket: unions of ranges, escapes and nested classes, joined by <c>&amp;&amp;</c>.
    /// </summary>
    private CharacterSet Class()
    {
        if (++depth > MaxDepth)
            throw Error("classes nest too deeply");
        bool negative = Accept('^');
        CharacterSet? intersection = null;
        CharacterSet union = new();
        for (bool first = true; first || Next != ']' || AtEnd; first = false)
        {
            if (AtEnd)
                throw Error("expected ']'");
            if (Accept("&&"))
            {
                intersection = Intersect(intersection, union);
                union = new CharacterSet();
            }
            else
            {
                AddItem(union);
            }
        }
        position++;
        depth--;
        CharacterSet set = Intersect(intersection, union);
        return negative ? set.Complement() : set;
    }

    private static CharacterSet Intersect(CharacterSet? left, CharacterSet right)
    {
        if (left is not null)
            right.IntersectWith(left);
        return right;
    }

    private void AddItem(CharacterSet union)
    {
        CharacterSet? set = Accept("[:") ? PosixClass() : Accept('[') ? Class() : null;
        int low = 0;
        set ??= ClassAtom(out low);
        if (set is null)
        {
            AddRange(union, low);
            return;
        }
        if (++sets > MaxSets)
            throw Error($"the pattern has more than {MaxSets} sets");
        union.UnionWith(set);
    }

    private void AddRange(CharacterSet union, int low)
    {
        int high = low;
        if (Next == '-' && position + 1 < text.Length && text[position + 1] != ']')
        {
            position++;
            if (ClassAtom(out high) is not null || high < low)
                throw Error("the range of a class is not ordered");
        }
        union.AddRange(low, high);
    }

    /// <summary>Reads an escape that stands for a set, or else one code point.</summary>
    private CharacterSet? ClassAtom(out int codePoint)
    {
        if (AtEnd)
            throw Error("expected ']'");
        if (Next == '\\')
            return Escape(out codePoint);
        codePoint = CodePoint();
        return null;
    }

    private CharacterSet PosixClass()
    {
        bool negative = Accept('^');
        int end = text.IndexOf(":]", position, StringComparison.Ordinal);
        if (end < 0)
            throw Error("expected ':]'");
        CharacterSet set = text[position..end] switch
        {
            "alpha" => Property("L"),
            "digit" => UnicodeProperties.Digit,
            "space" => UnicodeProperties.WhiteSpace,
            "punct" => Property("P"),
            "upper" => Property("Lu"),
            "lower" => Property("Ll"),
            string name => throw Error($"the class [:{name}:] is not supported"),
        };
        position = end + 2;
        return negative ? set.Complement() : set;
    }

    /// <summary>Reads an escape that stands for a set; null where it stands for <paramref name="codePoint"/>.</summary>
    private CharacterSet? Escape(out int codePoint)
    {
        position++;
        if (AtEnd)
            throw Error("the pattern ends in '\\'");
        codePoint = 0;
        char kind = text[position];
        switch (kind)
        {
            case 's': position++; return UnicodeProperties.WhiteSpace;
            case 'S': position++; return UnicodeProperties.WhiteSpace.Complement();
            case 'd': position++; return UnicodeProperties.Digit;
            case 'D': position++; return UnicodeProperties.Digit.Complement();
            case 'w': position++; return UnicodeProperties.Word;
            case 'W': position++; return UnicodeProperties.Word.Complement();
            case 'p': return BracedProperty();
            case 'P': return BracedProperty().Complement();
            default: break;
        }
        codePoint = kind switch
        {
            'n' => Simple('\n'),
            'r' => Simple('\r'),
            't' => Simple('\t'),
            'f' => Simple('\f'),
            'v' => Simple('\v'),
            'a' => Simple('\a'),
            'e' => Simple('\u001B'),
            '0' => Simple('\0'),
            'x' => Hexadecimal(2),
            'u' => Hexadecimal(4),
            _ when char.IsAsciiLetterOrDigit(kind) => throw Error($"the escape \\{kind} is not supported"),
            _ => CodePoint(),
        };
        return null;
    }

    private int Simple(char character)
    {
        position++;
        return character;
    }

    private int Hexadecimal(int digits)
    {
        position++;
        int start = position, length = digits;
        bool braced = Accept('{');
        if (braced)
        {
            start = position;
            length = text.IndexOf('}', position) - position;
        }
        if (length is < 1 or > 6 || start + length > text.Length
            || !int.TryParse(text.AsSpan(start, length), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int codePoint)
            || codePoint > 0x10FFFF)
        {
            throw Error("expected the hexadecimal digits of a code point");
        }
        position = start + length + (braced ? 1 : 0);
        return codePoint;
    }

    private CharacterSet BracedProperty()
    {
        position++;
        int end = Next == '{' ? text.IndexOf('}', position) : -1;
        if (end < 0)
            throw Error("expected a property name in braces");
        string name = text[(position + 1)..end];
        CharacterSet set = Property(name.TrimStart('^'));
        position = end + 1;
        return name.StartsWith('^') ? set.Complement() : set;
    }

    private CharacterSet Property(string name) => UnicodeProperties.Find(name) ?? throw Error($"the property \"{name}\" is not supported");

    private PatternNode Literal(int codePoint, bool ignoreCase) =>
        ignoreCase && UnicodeProperties.Word.Contains(codePoint) ? Set(Single(codePoint), ignoreCase) : new PatternNode.Literal(codePoint);

    private PatternNode.One Set(CharacterSet set, bool ignoreCase) => ++sets <= MaxSets
        ? new PatternNode.One(ignoreCase ? set.IgnoreCase() : set)
        : throw Error($"the pattern has more than {MaxSets} sets");

    private static CharacterSet Single(int codePoint)
    {
        var set = new CharacterSet();
        set.Add(codePoint);
        return set;
    }

    private int CodePoint()
    {
        int codePoint = CodePoints.At(text, position, out int length);
        position += length;
        return codePoint;
    }

    private bool Accept(char character)
    {
        if (AtEnd || text[position] != character)
            return false;
        position++;
        return true;
    }

    private bool Accept(string token)
    {
        if (string.CompareOrdinal(text, position, token, 0, token.Length) != 0)
            return false;
        position += token.Length;
        return true;
    }
}
