using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>The functions every template can call: jinja2's own and those that chat templates are given on top.</summary>
internal static class Globals
{
    private const int MaxRange = 100_000; // jinja2's sandbox has the same limit

    private static readonly Native[] Functions =
    [
        new("cycler", (_, _, a) => a.Positional.Count > 0
            ? new CyclerValue(a.Positional) : throw new TemplateFault("cycler() needs at least one item")),
        new("dict", (r, _, a) => MakeDict(r, a)),
        new("joiner", "sep?", (_, _, a) => new JoinerValue(a[0] ?? new StringValue(", "))),
        new("namespace", (r, _, a) => new NamespaceValue(MakeDict(r, a))),
        new("raise_exception", "message", (r, _, a) => throw new TemplateFault(r.Str(a[0]!))),
        new("range", (r, _, a) => Range(r, a)),
        new("strftime_now", "format", (r, _, a) => r.NewText(PythonTime.Format(r.Clock.GetLocalNow().DateTime, Filters.Text(a[0]!)))),
    ];

    /// <summary>Puts the functions into the outermost scope.</summary>
    public static void AddTo(Scope scope)
    {
        foreach (Native function in Functions) scope.Set(function.Name, new BoundNative(function, NoneValue.Instance));
    }

    private static DictValue MakeDict(Interpreter render, CallArguments arguments)
    {
        OrderedDictionary<Value, Value> items = DictValue.NewItems();
        switch (arguments.Positional)
        {
            case []: break;
            case [DictValue given]:
                foreach ((Value key, Value value) in given.Items) items[key] = value;
                break;
            case [Value pairs]:
                foreach (Value pair in render.Iterate(pairs))
                {
                    Value[] both = [.. render.Iterate(pair)];
                    if (both.Length != 2) throw new TemplateFault("dict() takes a mapping or pairs");
                    items[both[0]] = both[1];
                }
                break;
            default: throw new TemplateFault("dict() takes one positional argument at most");
        }
        foreach ((string name, Value value) in arguments.Named) items[new StringValue(name)] = value;
        render.Budget.Objects(items.Count);
        return new DictValue(items);
    }

    private static SequenceValue Range(Interpreter render, CallArguments arguments)
    {
        if (arguments is not { Positional: [_] or [_, _] or [_, _, _], Named: [] })
            throw new TemplateFault("range() takes one to three integers");
        BigInteger[] bounds = [.. arguments.Positional.Select(bound => PythonNumbers.TryInteger(bound, out BigInteger number)
            ? number : throw new TemplateFault($"range() takes integers, found a value of type {bound.TypeName}"))];
        (BigInteger start, BigInteger stop) = bounds.Length == 1 ? (0, bounds[0]) : (bounds[0], bounds[1]);
        BigInteger step = bounds.Length == 3 ? bounds[2] : 1;
        if (step.IsZero) throw new TemplateFault("the step of range() cannot be zero");

        BigInteger span = step.Sign > 0 ? stop - start : start - stop;
        BigInteger count = span.Sign <= 0 ? 0 : (span - 1) / BigInteger.Abs(step) + 1;
        if (count > MaxRange) throw new TemplateFault($"the range has {count} numbers, the limit is {MaxRange}");
        render.Budget.Objects((int)count);
        var items = new Value[(int)count];
        for (int i = 0; i < items.Length; i++) items[i] = new IntValue(start + i * step);
        string steps = step.IsOne ? "" : $", {step}";
        return new SequenceValue(SequenceKind.Range, items) { Description = $"range({start}, {stop}{steps})" };
    }
}
