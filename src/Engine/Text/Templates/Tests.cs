using System.Collections.Frozen;
using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>What can follow <c>is</c>.</summary>
internal static class Tests
{
    /// <summary>Every test by its name.</summary>
    public static readonly FrozenDictionary<string, Native> All = ((Native[])
    [
        Test("boolean", value => value is BoolValue),
        Test("callable", value => value is CallableValue or UndefinedValue),
        Test("defined", value => value is not UndefinedValue),
        new("divisibleby", "num", (r, value, a) => BoolValue.Of(Remainder(r, value, a[0]!) is { IsTrue: false })),
        Test("escaped", value => value is StringValue { IsMarkup: true }),
        new("even", "", (r, value, _) => BoolValue.Of(HasRemainder(r, value, 0))),
        Test("false", value => value == BoolValue.False),
        new("filter", "", (_, value, _) => BoolValue.Of(value is StringValue name && Filters.All.ContainsKey(name.Text))),
        Test("float", value => value is FloatValue),
        Test("integer", value => value is IntValue),
        Test("iterable", Interpreter.IsIterable),
        new("lower", "", (r, value, _) => BoolValue.Of(PythonCase.HasCase(r.Str(value), upper: false))),
        Test("mapping", value => value is DictValue),
        Test("none", value => value is NoneValue),
        Test("number", value => value is IntValue or FloatValue or BoolValue),
        new("odd", "", (r, value, _) => BoolValue.Of(HasRemainder(r, value, 1))),
        new("sameas", "other", (_, value, a) => BoolValue.Of(IsSame(value, a[0]!))),
        Test("sequence", value => value is SequenceValue { IsIndexable: true } or DictValue or StringValue or UndefinedValue),
        Test("string", value => value is StringValue),
        new("test", "", (_, value, _) => BoolValue.Of(value is StringValue name && All!.ContainsKey(name.Text))),
        Test("true", value => value == BoolValue.True),
        Test("undefined", value => value is UndefinedValue),
        new("upper", "", (r, value, _) => BoolValue.Of(PythonCase.HasCase(r.Str(value), upper: true))),
        .. Comparison(ComparisonOperator.Equal, "==", "eq", "equalto"),
        .. Comparison(ComparisonOperator.NotEqual, "!=", "ne"),
        .. Comparison(ComparisonOperator.Less, "<", "lt", "lessthan"),
        .. Comparison(ComparisonOperator.LessOrEqual, "<=", "le"),
        .. Comparison(ComparisonOperator.Greater, ">", "gt", "greaterthan"),
        .. Comparison(ComparisonOperator.GreaterOrEqual, ">=", "ge"),
        .. Comparison(ComparisonOperator.In, "in"),
    ]).ToFrozenDictionary(test => test.Name, StringComparer.Ordinal);

    private static Native Test(string name, Func<Value, bool> holds) => new(name, "", (_, value, _) => BoolValue.Of(holds(value)));

    private static Native[] Comparison(ComparisonOperator comparison, params string[] names) =>
        Array.ConvertAll(names, name => new Native(name, "other", (r, value, a) => BoolValue.Of(r.Compare(comparison, value, a[0]!))));

    private static Value Remainder(Interpreter render, Value value, Value divisor) =>
        Operators.Apply(BinaryOperator.Modulo, value, divisor, render);

    private static bool HasRemainder(Interpreter render, Value value, int remainder) =>
        Equality.AreEqual(Remainder(render, value, new IntValue(2)), new IntValue(remainder));

    /// <summary>Python's <c>is</c>, as far as it is defined: one object, or two small values that Python keeps once.</summary>
    private static bool IsSame(Value left, Value right) => ReferenceEquals(left, right) || (left, right) switch
    {
        (IntValue a, IntValue b) => a.Number == b.Number && a.Number >= -5 && a.Number <= (BigInteger)256,
        (StringValue a, StringValue b) => a.Text == b.Text,
        _ => false,
    };
}
