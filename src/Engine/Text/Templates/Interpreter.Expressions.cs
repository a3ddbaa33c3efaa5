using System.Text;

namespace Engine.Text.Templates;

/// <summary>Evaluates expressions, and offers natives what they need of the rendering.</summary>
internal sealed partial class Interpreter
{
    public string Str(Value value) => PythonText.Str(value, Budget);

    /// <summary>A string that a template made, paid for.</summary>
    public StringValue NewText(string text, bool isMarkup = false)
    {
        Budget.Text(text.Length);
        return new StringValue(text, isMarkup);
    }

    /// <summary>A list of values made for it, paid for.</summary>
    public SequenceValue NewList(IEnumerable<Value> items)
    {
        var list = new List<Value>();
        foreach (Value item in items)
        {
            Budget.Objects(1);
            list.Add(item);
        }
        return SequenceValue.List(list);
    }

    public bool AreEqual(Value left, Value right)
    {
        Budget.Scan(Math.Min(left.Weight, right.Weight));
        return Equality.AreEqual(left, right);
    }

    public int? Order(Value left, Value right)
    {
        Budget.Scan(Math.Min(left.Weight, right.Weight));
        return Equality.Order(left, right);
    }

    /// <summary>Sorts as Python does, by <c>&lt;</c> alone and keeping the order of equals: merging runs of doubling width.</summary>
    public T[] Sort<T>(IEnumerable<T> items, Func<T, Value> key, bool reverse)
    {
        (Value Key, T Item)[] sorted = [.. items.Select(item => (key(item), item))];
        Budget.Objects(sorted.Length);
        var merged = new (Value Key, T Item)[sorted.Length];
        for (int width = 1; width < sorted.Length; width *= 2)
        {
            for (int start = 0; start < sorted.Length; start += 2 * width)
            {
                int middle = Math.Min(start + width, sorted.Length), end = Math.Min(start + 2 * width, sorted.Length);
                for (int left = start, right = middle, to = start; to < end; to++)
                {
                    bool takeRight = left == middle || (right < end && Precedes(sorted[right].Key, sorted[left].Key));
                    merged[to] = takeRight ? sorted[right++] : sorted[left++];
                }
            }
            (sorted, merged) = (merged, sorted);
        }
        return Array.ConvertAll(sorted, pair => pair.Item);

        bool Precedes(Value later, Value earlier) => (reverse ? Order(earlier, later) : Order(later, earlier)) < 0;
    }

    /// <summary>The elements of a value, each paid for as it is taken.</summary>
    public IEnumerable<Value> Iterate(Value value)
    {
        IEnumerable<Value> elements = value switch
        {
            SequenceValue sequence => sequence.Items,
            DictValue dict => dict.Items.Keys,
            StringValue text => CodePoints.Split(text.Text).Select(point => new StringValue(point)),
            IteratorValue iterator => iterator.Rest(),
            UndefinedValue => [],
            _ => throw new TemplateFault($"a value of type {value.TypeName} has no elements to go through"),
        };
        foreach (Value element in elements)
        {
            Budget.Steps(1);
            yield return element;
        }
    }

    public static bool IsIterable(Value value) => value is SequenceValue or DictValue or StringValue or IteratorValue or UndefinedValue;

    public Value Call(Value callee, CallArguments arguments) => callee switch
    {
        CallableValue callable => callable.Call(this, arguments),
        UndefinedValue undefined => throw undefined.Fault(),
        _ => throw new TemplateFault($"a value of type {callee.TypeName} cannot be called"),
    };

    public Value ApplyFilter(string name, Value operand, CallArguments arguments) => Filters.All.TryGetValue(name, out Native? filter)
        ? filter.Call(this, operand, arguments)
        : throw new TemplateFault($"there is no filter '{name}'");

    public bool ApplyTest(string name, Value operand, CallArguments arguments) => Tests.All.TryGetValue(name, out Native? test)
        ? test.Call(this, operand, arguments).IsTrue
        : throw new TemplateFault($"there is no test '{name}'");

    public static DictValue DictOf(IEnumerable<KeyValuePair<string, Value>> items)
    {
        OrderedDictionary<Value, Value> dict = DictValue.NewItems();
        foreach ((string name, Value value) in items) dict[new StringValue(name)] = value;
        return new DictValue(dict);
    }

    private Value Evaluate(Expression expression, Scope scope)
    {
        Budget.EnterNode();
        try
        {
            Value value = expression switch
            {
                ConstantNode constant => constant.Value,
                NameNode name => scope.Find(name.Name) ?? new UndefinedValue($"'{name.Name}' is undefined"),
                AttributeNode member => Attributes.Get(Evaluate(member.Target, scope), member.Name),
                SubscriptNode item => Attributes.Item(Evaluate(item.Target, scope), Evaluate(item.Index, scope), this),
                SliceNode slice => Operators.Slice(
                    Evaluate(slice.Target, scope), EvaluateOptional(slice.Start, scope), EvaluateOptional(slice.Stop, scope),
                    EvaluateOptional(slice.Step, scope), this),
                CallNode call => Call(Evaluate(call.Callee, scope), EvaluateArguments(call.Arguments, scope)),
                FilterNode filter => ApplyFilter(filter.Filter, Evaluate(filter.Operand, scope), scope),
                TestNode test => BoolValue.Of(ApplyTest(
                    test.Name, Evaluate(test.Operand, scope), EvaluateArguments(test.Arguments, scope))),
                NotNode not => BoolValue.Of(!Evaluate(not.Operand, scope).IsTrue),
                SignNode sign => Operators.Negate(Evaluate(sign.Operand, scope), sign.Negative),
                BinaryNode binary => Operators.Apply(binary.Operator, Evaluate(binary.Left, scope), Evaluate(binary.Right, scope), this),
                LogicalNode logical => EvaluateLogical(logical, scope),
                ComparisonNode comparison => EvaluateComparison(comparison, scope),
                ConcatNode concat => EvaluateConcat(concat, scope),
                ConditionalNode conditional => EvaluateConditional(conditional, scope),
                SequenceNode sequence => EvaluateSequence(sequence, scope),
                DictNode dict => EvaluateDict(dict, scope),
                _ => throw new InvalidOperationException($"no rule evaluates {expression.GetType().Name}"),
            };
            Budget.LeaveNode();
            return value;
        }
        catch (TemplateFault fault) when (fault.At(expression.Line))
        {
            throw;
        }
    }

    private Value? EvaluateOptional(Expression? expression, Scope scope) => expression is null ? null : Evaluate(expression, scope);

    private Value EvaluateLogical(LogicalNode node, Scope scope)
    {
        Value left = Evaluate(node.Left, scope);
        return left.IsTrue == node.IsAnd ? Evaluate(node.Right, scope) : left;
    }

    private BoolValue EvaluateComparison(ComparisonNode node, Scope scope)
    {
        Value left = Evaluate(node.First, scope);
        foreach ((ComparisonOperator comparison, Expression next) in node.Links)
        {
            Value right = Evaluate(next, scope);
            if (!Compare(comparison, left, right)) return BoolValue.False;
            left = right;
        }
        return BoolValue.True;
    }

    public bool Compare(ComparisonOperator comparison, Value left, Value right) => comparison switch
    {
        ComparisonOperator.Equal => AreEqual(left, right),
        ComparisonOperator.NotEqual => !AreEqual(left, right),
        ComparisonOperator.Less => Order(left, right) < 0,
        ComparisonOperator.LessOrEqual => Order(left, right) <= 0,
        ComparisonOperator.Greater => Order(left, right) > 0,
        ComparisonOperator.GreaterOrEqual => Order(left, right) >= 0,
        ComparisonOperator.In => Operators.Contains(right, left, this),
        _ => !Operators.Contains(right, left, this),
    };

    private StringValue EvaluateConcat(ConcatNode node, Scope scope)
    {
        var text = new StringBuilder();
        foreach (Expression part in node.Parts)
        {
            string piece = Str(Evaluate(part, scope));
            Budget.Append(text, piece.Length);
            text.Append(piece);
        }
        return new StringValue(text.ToString());
    }

    private Value EvaluateConditional(ConditionalNode node, Scope scope)
    {
        if (Evaluate(node.Test, scope).IsTrue) return Evaluate(node.Then, scope);
        return node.Else is null ? new UndefinedValue("the inline if has no else and its condition is false") : Evaluate(node.Else, scope);
    }

    private SequenceValue EvaluateSequence(SequenceNode node, Scope scope)
    {
        Budget.References(node.Items.Length);
        return new SequenceValue(node.Kind, Array.ConvertAll(node.Items, item => Evaluate(item, scope)));
    }

    private DictValue EvaluateDict(DictNode node, Scope scope)
    {
        Budget.Objects(node.Items.Length);
        OrderedDictionary<Value, Value> items = DictValue.NewItems();
        foreach ((Expression keyNode, Expression valueNode) in node.Items)
        {
            Value key = Evaluate(keyNode, scope);
            Budget.Scan(key.Weight);
            items[key] = Evaluate(valueNode, scope);
        }
        return new DictValue(items);
    }

    private Value ApplyFilter(FilterCall filter, Value operand, Scope scope)
    {
        try
        {
            return ApplyFilter(filter.Name, operand, EvaluateArguments(filter.Arguments, scope));
        }
        catch (TemplateFault fault) when (fault.At(filter.Line))
        {
            throw;
        }
    }

    private CallArguments EvaluateArguments(ArgumentList list, Scope scope)
    {
        if (ReferenceEquals(list, ArgumentList.None)) return CallArguments.None;
        var positional = new List<Value>(list.Positional.Length);
        var named = new List<KeyValuePair<string, Value>>(list.Named.Length);
        foreach (Expression argument in list.Positional) positional.Add(Evaluate(argument, scope));
        if (list.Splat is not null)
        {
            Value[] splat = [.. Iterate(Evaluate(list.Splat, scope))];
            Budget.References(splat.Length);
            positional.AddRange(splat);
        }
        foreach ((string name, Expression value) in list.Named) named.Add(KeyValuePair.Create(name, Evaluate(value, scope)));
        if (list.NamedSplat is not null)
        {
            if (Evaluate(list.NamedSplat, scope) is not DictValue dict) throw new TemplateFault("what follows '**' in a call is a mapping");
            Budget.References(dict.Length);
            foreach ((Value key, Value value) in dict.Items)
            {
                if (key is not StringValue name) throw new TemplateFault("the keys of what follows '**' in a call are strings");
                if (list.Named.Any(argument => argument.Name == name.Text))
                    throw new TemplateFault($"the argument '{name.Text}' is given twice");
                named.Add(KeyValuePair.Create(name.Text, value));
            }
        }
        return new CallArguments(positional, named);
    }
}
