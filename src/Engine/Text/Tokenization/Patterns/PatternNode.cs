namespace Engine.Text.Tokenization.Patterns;

/// <summary>The syntax tree of a pattern.</summary>
internal abstract record PatternNode
{
    /// <summary>One code point of a set.</summary>
    public sealed record One(CharacterSet Set) : PatternNode;

    /// <summary>One code point.</summary>
    public sealed record Literal(int CodePoint) : PatternNode;

    /// <summary>All of them, one after the other; matches nothing at all when empty.</summary>
    public sealed record Sequence(IReadOnlyList<PatternNode> Items) : PatternNode;

    /// <summary>The first that leads to a match.</summary>
    public sealed record Choice(IReadOnlyList<PatternNode> Items) : PatternNode;

    /// <summary>From <see cref="Minimum"/> to <see cref="Maximum"/> times.</summary>
    public sealed record Repeat(PatternNode Item, int Minimum, int Maximum, bool Lazy) : PatternNode;

    /// <summary>Tried once, never entered again by backtracking.</summary>
    public sealed record Atomic(PatternNode Item) : PatternNode;

    /// <summary>Whether the item matches from here, without moving.</summary>
    public sealed record Lookahead(PatternNode Item, bool Negative) : PatternNode;

    /// <summary>A condition on the position.</summary>
    public sealed record Assertion(PatternAssertion Kind) : PatternNode;
}

/// <summary>Conditions on a position.</summary>
internal enum PatternAssertion
{
    LineStart,
    LineEnd,
    TextStart,
    TextEnd,
    WordBoundary,
    NotWordBoundary,
}
