using System.Text;

namespace Engine.Text.Templates;

/// <summary>
/// jinja2's filters on sequences. Those that jinja2 writes as generators give an iterator here too: lazy, once, without a length.
/// </summary>
internal static class SequenceFilters
{
    public static Native[] All() =>
    [
        new("batch", "linecount fill_with?", (r, value, a) => Batch(r, value, Filters.Integer(a[0], 0), a[1])),
        new("count", "", (_, value, _) => Length(value)),
        new("dictsort", "case_sensitive? by? reverse?", DictSort),
        new("first", "", (r, value, _) => r.Iterate(value).FirstOrDefault() ?? Nothing("first")),
        new("groupby", "attribute default? case_sensitive?", GroupBy),
        new("items", "", (_, value, _) => Items(value)),
        new("join", "d? attribute?", Join),
        new("last", "", (r, value, _) => Reversed(r, value).FirstOrDefault() ?? Nothing("last")),
        new("length", "", (_, value, _) => Length(value)),
        new("list", "", (r, value, _) => r.NewList(r.Iterate(value))),
        new("map", Map),
        new("max", "case_sensitive? attribute?", (r, value, a) => Extreme(r, value, a, 1)),
        new("min", "case_sensitive? attribute?", (r, value, a) => Extreme(r, value, a, -1)),
        new("reject", (r, value, a) => Select(r, value, a, byAttribute: false, keep: false)),
        new("rejectattr", (r, value, a) => Select(r, value, a, byAttribute: true, keep: false)),
        new("reverse", "", Reverse),
        new("select", (r, value, a) => Select(r, value, a, byAttribute: false, keep: true)),
        new("selectattr", (r, value, a) => Select(r, value, a, byAttribute: true, keep: true)),
        new("slice", "slices fill_with?", (r, value, a) => Slices(r, value, Filters.Integer(a[0], 0), a[1])),
        new("sort", "reverse? case_sensitive? attribute?", Sort),
        new("sum", "attribute? start?", Sum),
        new("unique", "case_sensitive? attribute?", Unique),
    ];

    private static UndefinedValue Nothing(string which) => new($"there is no {which} item, the sequence is empty");

    private static IntValue Length(Value value) => value.Length >= 0
        ? new IntValue(value.Length) : throw new TemplateFault($"a value of type {value.TypeName} has no length");

    /// <summary>What filters compare items by: the value at the attribute's path, in lower case unless case matters.</summary>
    private static Func<Value, Value> Key(Interpreter render, Value? attribute, Value? caseSensitive, Value? fallback = null) => item =>
    {
        Value key = attribute is null or NoneValue ? item : Attributes.Path(item, attribute, fallback, render);
        return key is StringValue text && !Filters.IsTrue(caseSensitive) ? render.NewText(PythonCase.Lower(text.Text)) : key;
    };

    private static IteratorValue Batch(Interpreter render, Value value, int size, Value? fill)
    {
        return new IteratorValue(Batches());

        IEnumerable<Value> Batches()
        {
            var batch = new List<Value>();
            foreach (Value item in render.Iterate(value))
            {
                if (batch.Count == size)
                {
                    yield return SequenceValue.List(batch);
                    batch = [];
                }
                render.Budget.References(1);
                batch.Add(item);
            }
            if (batch.Count == 0) yield break;
            if (fill is not (null or NoneValue) && batch.Count < size)
            {
                render.Budget.References(size);
                batch.AddRange(Enumerable.Repeat(fill, size - batch.Count));
            }
            yield return SequenceValue.List(batch);
        }
    }

    private static IteratorValue Slices(Interpreter render, Value value, int count, Value? fill)
    {
        return new IteratorValue(Parts());

        IEnumerable<Value> Parts()
        {
            Value[] items = [.. render.Iterate(value)];
            if (count == 0) throw new TemplateFault("a sequence cannot be cut into 0 slices");
            (int size, int longer) = Math.DivRem(items.Length, Math.Max(count, 1));
            int start = 0;
            for (int i = 0; i < count; i++)
            {
                render.Budget.References(size + 1);
                int end = start + size + (i < longer ? 1 : 0);
                List<Value> part = [.. items[start..end]];
                if (fill is not (null or NoneValue) && i >= longer) part.Add(fill);
                yield return SequenceValue.List(part);
                start = end;
            }
        }
    }

    private static SequenceValue DictSort(Interpreter render, Value value, Value?[] arguments)
    {
        if (value is UndefinedValue undefined) throw undefined.Fault();
        if (value is not DictValue dict) throw new TemplateFault($"dictsort takes a mapping, found a value of type {value.TypeName}");
        string by = arguments[1] is null ? "key" : Filters.Text(arguments[1]!);
        if (by is not ("key" or "value")) throw new TemplateFault("dictsort sorts by 'key' or 'value'");
        Func<Value, Value> key = Key(render, null, arguments[0]);
        var sorted = render.Sort(dict.Items, item => key(by == "key" ? item.Key : item.Value), Filters.IsTrue(arguments[2]));
        return render.NewList(sorted.Select(item => SequenceValue.Tuple(item.Key, item.Value)));
    }

    private static SequenceValue GroupBy(Interpreter render, Value value, Value?[] arguments)
    {
        Func<Value, Value> key = Key(render, arguments[0], arguments[2], arguments[1]);
        var groups = new List<(Value Key, List<Value> Items)>();
        foreach (Value item in render.Sort(render.Iterate(value), key, reverse: false))
        {
            render.Budget.References(1);
            Value itemKey = key(item);
            if (groups.Count == 0 || !render.AreEqual(groups[^1].Key, itemKey)) groups.Add((itemKey, []));
            groups[^1].Items.Add(item);
        }
        // The key that is shown is the first item's own, not the lower-case one that grouped it.
        return render.NewList(groups.Select(group =>
        {
            Value shown = Attributes.Path(group.Items[0], arguments[0]!, arguments[1], render);
            return new SequenceValue(SequenceKind.Tuple, [shown, SequenceValue.List(group.Items)]) { IsGroup = true };
        }));
    }

    private static IteratorValue Items(Value value) => value switch
    {
        UndefinedValue => new IteratorValue([]),
        DictValue dict => new IteratorValue(dict.Items.Select(item => SequenceValue.Tuple(item.Key, item.Value))),
        _ => throw new TemplateFault($"items takes a mapping, found a value of type {value.TypeName}"),
    };

    private static StringValue Join(Interpreter render, Value value, Value?[] arguments)
    {
        string separator = arguments[0] is null ? "" : render.Str(arguments[0]!);
        var text = new StringBuilder();
        bool first = true;
        foreach (Value item in render.Iterate(value))
        {
            string piece = render.Str(arguments[1] is null or NoneValue ? item : Attributes.Path(item, arguments[1]!, null, render));
            if (!first) piece = separator + piece;
            first = false;
            render.Budget.Append(text, piece.Length);
            text.Append(piece);
        }
        return new StringValue(text.ToString());
    }

    private static IEnumerable<Value> Reversed(Interpreter render, Value value)
    {
        if (value is IteratorValue) throw new TemplateFault($"a value of type {value.TypeName} cannot be reversed");
        return render.Iterate(value).Reverse();
    }

    private static Value Reverse(Interpreter render, Value value, Value?[] arguments) => value switch
    {
        StringValue text => render.NewText(PythonStrings.Reverse(text.Text), text.IsMarkup),
        IteratorValue => SequenceValue.List([.. render.Iterate(value).Reverse()]),
        SequenceValue or DictValue or UndefinedValue => new IteratorValue(render.Iterate(value).Reverse()),
        _ => throw new TemplateFault($"a value of type {value.TypeName} cannot be reversed"),
    };

    private static Value Extreme(Interpreter render, Value value, Value?[] arguments, int direction)
    {
        Func<Value, Value> key = Key(render, arguments[1], arguments[0]);
        Value? best = null, bestKey = null;
        foreach (Value item in render.Iterate(value))
        {
            Value itemKey = key(item);
            if (bestKey is not null && !((render.Order(itemKey, bestKey) ?? 0) * direction > 0)) continue;
            (best, bestKey) = (item, itemKey);
        }
        return best ?? new UndefinedValue("there is no item to choose, the sequence is empty");
    }

    private static IteratorValue Map(Interpreter render, Value value, CallArguments arguments)
    {
        return new IteratorValue(value.IsTrue ? render.Iterate(value).Select(Mapping()) : []);

        Func<Value, Value> Mapping()
        {
            if (arguments.Positional.Count > 0)
            {
                string name = Filters.Text(arguments.Positional[0]);
                CallArguments rest = arguments.Skip(1);
                return item => render.ApplyFilter(name, item, rest);
            }
            Value attribute = arguments.Find("attribute") ?? throw new TemplateFault("map needs the name of a filter, or an attribute");
            if (arguments.Named.FirstOrDefault(a => a.Key is not ("attribute" or "default")).Key is string unknown)
                throw new TemplateFault($"map() has no argument '{unknown}'");
            return item => Attributes.Path(item, attribute, arguments.Find("default"), render);
        }
    }

    private static IteratorValue Select(Interpreter render, Value value, CallArguments arguments, bool byAttribute, bool keep)
    {
        Value? attribute = null;
        if (byAttribute)
        {
            attribute = arguments.Positional.Count > 0 ? arguments.Positional[0]
                : throw new TemplateFault("selectattr and rejectattr need an attribute");
            arguments = arguments.Skip(1);
        }
        string? test = arguments.Positional.Count > 0 ? Filters.Text(arguments.Positional[0]) : null;
        CallArguments rest = arguments.Skip(1);
        return new IteratorValue(value.IsTrue ? render.Iterate(value).Where(Passes) : []);

        bool Passes(Value item)
        {
            Value subject = attribute is null ? item : Attributes.Path(item, attribute, null, render);
            return keep == (test is null ? subject.IsTrue : render.ApplyTest(test, subject, rest));
        }
    }

    private static SequenceValue Sort(Interpreter render, Value value, Value?[] arguments)
    {
        Value[] paths = arguments[2] is StringValue text
            ? Array.ConvertAll(text.Text.Split(','), path => (Value)new StringValue(path)) : [arguments[2] ?? NoneValue.Instance];
        Func<Value, Value>[] keys = Array.ConvertAll(paths, path => Key(render, path, arguments[1]));
        return render.NewList(render.Sort(
            render.Iterate(value), item => SequenceValue.List(Array.ConvertAll(keys, key => key(item))), Filters.IsTrue(arguments[0])));
    }

    private static Value Sum(Interpreter render, Value value, Value?[] arguments)
    {
        Value sum = arguments[1] ?? new IntValue(0);
        if (sum is StringValue) throw new TemplateFault("sum does not add strings; join does");
        foreach (Value item in render.Iterate(value))
        {
            Value addend = arguments[0] is null or NoneValue ? item : Attributes.Path(item, arguments[0]!, null, render);
            sum = Operators.Apply(BinaryOperator.Add, sum, addend, render);
        }
        return sum;
    }

    private static IteratorValue Unique(Interpreter render, Value value, Value?[] arguments)
    {
        var seen = new HashSet<Value>(KeyComparer.Instance);
        Func<Value, Value> key = Key(render, arguments[1], arguments[0]);
        return new IteratorValue(render.Iterate(value).Where(item =>
        {
            Value itemKey = key(item);
            render.Budget.Objects(1);
            render.Budget.Scan(itemKey.Weight);
            return seen.Add(itemKey);
        }));
    }
}
