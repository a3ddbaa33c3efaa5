using System.Runtime.CompilerServices;

namespace Engine.Text.Templates;

/// <summary>A cursor over the tokens, with the errors both parsers report.</summary>
internal sealed class TokenStream(List<Token> tokens)
{
    private const int MaxNesting = 1000;

    private int _position, _nesting;

    public Token Current => tokens[_position];

    public Token Following => tokens[Math.Min(_position + 1, tokens.Count - 1)];

    public int Line => Current.Line;

    public Token Next() => Current.Kind == TokenKind.End ? Current : tokens[_position++];

    public bool AtName(string name) => Current.Kind == TokenKind.Name && Current.Text == name;

    public bool AtOperator(string symbol) => Current.Kind == TokenKind.Operator && Current.Text == symbol;

    public bool SkipName(string name) => Skip(AtName(name));

    public bool SkipOperator(string symbol) => Skip(AtOperator(symbol));

    public Token Expect(TokenKind kind, string what) => Current.Kind == kind ? Next() : throw Unexpected(what);

    public string ExpectName(string what = "a name") => Expect(TokenKind.Name, what).Text;

    public void ExpectName(string name, string what)
    {
        if (!SkipName(name)) throw Unexpected(what);
    }

    public void ExpectOperator(string symbol)
    {
        if (!SkipOperator(symbol)) throw Unexpected($"'{symbol}'");
    }

    /// <summary>Bounds recursive descent; every rule that can contain itself holds one while it runs.</summary>
    public Level Nest()
    {
        if (++_nesting > MaxNesting || !RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw Fail("the template nests too deeply");
        return new Level(this);
    }

    public TemplateFault Unexpected(string expected) => Fail($"expected {expected}, found {Describe(Current)}");

    public TemplateFault Fail(string reason) => Fail(reason, Current);

    public static TemplateFault Fail(string reason, Token at) => new(reason, at.Line, at.Column);

    private static string Describe(Token token) => token.Kind switch
    {
        TokenKind.End => "the end of the template",
        TokenKind.String => "a string",
        TokenKind.Data => "text",
        _ => $"'{token.Text}'",
    };

    /// <summary>A level of nesting, left when it is disposed of.</summary>
    public readonly ref struct Level(TokenStream tokens)
    {
        public void Dispose() => tokens._nesting--;
    }

    private bool Skip(bool matches)
    {
        if (matches) _position++;
        return matches;
    }
}
