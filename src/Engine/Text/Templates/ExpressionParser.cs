using System.Text;

namespace Engine.Text.Templates;

/// <summary>
/// Expressions by recursive descent, in jinja2's grammar. From loosest to tightest: <c>if else</c>, <c>or</c>, <c>and</c>, <c>not</c>,
/// comparisons, <c>+ -</c>, <c>~</c>, <c>* / // %</c>, <c>**</c> (to the left, unlike Python), signs, filters and tests, postfixes.
/// </summary>
internal sealed class ExpressionParser(TokenStream tokens)
{
    /// <summary>Called with every name that is read, so that a macro learns which implicit variables its body uses.</summary>
    public Action<string>? NameRead { get; set; }

    /// <summary>Above zero where an unknown filter or test is an error only once it is reached: under a condition.</summary>
    public int ConditionalDepth { get; set; }

    /// <summary>An expression, or several with commas between: a tuple.</summary>
    public Expression ParseTuple(bool allowConditional = true, string? endName = null, bool allowEmpty = false)
    {
        int line = tokens.Line;
        var items = new List<Expression>();
        bool isTuple = false;
        while (!AtTupleEnd(endName))
        {
            items.Add(allowConditional ? Parse() : ParseOr());
            if (!tokens.SkipOperator(",")) break;
            isTuple = true;
        }
        if (!isTuple && items.Count == 1) return items[0];
        if (items.Count == 0 && !allowEmpty) throw tokens.Unexpected("an expression");
        return new SequenceNode(line, SequenceKind.Tuple, [.. items]);
    }

    public Expression Parse()
    {
        using TokenStream.Level level = tokens.Nest();
        int line = tokens.Line;
        Expression value = ParseOr();
        while (tokens.SkipName("if"))
        {
            ConditionalDepth++;
            Expression test = ParseOr();
            Expression? otherwise = tokens.SkipName("else") ? Parse() : null;
            ConditionalDepth--;
            value = new ConditionalNode(line, test, value, otherwise);
        }
        return value;
    }

    public ArgumentList ParseArguments()
    {
        tokens.ExpectOperator("(");
        var positional = new List<Expression>();
        var named = new List<(string, Expression)>();
        Expression? splat = null, namedSplat = null;
        while (!tokens.AtOperator(")"))
        {
            Token start = tokens.Current;
            if (tokens.SkipOperator("**"))
            {
                Require(namedSplat is null, start);
                namedSplat = Parse();
            }
            else if (tokens.SkipOperator("*"))
            {
                Require(splat is null && namedSplat is null, start);
                splat = Parse();
            }
            else if (start.Kind == TokenKind.Name && tokens.Following is { Kind: TokenKind.Operator, Text: "=" })
            {
                Require(namedSplat is null, start);
                tokens.Next();
                tokens.Next();
                if (named.Exists(argument => argument.Item1 == start.Text))
                    throw TokenStream.Fail($"the argument '{start.Text}' is given twice", start);
                named.Add((start.Text, Parse()));
            }
            else
            {
                Require(splat is null && namedSplat is null && named.Count == 0, start);
                positional.Add(Parse());
            }
            if (!tokens.SkipOperator(",")) break;
        }
        tokens.ExpectOperator(")");
        return new ArgumentList([.. positional], [.. named], splat, namedSplat);

        static void Require(bool inOrder, Token at)
        {
            if (!inOrder) throw TokenStream.Fail("this argument cannot follow the arguments before it", at);
        }
    }

    /// <summary>A filter's name and arguments, the cursor standing behind the <c>|</c>.</summary>
    public FilterCall ParseFilterCall()
    {
        Token name = ParseDottedName("the name of a filter");
        if (ConditionalDepth == 0 && !Filters.All.ContainsKey(name.Text)) throw TokenStream.Fail($"there is no filter '{name.Text}'", name);
        return new FilterCall(name.Line, name.Text, tokens.AtOperator("(") ? ParseArguments() : ArgumentList.None);
    }

    /// <summary>
    /// The names of filters and tests can have dots; none that is known has, so such a name is an error where it is reached.
    /// </summary>
    private Token ParseDottedName(string what)
    {
        Token name = tokens.Expect(TokenKind.Name, what);
        while (tokens.SkipOperator(".")) name = name with { Text = $"{name.Text}.{tokens.ExpectName(what)}" };
        return name;
    }

    private bool AtTupleEnd(string? endName) =>
        tokens.Current.Kind is TokenKind.OutputEnd or TokenKind.BlockEnd or TokenKind.End || tokens.AtOperator(")")
        || (endName is not null && tokens.AtName(endName));

    internal Expression ParseOr()
    {
        Expression left = ParseAnd();
        while (tokens.AtName("or")) left = new LogicalNode(tokens.Next().Line, IsAnd: false, left, ParseAnd());
        return left;
    }

    private Expression ParseAnd()
    {
        Expression left = ParseNot();
        while (tokens.AtName("and")) left = new LogicalNode(tokens.Next().Line, IsAnd: true, left, ParseNot());
        return left;
    }

    private Expression ParseNot()
    {
        using TokenStream.Level level = tokens.Nest();
        return tokens.AtName("not") ? new NotNode(tokens.Next().Line, ParseNot()) : ParseComparison();
    }

    private Expression ParseComparison()
    {
        int line = tokens.Line;
        Expression first = ParseSum();
        var links = new List<(ComparisonOperator, Expression)>();
        while (NextComparison() is ComparisonOperator comparison) links.Add((comparison, ParseSum()));
        return links.Count == 0 ? first : new ComparisonNode(line, first, [.. links]);
    }

    private ComparisonOperator? NextComparison()
    {
        ComparisonOperator? comparison = tokens.Current switch
        {
            { Kind: TokenKind.Operator, Text: "==" } => ComparisonOperator.Equal,
            { Kind: TokenKind.Operator, Text: "!=" } => ComparisonOperator.NotEqual,
            { Kind: TokenKind.Operator, Text: "<" } => ComparisonOperator.Less,
            { Kind: TokenKind.Operator, Text: "<=" } => ComparisonOperator.LessOrEqual,
            { Kind: TokenKind.Operator, Text: ">" } => ComparisonOperator.Greater,
            { Kind: TokenKind.Operator, Text: ">=" } => ComparisonOperator.GreaterOrEqual,
            { Kind: TokenKind.Name, Text: "in" } => ComparisonOperator.In,
            { Kind: TokenKind.Name, Text: "not" } when tokens.Following is { Kind: TokenKind.Name, Text: "in" } => ComparisonOperator.NotIn,
            _ => null,
        };
        if (comparison is not null) tokens.Next();
        if (comparison is ComparisonOperator.NotIn) tokens.Next();
        return comparison;
    }

    private Expression ParseSum()
    {
        Expression left = ParseConcat();
        while (true)
        {
            int line = tokens.Line;
            if (tokens.SkipOperator("+")) left = new BinaryNode(line, BinaryOperator.Add, left, ParseConcat());
            else if (tokens.SkipOperator("-")) left = new BinaryNode(line, BinaryOperator.Subtract, left, ParseConcat());
            else return left;
        }
    }

    private Expression ParseConcat()
    {
        int line = tokens.Line;
        var parts = new List<Expression> { ParseProduct() };
        while (tokens.SkipOperator("~")) parts.Add(ParseProduct());
        return parts.Count == 1 ? parts[0] : new ConcatNode(line, [.. parts]);
    }

    private Expression ParseProduct()
    {
        Expression left = ParsePower();
        while (true)
        {
            int line = tokens.Line;
            if (tokens.SkipOperator("*")) left = new BinaryNode(line, BinaryOperator.Multiply, left, ParsePower());
            else if (tokens.SkipOperator("/")) left = new BinaryNode(line, BinaryOperator.Divide, left, ParsePower());
            else if (tokens.SkipOperator("//")) left = new BinaryNode(line, BinaryOperator.FloorDivide, left, ParsePower());
            else if (tokens.SkipOperator("%")) left = new BinaryNode(line, BinaryOperator.Modulo, left, ParsePower());
            else return left;
        }
    }

    private Expression ParsePower()
    {
        Expression left = ParseUnary(withFilters: true);
        while (tokens.AtOperator("**"))
        {
            int line = tokens.Next().Line;
            left = new BinaryNode(line, BinaryOperator.Power, left, ParseUnary(withFilters: true));
        }
        return left;
    }

    private Expression ParseUnary(bool withFilters)
    {
        using TokenStream.Level level = tokens.Nest();
        int line = tokens.Line;
        Expression operand;
        if (tokens.SkipOperator("-")) operand = new SignNode(line, Negative: true, ParseUnary(withFilters: false));
        else if (tokens.SkipOperator("+")) operand = new SignNode(line, Negative: false, ParseUnary(withFilters: false));
        else operand = ParsePrimary();

        operand = ParsePostfixes(operand);
        return withFilters ? ParseFiltersAndTests(operand) : operand;
    }

    internal Expression ParsePrimary()
    {
        Token token = tokens.Current;
        switch (token.Kind)
        {
            case TokenKind.Name:
                tokens.Next();
                return ParseName(token);
            case TokenKind.String:
                var text = new StringBuilder();
                while (tokens.Current.Kind == TokenKind.String) text.Append(tokens.Next().Text); // adjacent strings are one, as in Python
                return new ConstantNode(token.Line, new StringValue(text.ToString()));
            case TokenKind.Number:
                tokens.Next();
                return new ConstantNode(token.Line, token.Value!);
            case TokenKind.Operator when tokens.SkipOperator("("):
                Expression inner = ParseTuple(allowEmpty: true);
                tokens.ExpectOperator(")");
                return inner;
            case TokenKind.Operator when tokens.SkipOperator("["):
                return new SequenceNode(token.Line, SequenceKind.List, [.. ParseItems("]", Parse)]);
            case TokenKind.Operator when tokens.SkipOperator("{"):
                return new DictNode(token.Line, [.. ParseItems("}", ParsePair)]);
            default:
                throw tokens.Unexpected("an expression");
        }
    }

    private Expression ParseName(Token token)
    {
        switch (token.Text)
        {
            case "true" or "True": return new ConstantNode(token.Line, BoolValue.True);
            case "false" or "False": return new ConstantNode(token.Line, BoolValue.False);
            case "none" or "None": return new ConstantNode(token.Line, NoneValue.Instance);
            default:
                NameRead?.Invoke(token.Text);
                return new NameNode(token.Line, token.Text);
        }
    }

    private List<T> ParseItems<T>(string close, Func<T> parseItem)
    {
        var items = new List<T>();
        while (!tokens.AtOperator(close))
        {
            items.Add(parseItem());
            if (!tokens.SkipOperator(",")) break;
        }
        tokens.ExpectOperator(close);
        return items;
    }

    private (Expression, Expression) ParsePair()
    {
        Expression key = Parse();
        tokens.ExpectOperator(":");
        return (key, Parse());
    }

    private Expression ParsePostfixes(Expression operand)
    {
        while (true)
        {
            int line = tokens.Line;
            if (tokens.SkipOperator(".")) operand = ParseMember(line, operand);
            else if (tokens.SkipOperator("[")) operand = ParseSubscript(line, operand);
            else if (tokens.AtOperator("(")) operand = new CallNode(line, operand, ParseArguments());
            else return operand;
        }
    }

    private Expression ParseMember(int line, Expression target)
    {
        if (tokens.Current is { Kind: TokenKind.Number, Value: IntValue index })
        {
            tokens.Next();
            return new SubscriptNode(line, target, new ConstantNode(line, index));
        }
        return new AttributeNode(line, target, tokens.ExpectName("the name of an attribute"));
    }

    private Expression ParseSubscript(int line, Expression target)
    {
        if (tokens.SkipOperator("]")) return new SubscriptNode(line, target, new SequenceNode(line, SequenceKind.Tuple, []));
        Expression? start = tokens.AtOperator(":") ? null : ParseTupleIndex(line);
        if (start is not null && tokens.SkipOperator("]")) return new SubscriptNode(line, target, start);

        tokens.ExpectOperator(":");
        Expression? stop = AtSliceEnd() ? null : Parse();
        Expression? step = tokens.SkipOperator(":") && !AtSliceEnd() ? Parse() : null;
        tokens.ExpectOperator("]");
        return new SliceNode(line, target, start, stop, step);

        bool AtSliceEnd() => tokens.AtOperator(":") || tokens.AtOperator("]");
    }

    private Expression ParseTupleIndex(int line)
    {
        Expression first = Parse();
        if (!tokens.AtOperator(",")) return first;
        var items = new List<Expression> { first };
        while (tokens.SkipOperator(",")) items.Add(Parse());
        return new SequenceNode(line, SequenceKind.Tuple, [.. items]);
    }

    private Expression ParseFiltersAndTests(Expression operand)
    {
        while (true)
        {
            int line = tokens.Line;
            if (tokens.SkipOperator("|")) operand = new FilterNode(line, operand, ParseFilterCall());
            else if (tokens.SkipName("is")) operand = ParseTest(line, operand);
            else if (tokens.AtOperator("(")) operand = new CallNode(line, operand, ParseArguments());
            else return operand;
        }
    }

    private Expression ParseTest(int line, Expression operand)
    {
        bool negated = tokens.SkipName("not");
        Token name = ParseDottedName("the name of a test");
        if (ConditionalDepth == 0 && !Tests.All.ContainsKey(name.Text)) throw TokenStream.Fail($"there is no test '{name.Text}'", name);
        ArgumentList arguments = ArgumentList.None;
        if (tokens.AtOperator("("))
        {
            arguments = ParseArguments();
        }
        else if (AtBareArgument())
        {
            if (tokens.AtName("is")) throw tokens.Fail("tests cannot be chained with 'is'");
            arguments = new ArgumentList([ParsePostfixes(ParsePrimary())], [], null, null);
        }
        Expression test = new TestNode(line, operand, name.Text, arguments);
        return negated ? new NotNode(line, test) : test;
    }

    /// <summary>Whether a test's only argument follows without parentheses, as in <c>x is divisibleby 3</c>.</summary>
    private bool AtBareArgument() => tokens.Current.Kind switch
    {
        TokenKind.String or TokenKind.Number => true,
        TokenKind.Operator => tokens.Current.Text is "[" or "{",
        TokenKind.Name => tokens.Current.Text is not ("else" or "or" or "and"),
        _ => false,
    };
}
