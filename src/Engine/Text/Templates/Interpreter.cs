using System.Text;

namespace Engine.Text.Templates;

/// <summary>Runs statements: one instance renders once. Expressions are in the other half of the class.</summary>
internal sealed partial class Interpreter(Scope globals, TimeProvider clock, ChatTemplateLimits limits)
{
    private StringBuilder _output = new();

    private enum Flow { Next, Break, Continue }

    public Budget Budget { get; } = new(limits);

    public TimeProvider Clock => clock;

    public string Render(Statement[] template) => Capture(() => Execute(template, new Scope(globals)));

    /// <summary>Renders a macro's or a call block's body under its arguments.</summary>
    public StringValue CallMacro(MacroValue macro, CallArguments arguments)
    {
        Scope scope = BindMacro(macro, arguments);
        return new StringValue(Nested(() => Execute(macro.Definition.Body, scope)));
    }

    /// <summary>Renders a recursive loop over what it was called with.</summary>
    public StringValue CallLoop(ForStatement loop, Value iterable, Scope scope, int depth0) =>
        new(Nested(() => RunLoop(loop, iterable, scope, depth0)));

    private Flow Execute(Statement[] statements, Scope scope)
    {
        foreach (Statement statement in statements)
        {
            Flow flow;
            Budget.EnterNode();
            try
            {
                flow = Execute(statement, scope);
            }
            catch (TemplateFault fault) when (fault.At(statement.Line))
            {
                throw;
            }
            Budget.LeaveNode();
            if (flow != Flow.Next) return flow;
        }
        return Flow.Next;
    }

    private Flow Execute(Statement statement, Scope scope)
    {
        switch (statement)
        {
            case TextStatement text: Emit(text.Text); break;
            case OutputStatement output: Emit(Str(Evaluate(output.Value, scope))); break;
            case IfStatement branches: return Execute(Choose(branches, scope), scope);
            case ForStatement loop: RunLoop(loop, Evaluate(loop.Iterable, scope), scope, depth0: 0); break;
            case SetStatement set: Assign(set.Target, Evaluate(set.Value, scope), scope); break;
            case SetBlockStatement set: Assign(set.Target, CaptureFiltered(set.Body, set.Filters, scope), scope); break;
            case FilterBlockStatement filter: Emit(Str(CaptureFiltered(filter.Body, filter.Filters, scope))); break;
            case ScopeStatement block: return Execute(block.Body, new Scope(scope));
            case WithStatement with: return Execute(with.Body, BindWith(with, scope));
            case MacroStatement macro: scope.Set(macro.Definition.Name!, new MacroValue(macro.Definition, scope)); break;
            case CallBlockStatement block: Emit(Str(CallWithCaller(block, scope))); break;
            case LoopControlStatement control: return control.IsBreak ? Flow.Break : Flow.Continue;
            default: throw new InvalidOperationException($"no rule runs {statement.GetType().Name}");
        }
        return Flow.Next;
    }

    private Statement[] Choose(IfStatement statement, Scope scope)
    {
        foreach ((Expression test, Statement[] body) in statement.Branches)
        {
            if (Evaluate(test, scope).IsTrue) return body;
        }
        return statement.Else;
    }

    private Flow RunLoop(ForStatement loop, Value iterable, Scope scope, int depth0)
    {
        IEnumerable<Value> elements = Iterate(iterable);
        if (loop.Filter is not null) elements = elements.Where(element => PassesFilter(loop, element, scope));
        Value[] items = [.. elements];
        Budget.References(items.Length);
        var state = new LoopValue(loop, scope, items, depth0);
        bool completed = false; // jinja2 runs the else where no turn reached its end, be it for want of items or for a break or continue
        for (int i = 0; i < items.Length; i++)
        {
            state.Index0 = i;
            var turn = new Scope(scope);
            turn.Set("loop", state);
            Assign(loop.Target, items[i], turn);
            Flow flow = Execute(loop.Body, turn);
            if (flow == Flow.Break) break;
            completed |= flow == Flow.Next;
        }
        return completed ? Flow.Next : Execute(loop.Else, new Scope(scope));
    }

    private bool PassesFilter(ForStatement loop, Value element, Scope scope)
    {
        var turn = new Scope(scope);
        Assign(loop.Target, element, turn);
        return Evaluate(loop.Filter!, turn).IsTrue;
    }

    private void Assign(Target target, Value value, Scope scope)
    {
        switch (target)
        {
            case NameTarget name:
                scope.Set(name.Name, value);
                break;
            case NamespaceTarget member:
                if (scope.Find(member.Name) is not NamespaceValue owner)
                    throw new TemplateFault($"'{member.Name}' is not a namespace, so '{member.Attribute}' cannot be set on it");
                owner.Set(member.Attribute, value);
                break;
            case TupleTarget tuple:
                Value[] items = [.. Iterate(value)];
                if (items.Length != tuple.Items.Length)
                    throw new TemplateFault($"{tuple.Items.Length} values are expected to unpack, {items.Length} are given");
                for (int i = 0; i < items.Length; i++) Assign(tuple.Items[i], items[i], scope);
                break;
        }
    }

    private Scope BindWith(WithStatement with, Scope scope)
    {
        var inner = new Scope(scope);
        Value[] values = Array.ConvertAll(with.Bindings, binding => Evaluate(binding.Value, scope)); // none sees the others
        for (int i = 0; i < values.Length; i++) Assign(with.Bindings[i].Target, values[i], inner);
        return inner;
    }

    private Value CallWithCaller(CallBlockStatement block, Scope scope)
    {
        CallArguments arguments = EvaluateArguments(block.Call.Arguments, scope);
        var caller = KeyValuePair.Create("caller", (Value)new MacroValue(block.Caller, scope));
        return Call(Evaluate(block.Call.Callee, scope), arguments with { Named = [.. arguments.Named, caller] });
    }

    /// <summary>
    /// The scope of a macro's body: its parameters, and <c>varargs</c>, <c>kwargs</c> and <c>caller</c> where the body reads them.
    /// </summary>
    private Scope BindMacro(MacroValue macro, CallArguments arguments)
    {
        MacroDefinition definition = macro.Definition;
        string shown = definition.Name ?? "caller";
        var scope = new Scope(macro.Scope);
        var named = new OrderedDictionary<string, Value>(StringComparer.Ordinal);
        foreach ((string name, Value value) in arguments.Named) named[name] = value;

        var absent = new List<(string Name, Expression Default)>();
        for (int i = 0; i < definition.Parameters.Length; i++)
        {
            (string name, Expression? initial) = definition.Parameters[i];
            Value? value = null;
            if (i < arguments.Positional.Count) value = arguments.Positional[i];
            else if (named.Remove(name, out Value? given)) value = given;
            else if (initial is not null) absent.Add((name, initial));
            scope.Set(name, value ?? new UndefinedValue($"the parameter '{name}' of the macro '{shown}' was not given"));
        }

        if (definition.UsesCaller)
            scope.Set("caller", named.Remove("caller", out Value? caller) ? caller : new UndefinedValue("there is no caller"));
        if (definition.UsesKwargs) scope.Set("kwargs", DictOf(named));
        else if (named.Count > 0) throw new TemplateFault($"the macro '{shown}' has no parameter '{named.GetAt(0).Key}'");
        if (definition.UsesVarargs) scope.Set("varargs", SequenceValue.Tuple([.. arguments.Positional.Skip(definition.Parameters.Length)]));
        else if (arguments.Positional.Count > definition.Parameters.Length)
        {
            throw new TemplateFault(
                $"the macro '{shown}' takes at most {definition.Parameters.Length} arguments, {arguments.Positional.Count} are given");
        }

        // A default sees the other parameters, and not a variable around the macro that has the name of one.
        foreach ((string name, Expression initial) in absent) scope.Set(name, Evaluate(initial, scope));
        return scope;
    }

    private Value CaptureFiltered(Statement[] body, FilterCall[] filters, Scope scope)
    {
        Value value = new StringValue(Capture(() => Execute(body, new Scope(scope))));
        foreach (FilterCall filter in filters) value = ApplyFilter(filter, value, scope);
        return value;
    }

    private string Nested(Action render)
    {
        Budget.EnterCall();
        string text = Capture(render);
        Budget.LeaveCall();
        return text;
    }

    /// <summary>What the action prints. A fault ends the rendering, so nothing is restored after one.</summary>
    private string Capture(Action render)
    {
        StringBuilder outer = _output;
        _output = new StringBuilder();
        render();
        string text = _output.ToString();
        _output = outer;
        return text;
    }

    private void Emit(string text)
    {
        Budget.Append(_output, text.Length);
        _output.Append(text);
    }
}
