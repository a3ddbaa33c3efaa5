using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>Python's binary operators, <c>in</c> and slices.</summary>
internal static class Operators
{
    public static Value Apply(BinaryOperator operation, Value left, Value right, Interpreter render)
    {
        if (left is UndefinedValue leftUndefined) throw leftUndefined.Fault();
        if (right is UndefinedValue rightUndefined && !(operation == BinaryOperator.Modulo && left is StringValue))
            throw rightUndefined.Fault();

        if (PythonNumbers.TryInteger(left, out BigInteger a) && PythonNumbers.TryInteger(right, out BigInteger b))
            return Integers(operation, a, b);
        if (PythonNumbers.TryFloat(left, out double x) && PythonNumbers.TryFloat(right, out double y)) return Floats(operation, x, y);
        switch (operation, left, right)
        {
            case (BinaryOperator.Add, StringValue s, StringValue t): return Concat(s, t, render);
            case (BinaryOperator.Add, SequenceValue { Kind: SequenceKind.List or SequenceKind.Tuple } s, SequenceValue t)
                when s.Kind == t.Kind:
                render.Budget.References((long)s.Length + t.Length);
                return new SequenceValue(s.Kind, [.. s.Items, .. t.Items]);
            case (BinaryOperator.Multiply, StringValue or SequenceValue, _) when PythonNumbers.TryInteger(right, out BigInteger count):
                return Repeat(left, count, render);
            case (BinaryOperator.Multiply, _, StringValue or SequenceValue) when PythonNumbers.TryInteger(left, out BigInteger count):
                return Repeat(right, count, render);
            case (BinaryOperator.Modulo, StringValue format, _):
                return render.NewText(PythonFormat.Percent(format.Text, right, render));
            default: throw Unsupported(operation, left, right);
        }
    }

    public static Value Negate(Value operand, bool negative) => operand switch
    {
        UndefinedValue undefined => throw undefined.Fault(),
        FloatValue f => negative ? new FloatValue(-f.Number) : f,
        _ when PythonNumbers.TryInteger(operand, out BigInteger number) => new IntValue(negative ? -number : number),
        _ => throw new TemplateFault($"a value of type {operand.TypeName} has no sign"),
    };

    /// <summary>Python's <c>item in container</c>.</summary>
    public static bool Contains(Value container, Value item, Interpreter render)
    {
        switch (container, item)
        {
            case (StringValue text, StringValue part):
                render.Budget.Scan(text.Text.Length + (long)part.Text.Length);
                return PythonStrings.Contains(text.Text, part.Text);
            case (StringValue, _): throw new TemplateFault($"'in' a string looks for a string, not for a value of type {item.TypeName}");
            case (DictValue dict, _):
                render.Budget.Scan(item.Weight);
                return dict.Items.ContainsKey(item);
            default: return render.Iterate(container).Any(element => ReferenceEquals(element, item) || render.AreEqual(element, item));
        }
    }

    /// <summary>Python's <c>target[start:stop:step]</c>, each part null where it is left out.</summary>
    public static Value Slice(Value target, Value? start, Value? stop, Value? step, Interpreter render)
    {
        if (target is UndefinedValue undefined) throw undefined.Fault();
        if (target is not (StringValue or SequenceValue { IsIndexable: true }))
            throw new TemplateFault($"a value of type {target.TypeName} cannot be sliced");

        int length = target.Length;
        int stride = Bound(step, 1);
        if (stride == 0) throw new TemplateFault("the step of a slice cannot be zero");
        int lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? length : length - 1;
        int from = Clamp(Bound(start, stride > 0 ? 0 : int.MaxValue));
        int to = stop is null or NoneValue ? (stride > 0 ? length : -1) : Clamp(Bound(stop, 0));
        long span = stride > 0 ? (long)to - from : (long)from - to;
        int count = span <= 0 ? 0 : (int)((span - 1) / Math.Abs((long)stride)) + 1;

        if (target is StringValue s)
        {
            render.Budget.Scan(s.Text.Length);
            return render.NewText(CodePoints.Slice(s.Text, count == 0 ? 0 : from, stride, count), s.IsMarkup);
        }
        var sequence = (SequenceValue)target;
        render.Budget.References(count);
        var items = new Value[count];
        for (int i = 0; i < count; i++) items[i] = sequence.Items[from + i * stride];
        return new SequenceValue(sequence.Kind, items);

        int Clamp(int index) => (int)Math.Clamp(index < 0 ? (long)index + length : index, lowest, highest);
    }

    private static int Bound(Value? value, int absent)
    {
        if (value is null or NoneValue) return absent;
        if (!PythonNumbers.TryInteger(value, out BigInteger number)) throw new TemplateFault("the bounds of a slice are integers or none");
        return (int)BigInteger.Max(int.MinValue + 1, BigInteger.Min(int.MaxValue, number));
    }

    private static Value Integers(BinaryOperator operation, BigInteger left, BigInteger right)
    {
        if (right.IsZero && operation is BinaryOperator.Divide or BinaryOperator.FloorDivide or BinaryOperator.Modulo)
            throw DivisionByZero();
        return operation switch
        {
            BinaryOperator.Add => PythonNumbers.Checked(left + right),
            BinaryOperator.Subtract => PythonNumbers.Checked(left - right),
            BinaryOperator.Multiply => PythonNumbers.Checked(left * right),
            BinaryOperator.Divide => new FloatValue(PythonNumbers.ToDouble(left) / PythonNumbers.ToDouble(right)),
            BinaryOperator.FloorDivide => new IntValue(PythonNumbers.FloorDivide(left, right)),
            BinaryOperator.Modulo => new IntValue(PythonNumbers.Modulo(left, right)),
            _ => PythonNumbers.Power(left, right),
        };
    }

    private static FloatValue Floats(BinaryOperator operation, double left, double right)
    {
        if (right == 0 && operation is BinaryOperator.Divide or BinaryOperator.FloorDivide or BinaryOperator.Modulo) throw DivisionByZero();
        return operation switch
        {
            BinaryOperator.Add => new FloatValue(left + right),
            BinaryOperator.Subtract => new FloatValue(left - right),
            BinaryOperator.Multiply => new FloatValue(left * right),
            BinaryOperator.Divide => new FloatValue(left / right),
            BinaryOperator.FloorDivide => new FloatValue(PythonNumbers.FloorDivide(left, right)),
            BinaryOperator.Modulo => new FloatValue(PythonNumbers.Modulo(left, right)),
            _ => PythonNumbers.Power(left, right),
        };
    }

    private static TemplateFault DivisionByZero() => new("division by zero");

    private static StringValue Concat(StringValue left, StringValue right, Interpreter render)
    {
        bool isMarkup = left.IsMarkup || right.IsMarkup;
        string first = isMarkup && !left.IsMarkup ? PythonStrings.Escape(left.Text) : left.Text;
        string second = isMarkup && !right.IsMarkup ? PythonStrings.Escape(right.Text) : right.Text;
        render.Budget.Text((long)first.Length + second.Length);
        return new StringValue(first + second, isMarkup);
    }

    private static Value Repeat(Value value, BigInteger count, Interpreter render)
    {
        if (count.Sign < 0) count = 0;
        if (value is StringValue s)
        {
            render.Budget.Text(Total(s.Text.Length));
            return new StringValue(string.Concat(Enumerable.Repeat(s.Text, (int)count)), s.IsMarkup);
        }
        if (value is not SequenceValue { Kind: SequenceKind.List or SequenceKind.Tuple } sequence)
            throw new TemplateFault($"a value of type {value.TypeName} cannot be repeated");
        render.Budget.References(Total(sequence.Length));
        return new SequenceValue(sequence.Kind, [.. Enumerable.Repeat(sequence.Items, (int)count).SelectMany(items => items)]);

        // The count is kept within an int even where there is nothing to repeat.
        long Total(int length) => (long)BigInteger.Min(count * Math.Max(length, 1), int.MaxValue);
    }

    private static TemplateFault Unsupported(BinaryOperator operation, Value left, Value right)
    {
        string symbol = operation switch
        {
            BinaryOperator.Add => "+",
            BinaryOperator.Subtract => "-",
            BinaryOperator.Multiply => "*",
            BinaryOperator.Divide => "/",
            BinaryOperator.FloorDivide => "//",
            BinaryOperator.Modulo => "%",
            _ => "**",
        };
        return new TemplateFault($"'{symbol}' does not take values of the types {left.TypeName} and {right.TypeName}");
    }
}
