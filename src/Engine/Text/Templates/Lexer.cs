using System.Globalization;
using System.Numerics;
using System.Text;

namespace Engine.Text.Templates;

internal enum TokenKind { Data, BlockBegin, BlockEnd, OutputBegin, OutputEnd, Name, String, Number, Operator, End }

/// <summary>
/// A piece of the template. <see cref="Text"/> is the decoded text of data and strings; <see cref="Value"/> is set on numbers.
/// </summary>
internal readonly record struct Token(TokenKind Kind, string Text, int Line, int Column, Value? Value = null);

/// <summary>
/// Cuts a template into tokens with the whitespace rules that chat templates are rendered with: <c>trim_blocks</c> (the newline after a
/// block tag goes), <c>lstrip_blocks</c> (the blanks before a block tag that begins its line go), <c>-</c> and <c>+</c> to override either,
/// and one newline at the very end of the template goes.
/// </summary>
internal sealed class Lexer
{
    private static readonly string[] Operators =
    [
        "**", "//", "==", "!=", ">=", "<=",
        "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
    ];

    private readonly string _source;
    private readonly List<Token> _tokens = [];
    private int _position;
    private int _line = 1, _lineStart, _counted; // the line of _counted, and where it begins
    private bool _atLineStart = true;

    private Lexer(string source) => _source = source;

    public static List<Token> Tokenize(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        if (source.EndsWith('\n')) source = source[..^1];
        var lexer = new Lexer(source);
        lexer.ReadTemplate();
        return lexer._tokens;
    }

    private void ReadTemplate()
    {
        while (FindTag() is int tag and >= 0)
        {
            char kind = _source[tag + 1];
            char sign = SignAt(tag + 2);
            AddData(_position, tag, sign, kind == '{');
            int begin = tag;
            _position = tag + (sign == ' ' ? 2 : 3);
            switch (kind)
            {
                case '#': SkipComment(begin); break;
                case '%' when TrySkipKeywordTag("raw", _position, trimNewline: false) is int end and >= 0: ReadRaw(begin, end); break;
                case '%': ReadTag(begin, TokenKind.BlockBegin, TokenKind.BlockEnd, "%}"); break;
                default: ReadTag(begin, TokenKind.OutputBegin, TokenKind.OutputEnd, "}}"); break;
            }
        }
        AddData(_position, _source.Length, '+', isOutput: false);
        Add(TokenKind.End, "end of template", _source.Length);
    }

    private int FindTag()
    {
        for (int at = _position; (at = _source.IndexOf('{', at)) >= 0 && at + 1 < _source.Length; at++)
        {
            if (_source[at + 1] is '{' or '%' or '#') return at;
        }
        return -1;
    }

    private char SignAt(int position) => position < _source.Length && _source[position] is '-' or '+' ? _source[position] : ' ';

    /// <summary>Adds the text before a tag, less the whitespace that the tag's sign or <c>lstrip_blocks</c> takes away.</summary>
    private void AddData(int start, int end, char sign, bool isOutput)
    {
        ReadOnlySpan<char> text = _source.AsSpan(start, end - start);
        if (sign == '-')
        {
            text = text.TrimEnd(PythonStrings.Whitespace);
        }
        else if (sign == ' ' && !isOutput)
        {
            int lineStart = text.LastIndexOf('\n') + 1;
            bool beginsLine = lineStart > 0 || _atLineStart;
            if (beginsLine && text[lineStart..].Trim(PythonStrings.Whitespace).IsEmpty) text = text[..lineStart];
        }
        if (!text.IsEmpty) Add(TokenKind.Data, text.ToString(), start);
    }

    private void SkipComment(int begin)
    {
        int end = _source.IndexOf("#}", _position, StringComparison.Ordinal);
        if (end < 0) throw Fail("the comment is not closed", begin);
        char sign = end > _position ? _source[end - 1] : ' ';
        EndTag(end + 2, sign, trimNewline: true);
    }

    /// <summary>
    /// Moves behind a tag; <c>-</c> takes all whitespace that follows, otherwise a block takes one newline unless <c>+</c> keeps
    /// it.
    /// </summary>
    private void EndTag(int end, char sign, bool trimNewline)
    {
        if (sign == '-')
        {
            while (end < _source.Length && PythonStrings.IsWhitespace(_source[end])) end++;
        }
        else if (trimNewline && sign != '+' && end < _source.Length && _source[end] == '\n')
        {
            end++;
        }
        _position = end;
        _atLineStart = _source[end - 1] == '\n';
    }

    /// <summary>Where the tag <c>raw</c> or <c>endraw</c> whose name is expected at a position ends (moving there), or −1.</summary>
    private int TrySkipKeywordTag(string keyword, int position, bool trimNewline)
    {
        int at = SkipWhitespace(position);
        if (string.CompareOrdinal(_source, at, keyword, 0, keyword.Length) != 0) return -1;
        at = SkipWhitespace(at + keyword.Length);
        char sign = SignAt(at);
        if (sign == '+' && !trimNewline) return -1; // the opening tag of a raw block has no '+' form
        if (sign != ' ') at++;
        if (string.CompareOrdinal(_source, at, "%}", 0, 2) != 0) return -1;
        EndTag(at + 2, sign, trimNewline);
        return _position;
    }

    private void ReadRaw(int begin, int start)
    {
        for (int tag = start; (tag = _source.IndexOf("{%", tag, StringComparison.Ordinal)) >= 0; tag += 2)
        {
            char sign = SignAt(tag + 2);
            bool startsAtLineStart = _atLineStart;
            if (TrySkipKeywordTag("endraw", tag + (sign == ' ' ? 2 : 3), trimNewline: true) < 0) continue;
            bool endsAtLineStart = _atLineStart;
            _atLineStart = startsAtLineStart;
            AddData(start, tag, sign, isOutput: false);
            _atLineStart = endsAtLineStart;
            return;
        }
        throw Fail("the raw block is not closed", begin);
    }

    private void ReadTag(int begin, TokenKind beginKind, TokenKind endKind, string close)
    {
        Add(beginKind, _source.Substring(begin, 2), begin);
        var brackets = new Stack<char>();
        bool isBlock = endKind == TokenKind.BlockEnd;
        while (true)
        {
            _position = SkipWhitespace(_position);
            if (_position >= _source.Length) throw Fail("the tag is not closed", begin);
            if (brackets.Count == 0)
            {
                char sign = SignAt(_position);
                if (sign == '+' && !isBlock) sign = ' ';
                int at = sign == ' ' ? _position : _position + 1;
                if (string.CompareOrdinal(_source, at, close, 0, 2) == 0)
                {
                    Add(endKind, close, _position);
                    EndTag(at + 2, sign, isBlock);
                    return;
                }
            }
            char c = _source[_position];
            if (char.IsAsciiDigit(c)) ReadNumber();
            else if (c is '\'' or '"') ReadString(c);
            else if (c == '_' || char.IsLetter(c)) ReadName();
            else ReadOperator(brackets);
        }
    }

    private void ReadName()
    {
        int start = _position;
        while (_position < _source.Length && (_source[_position] == '_' || char.IsLetterOrDigit(_source[_position]))) _position++;
        Add(TokenKind.Name, _source[start.._position], start);
    }

    private void ReadOperator(Stack<char> brackets)
    {
        string symbol = Array.Find(Operators, o => string.CompareOrdinal(_source, _position, o, 0, o.Length) == 0)
            ?? throw Fail($"unexpected character '{_source[_position]}'", _position);
        if (symbol is "(" or "[" or "{")
        {
            brackets.Push(symbol switch { "(" => ')', "[" => ']', _ => '}' });
        }
        else if (symbol is ")" or "]" or "}" && (!brackets.TryPop(out char expected) || expected != symbol[0]))
        {
            throw Fail($"unexpected '{symbol}'", _position);
        }
        Add(TokenKind.Operator, symbol, _position);
        _position += symbol.Length;
    }

    private void ReadNumber()
    {
        int start = _position;
        bool afterDot = start > 0 && _source[start - 1] == '.'; // in `x.0.1` the numbers are two integers
        int radix = _source[start] == '0' && start + 1 < _source.Length
            ? char.ToLowerInvariant(_source[start + 1]) switch { 'x' => 16, 'o' => 8, 'b' => 2, _ => 10 } : 10;
        if (radix != 10)
        {
            _position += 2;
            BigInteger value = 0;
            while (_position < _source.Length && (_source[_position] == '_' || DigitValue(_source[_position]) < radix))
            {
                if (_source[_position] != '_') value = value * radix + DigitValue(_source[_position]);
                if (++_position - start > PythonNumbers.MaxDigits) throw Fail("the number is too long", start);
            }
            AddNumber(new IntValue(value), start);
            return;
        }

        SkipDigits();
        bool isFloat = false;
        if (!afterDot && DigitAt(_position + 1) && _source[_position] == '.')
        {
            isFloat = true;
            _position++;
            SkipDigits();
        }
        if (!afterDot && _position < _source.Length && _source[_position] is 'e' or 'E')
        {
            int exponent = _position + 1;
            if (exponent < _source.Length && _source[exponent] is '+' or '-') exponent++;
            if (DigitAt(exponent))
            {
                isFloat = true;
                _position = exponent;
                SkipDigits();
            }
        }
        string digits = _source[start.._position].Replace("_", "", StringComparison.Ordinal);
        if (digits.Length > PythonNumbers.MaxDigits) throw Fail("the number is too long", start);
        if (isFloat) AddNumber(new FloatValue(double.Parse(digits, CultureInfo.InvariantCulture)), start);
        else if (digits[0] == '0' && digits.Trim('0').Length > 0) throw Fail("a decimal number does not begin with 0", start);
        else AddNumber(new IntValue(BigInteger.Parse(digits, CultureInfo.InvariantCulture)), start);
    }

    private static int DigitValue(char c) => char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : int.MaxValue;

    private bool DigitAt(int position) => position < _source.Length && char.IsAsciiDigit(_source[position]);

    private void SkipDigits()
    {
        while (DigitAt(_position) || (_position < _source.Length && _source[_position] == '_' && DigitAt(_position + 1))) _position++;
    }

    private void ReadString(char quote)
    {
        int start = _position++;
        var text = new StringBuilder();
        while (true)
        {
            if (_position >= _source.Length) throw Fail("the string is not closed", start);
            char c = _source[_position++];
            if (c == quote) break;
            if (c == '\\') ReadEscape(text);
            else text.Append(c);
        }
        Add(TokenKind.String, text.ToString(), start);
    }

    /// <summary>Python's string escapes; one that Python does not know stays as it is written, backslash included.</summary>
    private void ReadEscape(StringBuilder text)
    {
        if (_position >= _source.Length) return;
        int start = _position - 1;
        char c = _source[_position++];
        switch (c)
        {
            case '\n': break;
            case '\\' or '\'' or '"': text.Append(c); break;
            case 'a': text.Append('\a'); break;
            case 'b': text.Append('\b'); break;
            case 'f': text.Append('\f'); break;
            case 'n': text.Append('\n'); break;
            case 'r': text.Append('\r'); break;
            case 't': text.Append('\t'); break;
            case 'v': text.Append('\v'); break;
            case 'x': AppendCodePoint(text, start, 2); break;
            case 'u': AppendCodePoint(text, start, 4); break;
            case 'U': AppendCodePoint(text, start, 8); break;
            case 'N': throw Fail(@"the escape \N{…} is not supported", start);
            case >= '0' and <= '7':
                int value = c - '0';
                for (int i = 0; i < 2 && _position < _source.Length && _source[_position] is >= '0' and <= '7'; i++)
                    value = value * 8 + (_source[_position++] - '0');
                text.Append((char)value);
                break;
            default: text.Append('\\').Append(c); break;
        }
    }

    private void AppendCodePoint(StringBuilder text, int start, int digits)
    {
        if (_position + digits > _source.Length
            || !uint.TryParse(
                _source.AsSpan(_position, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint code)
            || code > 0x10FFFF)
        {
            throw Fail($"the escape needs {digits} hexadecimal digits of a code point", start);
        }
        _position += digits;
        if (code <= 0xFFFF) text.Append((char)code);
        else text.Append(char.ConvertFromUtf32((int)code));
    }

    private int SkipWhitespace(int position)
    {
        while (position < _source.Length && PythonStrings.IsWhitespace(_source[position])) position++;
        return position;
    }

    private void Add(TokenKind kind, string text, int offset) => _tokens.Add(Locate(offset) with { Kind = kind, Text = text });

    private void AddNumber(Value value, int start) =>
        _tokens.Add(Locate(start) with { Kind = TokenKind.Number, Text = _source[start.._position], Value = value });

    private TemplateFault Fail(string reason, int offset)
    {
        Token at = Locate(offset);
        return new TemplateFault(reason, at.Line, at.Column);
    }

    private Token Locate(int offset)
    {
        if (offset < _counted) (_line, _lineStart, _counted) = (1, 0, 0); // only an error looks back
        for (; _counted < offset; _counted++)
        {
            if (_source[_counted] == '\n') (_line, _lineStart) = (_line + 1, _counted + 1);
        }
        return new Token(TokenKind.End, "", _line, offset - _lineStart + 1);
    }
}
