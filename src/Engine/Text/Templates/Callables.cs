namespace Engine.Text.Templates;

/// <summary>The evaluated arguments of a call.</summary>
internal sealed record CallArguments(IReadOnlyList<Value> Positional, IReadOnlyList<KeyValuePair<string, Value>> Named)
{
    public static readonly CallArguments None = new([], []);

    /// <summary>The arguments without the first positional ones.</summary>
    public CallArguments Skip(int count) => this with { Positional = [.. Positional.Skip(count)] };

    public Value? Find(string name) => Named.FirstOrDefault(argument => argument.Key == name).Value;
}

/// <summary>
/// The body of a filter, test, method or function; <paramref name="arguments"/> has one place per parameter, null where nothing is
/// given.
/// </summary>
internal delegate Value NativeBody(Interpreter render, Value self, Value?[] arguments);

/// <summary>The body of a native that takes its arguments as they come.</summary>
internal delegate Value VariadicBody(Interpreter render, Value self, CallArguments arguments);

/// <summary>A filter, test, method or function that the engine brings along.</summary>
internal sealed class Native
{
    private readonly string[] _parameters;
    private readonly int _required;
    private readonly VariadicBody? _variadic;
    private readonly NativeBody? _body;

    /// <summary>A native with parameters: their names in order with spaces between, a <c>?</c> behind the optional ones.</summary>
    public Native(string name, string parameters, NativeBody body)
    {
        Name = name;
        string[] declared = parameters.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        _parameters = Array.ConvertAll(declared, parameter => parameter.TrimEnd('?'));
        _required = declared.Count(parameter => !parameter.EndsWith('?'));
        _body = body;
    }

    /// <summary>A native that takes any arguments.</summary>
    public Native(string name, VariadicBody body)
    {
        Name = name;
        _parameters = [];
        _variadic = body;
    }

    public string Name { get; }

    public Value Call(Interpreter render, Value self, CallArguments arguments) =>
        _variadic is not null ? _variadic(render, self, arguments) : _body!(render, self, Bind(arguments));

    private Value?[] Bind(CallArguments arguments)
    {
        if (arguments.Positional.Count > _parameters.Length)
            throw new TemplateFault($"{Name}() takes at most {_parameters.Length} arguments, {arguments.Positional.Count} are given");
        var bound = new Value?[_parameters.Length];
        for (int i = 0; i < arguments.Positional.Count; i++) bound[i] = arguments.Positional[i];
        foreach ((string name, Value value) in arguments.Named)
        {
            int at = Array.IndexOf(_parameters, name);
            if (at < 0) throw new TemplateFault($"{Name}() has no argument '{name}'");
            if (bound[at] is not null) throw new TemplateFault($"{Name}() is given the argument '{name}' twice");
            bound[at] = value;
        }
        for (int i = 0; i < _required; i++)
        {
            if (bound[i] is null) throw new TemplateFault($"{Name}() needs the argument '{_parameters[i]}'");
        }
        return bound;
    }
}

/// <summary>A value with attributes of its own.</summary>
internal abstract class ObjectValue : Value
{
    /// <summary>The attribute with this name, or null.</summary>
    public virtual Value? Attribute(string name) => null;
}

/// <summary>A value that can be called.</summary>
internal abstract class CallableValue : ObjectValue
{
    public abstract Value Call(Interpreter render, CallArguments arguments);
}

/// <summary>A native bound to the value it was read from (a method), or to nothing (a function).</summary>
internal sealed class BoundNative(Native native, Value self) : CallableValue
{
    public override string TypeName => "builtin_function_or_method";

    public string Name => native.Name;

    public override Value Call(Interpreter render, CallArguments arguments) => native.Call(render, self, arguments);
}

/// <summary>A macro, or the body of a call block, with the scope it was defined in.</summary>
internal sealed class MacroValue(MacroDefinition definition, Scope scope) : CallableValue
{
    public override string TypeName => "Macro";

    public MacroDefinition Definition => definition;

    public Scope Scope => scope;

    public override Value Call(Interpreter render, CallArguments arguments) => render.CallMacro(this, arguments);

    public override Value? Attribute(string name) => name switch
    {
        "name" => definition.Name is null ? NoneValue.Instance : new StringValue(definition.Name),
        "arguments" => SequenceValue.Tuple(Array.ConvertAll(definition.Parameters, p => (Value)new StringValue(p.Name))),
        "caller" => BoolValue.Of(definition.UsesCaller),
        "catch_kwargs" => BoolValue.Of(definition.UsesKwargs),
        "catch_varargs" => BoolValue.Of(definition.UsesVarargs),
        _ => null,
    };
}

/// <summary>The variable <c>loop</c>; calling it renders a recursive loop one level deeper.</summary>
internal sealed class LoopValue(ForStatement statement, Scope scope, IReadOnlyList<Value> items, int depth0) : CallableValue
{
    private Value? _lastChanged;

    public override string TypeName => "LoopContext";

    public override int Length => items.Count;

    public override bool IsTrue => items.Count > 0;

    public int Index0 { get; set; }

    public override Value Call(Interpreter render, CallArguments arguments)
    {
        if (!statement.Recursive) throw new TemplateFault("only a loop marked 'recursive' can be called");
        if (arguments is not { Positional: [Value iterable], Named: [] }) throw new TemplateFault("loop() takes one argument");
        return render.CallLoop(statement, iterable, scope, depth0 + 1);
    }

    public override Value? Attribute(string name) => name switch
    {
        "index" => new IntValue(Index0 + 1),
        "index0" => new IntValue(Index0),
        "revindex" => new IntValue(items.Count - Index0),
        "revindex0" => new IntValue(items.Count - Index0 - 1),
        "first" => BoolValue.Of(Index0 == 0),
        "last" => BoolValue.Of(Index0 == items.Count - 1),
        "length" => new IntValue(items.Count),
        "depth" => new IntValue(depth0 + 1),
        "depth0" => new IntValue(depth0),
        "previtem" => Index0 > 0 ? items[Index0 - 1] : new UndefinedValue("there is no previous item"),
        "nextitem" => Index0 + 1 < items.Count ? items[Index0 + 1] : new UndefinedValue("there is no next item"),
        "cycle" => new BoundNative(new Native("cycle", Cycle), this),
        "changed" => new BoundNative(new Native("changed", Changed), this),
        _ => null,
    };

    private Value Cycle(Interpreter render, Value self, CallArguments arguments) => arguments.Positional.Count == 0
        ? throw new TemplateFault("cycle() needs something to cycle through")
        : arguments.Positional[Index0 % arguments.Positional.Count];

    private BoolValue Changed(Interpreter render, Value self, CallArguments arguments)
    {
        SequenceValue current = SequenceValue.Tuple([.. arguments.Positional]);
        bool changed = _lastChanged is null || !render.AreEqual(_lastChanged, current);
        _lastChanged = current;
        return BoolValue.Of(changed);
    }
}

/// <summary>What <c>cycler(…)</c> gives: its items one after the other, again and again.</summary>
internal sealed class CyclerValue(IReadOnlyList<Value> items) : ObjectValue
{
    private int _position;

    public override string TypeName => "Cycler";

    public override Value? Attribute(string name) => name switch
    {
        "current" => items[_position],
        "items" => SequenceValue.Tuple([.. items]),
        "next" => new BoundNative(new Native("next", "", (_, _, _) => Next()), this),
        "reset" => new BoundNative(new Native("reset", "", (_, _, _) => Reset()), this),
        _ => null,
    };

    private Value Next()
    {
        Value current = items[_position];
        _position = (_position + 1) % items.Count;
        return current;
    }

    private NoneValue Reset()
    {
        _position = 0;
        return NoneValue.Instance;
    }
}

/// <summary>What <c>joiner(separator)</c> gives: nothing at the first call, the separator at every later one.</summary>
internal sealed class JoinerValue(Value separator) : CallableValue
{
    private bool _used;

    public override string TypeName => "Joiner";

    public override Value Call(Interpreter render, CallArguments arguments)
    {
        bool first = !_used;
        _used = true;
        return first ? StringValue.Empty : separator;
    }
}
