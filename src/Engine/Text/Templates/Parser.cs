namespace Engine.Text.Templates;

/// <summary>Statements: the text between tags and the tags themselves. Expressions are <see cref="ExpressionParser"/>'s.</summary>
internal sealed class Parser
{
    private static readonly Dictionary<string, string> RefusedTags = new(StringComparer.Ordinal)
    {
        ["include"] = "a chat template is one file",
        ["import"] = "a chat template is one file",
        ["from"] = "a chat template is one file",
        ["extends"] = "a chat template is one file",
        ["block"] = "a chat template extends nothing",
        ["autoescape"] = "a prompt is not HTML",
    };

    private readonly TokenStream _tokens;
    private readonly ExpressionParser _expressions;
    private readonly Stack<HashSet<string>> _macroNames = new(); // the names read in each macro around the cursor
    private int _loopDepth;

    private Parser(TokenStream tokens)
    {
        _tokens = tokens;
        _expressions = new ExpressionParser(tokens) { NameRead = NoteName };
    }

    public static Statement[] Parse(string source)
    {
        var parser = new Parser(new TokenStream(Lexer.Tokenize(source)));
        return parser.ParseBody();
    }

    /// <summary>
    /// Statements up to a tag with one of the names, of which the name is consumed; up to the end of the template without names.
    /// </summary>
    private Statement[] ParseBody(params ReadOnlySpan<string> endTags)
    {
        var body = new List<Statement>();
        while (true)
        {
            Token token = _tokens.Next();
            switch (token.Kind)
            {
                case TokenKind.Data:
                    body.Add(new TextStatement(token.Line, token.Text));
                    break;
                case TokenKind.OutputBegin:
                    body.Add(new OutputStatement(token.Line, _expressions.ParseTuple()));
                    _tokens.Expect(TokenKind.OutputEnd, "'}}'");
                    break;
                case TokenKind.BlockBegin:
                    if (_tokens.Current.Kind == TokenKind.Name && endTags.Contains(_tokens.Current.Text)) return [.. body];
                    ParseStatement(body, endTags);
                    EndTag();
                    break;
                default:
                    if (endTags.IsEmpty) return [.. body];
                    throw TokenStream.Fail($"the template ends before {Expected(endTags)}", token);
            }
        }
    }

    /// <summary>The body of a tag that is closed by one end tag, from behind the opening tag's head to the end tag's name.</summary>
    private Statement[] ParseBlock(string endTag)
    {
        BeginBody();
        Statement[] body = ParseBody(endTag);
        _tokens.Next();
        return body;
    }

    private void BeginBody()
    {
        _tokens.SkipOperator(":"); // allowed, as in Python
        EndTag();
    }

    private void EndTag() => _tokens.Expect(TokenKind.BlockEnd, "'%}'");

    private void ParseStatement(List<Statement> body, ReadOnlySpan<string> endTags)
    {
        using TokenStream.Level level = _tokens.Nest();
        Token tag = _tokens.Expect(TokenKind.Name, "the name of a tag");
        int line = tag.Line;
        switch (tag.Text)
        {
            case "if": body.Add(ParseIf(line)); break;
            case "for": body.Add(ParseFor(line)); break;
            case "set": body.Add(ParseSet(line)); break;
            case "macro": body.Add(ParseMacro(line)); break;
            case "call": body.Add(ParseCallBlock(line)); break;
            case "filter": body.Add(ParseFilterBlock(line)); break;
            case "with": body.Add(ParseWith(line)); break;
            case "generation": body.Add(new ScopeStatement(line, OutsideLoops(() => ParseBlock("endgeneration")))); break;
            case "break" or "continue" when _loopDepth > 0: body.Add(new LoopControlStatement(line, tag.Text == "break")); break;
            case "break" or "continue": throw TokenStream.Fail($"'{tag.Text}' is outside of a loop", tag);
            case "print": ParsePrint(line, body); break;
            default: throw UnknownTag(tag, endTags);
        }
    }

    private static TemplateFault UnknownTag(Token tag, ReadOnlySpan<string> endTags)
    {
        if (RefusedTags.TryGetValue(tag.Text, out string? why))
            return TokenStream.Fail($"the tag '{tag.Text}' is not supported: {why}", tag);
        string expected = endTags.IsEmpty ? "" : $"; expected {Expected(endTags)}";
        return TokenStream.Fail($"unknown or misplaced tag '{tag.Text}'{expected}", tag);
    }

    private static string Expected(ReadOnlySpan<string> endTags) => $"'{string.Join("' or '", endTags.ToArray())}'";

    private IfStatement ParseIf(int line)
    {
        _expressions.ConditionalDepth++;
        var branches = new List<(Expression, Statement[])>();
        Statement[] otherwise = [];
        string next;
        do
        {
            Expression test = _expressions.ParseTuple(allowConditional: false);
            BeginBody();
            branches.Add((test, ParseBody("elif", "else", "endif")));
            next = _tokens.Next().Text;
        }
        while (next == "elif");
        if (next == "else") otherwise = ParseBlock("endif");
        _expressions.ConditionalDepth--;
        return new IfStatement(line, [.. branches], otherwise);
    }

    private ForStatement ParseFor(int line)
    {
        Target target = ParseTarget(endName: "in");
        _tokens.ExpectName("in", "'in'");
        Expression iterable = _expressions.ParseTuple(allowConditional: false, endName: "recursive");
        Expression? filter = _tokens.SkipName("if") ? _expressions.Parse() : null;
        bool recursive = _tokens.SkipName("recursive");
        BeginBody();
        _loopDepth++;
        Statement[] body = ParseBody("endfor", "else");
        _loopDepth--;
        Statement[] otherwise = _tokens.Next().Text == "else" ? ParseBlock("endfor") : [];
        return new ForStatement(line, target, iterable, filter, recursive, body, otherwise);
    }

    private Statement ParseSet(int line)
    {
        Target target = ParseTarget(allowNamespace: true);
        if (_tokens.SkipOperator("=")) return new SetStatement(line, target, _expressions.ParseTuple());
        FilterCall[] filters = ParseFilters(first: false);
        return new SetBlockStatement(line, target, filters, OutsideLoops(() => ParseBlock("endset")));
    }

    private FilterBlockStatement ParseFilterBlock(int line)
    {
        FilterCall[] filters = ParseFilters(first: true);
        return new FilterBlockStatement(line, filters, OutsideLoops(() => ParseBlock("endfilter")));
    }

    private FilterCall[] ParseFilters(bool first)
    {
        var filters = new List<FilterCall>();
        if (first) filters.Add(_expressions.ParseFilterCall());
        while (_tokens.SkipOperator("|")) filters.Add(_expressions.ParseFilterCall());
        return [.. filters];
    }

    private WithStatement ParseWith(int line)
    {
        var bindings = new List<(Target, Expression)>();
        while (_tokens.Current.Kind != TokenKind.BlockEnd)
        {
            if (bindings.Count > 0) _tokens.ExpectOperator(",");
            Target target = ParseTarget();
            _tokens.ExpectOperator("=");
            bindings.Add((target, _expressions.Parse()));
        }
        return new WithStatement(line, [.. bindings], ParseBlock("endwith"));
    }

    private MacroStatement ParseMacro(int line)
    {
        string name = CheckAssignable(_tokens.Expect(TokenKind.Name, "the name of the macro"));
        return new MacroStatement(line, ParseMacroRest(name, "endmacro", ParseParameters));
    }

    private CallBlockStatement ParseCallBlock(int line)
    {
        (string, Expression?)[] parameters = _tokens.AtOperator("(") ? ParseParameters() : [];
        if (_expressions.Parse() is not CallNode call) throw _tokens.Fail("a call block needs the call of a macro");
        return new CallBlockStatement(line, call, ParseMacroRest(null, "endcall", () => parameters));
    }

    private MacroDefinition ParseMacroRest(string? name, string endTag, Func<(string, Expression?)[]> parseParameters)
    {
        _macroNames.Push([]);
        (string, Expression?)[] parameters = parseParameters();
        Statement[] body = OutsideLoops(() => ParseBlock(endTag));
        HashSet<string> read = _macroNames.Pop();
        foreach ((string declared, _) in parameters) read.Remove(declared);
        return new MacroDefinition(name, parameters, body, read.Contains("caller"), read.Contains("kwargs"), read.Contains("varargs"));
    }

    private (string, Expression?)[] ParseParameters()
    {
        var parameters = new List<(string Name, Expression? Default)>();
        _tokens.ExpectOperator("(");
        while (!_tokens.AtOperator(")"))
        {
            Token token = _tokens.Expect(TokenKind.Name, "the name of a parameter");
            string name = CheckAssignable(token);
            if (parameters.Exists(parameter => parameter.Name == name))
                throw TokenStream.Fail($"the parameter '{name}' is declared twice", token);
            Expression? initial = _tokens.SkipOperator("=") ? _expressions.Parse() : null;
            if (initial is null && parameters is [.., { Default: not null }])
                throw TokenStream.Fail($"the parameter '{name}' needs a default, as the one before it has one", token);
            parameters.Add((name, initial));
            if (!_tokens.SkipOperator(",")) break;
        }
        _tokens.ExpectOperator(")");
        return [.. parameters];
    }

    private void ParsePrint(int line, List<Statement> body)
    {
        bool more = _tokens.Current.Kind != TokenKind.BlockEnd;
        while (more)
        {
            body.Add(new OutputStatement(line, _expressions.Parse()));
            more = _tokens.SkipOperator(",");
        }
    }

    /// <summary>A name, <c>namespace.attribute</c> where allowed, or a tuple of targets.</summary>
    private Target ParseTarget(bool allowNamespace = false, string? endName = null)
    {
        var items = new List<Target>();
        bool isTuple = false;
        while (true)
        {
            items.Add(ParseSingleTarget(allowNamespace));
            if (!_tokens.SkipOperator(",")) break;
            isTuple = true;
            bool atTarget = _tokens.Current.Kind == TokenKind.Name || _tokens.AtOperator("(");
            if (!atTarget || (endName is not null && _tokens.AtName(endName))) break; // the comma was the last token of the tuple
        }
        return isTuple ? new TupleTarget([.. items]) : items[0];
    }

    private Target ParseSingleTarget(bool allowNamespace)
    {
        using TokenStream.Level level = _tokens.Nest();
        if (_tokens.SkipOperator("("))
        {
            Target inner = ParseTarget();
            _tokens.ExpectOperator(")");
            return inner;
        }
        string name = CheckAssignable(_tokens.Expect(TokenKind.Name, "the name of a variable"));
        if (allowNamespace && _tokens.SkipOperator(".")) return new NamespaceTarget(name, _tokens.ExpectName("the name of an attribute"));
        return new NameTarget(name);
    }

    private static string CheckAssignable(Token name)
    {
        if (name.Text is "true" or "True" or "false" or "False" or "none" or "None")
            throw TokenStream.Fail($"'{name.Text}' cannot be assigned to", name);
        return name.Text;
    }

    /// <summary>
    /// Parses what is rendered apart from the loop around it, where <c>break</c> and <c>continue</c> have nothing to act on.
    /// </summary>
    private Statement[] OutsideLoops(Func<Statement[]> parse)
    {
        int depth = _loopDepth;
        _loopDepth = 0;
        Statement[] body = parse();
        _loopDepth = depth;
        return body;
    }

    private void NoteName(string name)
    {
        foreach (HashSet<string> names in _macroNames) names.Add(name);
    }
}
