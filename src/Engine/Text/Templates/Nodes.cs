namespace Engine.Text.Templates;

/// <summary>The template as immutable data: what <see cref="Parser"/> makes and <see cref="Interpreter"/> runs.</summary>
internal abstract record Node(int Line);

internal abstract record Expression(int Line) : Node(Line);

internal sealed record ConstantNode(int Line, Value Value) : Expression(Line);

internal sealed record NameNode(int Line, string Name) : Expression(Line);

internal sealed record AttributeNode(int Line, Expression Target, string Name) : Expression(Line);

internal sealed record SubscriptNode(int Line, Expression Target, Expression Index) : Expression(Line);

internal sealed record SliceNode(int Line, Expression Target, Expression? Start, Expression? Stop, Expression? Step) : Expression(Line);

internal sealed record CallNode(int Line, Expression Callee, ArgumentList Arguments) : Expression(Line);

internal sealed record FilterNode(int Line, Expression Operand, FilterCall Filter) : Expression(Line);

internal sealed record TestNode(int Line, Expression Operand, string Name, ArgumentList Arguments) : Expression(Line);

internal sealed record NotNode(int Line, Expression Operand) : Expression(Line);

internal sealed record SignNode(int Line, bool Negative, Expression Operand) : Expression(Line);

internal sealed record BinaryNode(int Line, BinaryOperator Operator, Expression Left, Expression Right) : Expression(Line);

/// <summary><c>and</c>, <c>or</c>: the value is that of the operand that decides.</summary>
internal sealed record LogicalNode(int Line, bool IsAnd, Expression Left, Expression Right) : Expression(Line);

/// <summary>A chain such as <c>a &lt; b &lt;= c</c>: each operand is evaluated once, and the first false link ends it.</summary>
internal sealed record ComparisonNode(
    int Line, Expression First, (ComparisonOperator Operator, Expression Right)[] Links) : Expression(Line);

internal sealed record ConcatNode(int Line, Expression[] Parts) : Expression(Line);

internal sealed record ConditionalNode(int Line, Expression Test, Expression Then, Expression? Else) : Expression(Line);

internal sealed record SequenceNode(int Line, SequenceKind Kind, Expression[] Items) : Expression(Line);

internal sealed record DictNode(int Line, (Expression Key, Expression Value)[] Items) : Expression(Line);

internal sealed record ArgumentList(
    Expression[] Positional, (string Name, Expression Value)[] Named, Expression? Splat, Expression? NamedSplat)
{
    public static readonly ArgumentList None = new([], [], null, null);
}

internal sealed record FilterCall(int Line, string Name, ArgumentList Arguments);

internal enum BinaryOperator { Add, Subtract, Multiply, Divide, FloorDivide, Modulo, Power }

internal enum ComparisonOperator { Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, In, NotIn }

internal abstract record Statement(int Line) : Node(Line);

internal sealed record TextStatement(int Line, string Text) : Statement(Line);

internal sealed record OutputStatement(int Line, Expression Value) : Statement(Line);

internal sealed record IfStatement(int Line, (Expression Test, Statement[] Body)[] Branches, Statement[] Else) : Statement(Line);

internal sealed record ForStatement(
    int Line, Target Target, Expression Iterable, Expression? Filter, bool Recursive, Statement[] Body, Statement[] Else) : Statement(Line);

internal sealed record SetStatement(int Line, Target Target, Expression Value) : Statement(Line);

internal sealed record SetBlockStatement(int Line, Target Target, FilterCall[] Filters, Statement[] Body) : Statement(Line);

internal sealed record FilterBlockStatement(int Line, FilterCall[] Filters, Statement[] Body) : Statement(Line);

internal sealed record WithStatement(int Line, (Target Target, Expression Value)[] Bindings, Statement[] Body) : Statement(Line);

/// <summary>A body with a scope of its own that prints in place: the <c>generation</c> block.</summary>
internal sealed record ScopeStatement(int Line, Statement[] Body) : Statement(Line);

internal sealed record MacroStatement(int Line, MacroDefinition Definition) : Statement(Line);

internal sealed record CallBlockStatement(int Line, CallNode Call, MacroDefinition Caller) : Statement(Line);

internal sealed record LoopControlStatement(int Line, bool IsBreak) : Statement(Line);

/// <summary>
/// A macro; the flags say which of the implicit variables its body reads, because only then does a call accept what fills them.
/// </summary>
internal sealed record MacroDefinition(
    string? Name, (string Name, Expression? Default)[] Parameters, Statement[] Body, bool UsesCaller, bool UsesKwargs, bool UsesVarargs);

/// <summary>What an assignment writes to.</summary>
internal abstract record Target;

internal sealed record NameTarget(string Name) : Target;

internal sealed record NamespaceTarget(string Name, string Attribute) : Target;

internal sealed record TupleTarget(Target[] Items) : Target;
