using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace Engine.Text.Templates;

/// <summary>Python's <c>==</c>, <c>&lt;</c> and <c>hash</c>. Values bound their own depth and weight, so every walk here ends.</summary>
internal static class Equality
{
    public static bool AreEqual(Value left, Value right)
    {
        if (ReferenceEquals(left, right)) return left is not FloatValue { Number: double.NaN };
        switch (left, right)
        {
            case (UndefinedValue, UndefinedValue): return true;
            case (StringValue a, StringValue b): return a.Text == b.Text;
            case (SequenceValue a, SequenceValue b):
                if (a.Kind != b.Kind || !a.IsIndexable || a.Length != b.Length) return false;
                for (int i = 0; i < a.Length; i++)
                {
                    if (!AreSame(a.Items[i], b.Items[i])) return false;
                }
                return true;
            case (DictValue a, DictValue b):
                return a.Length == b.Length
                    && a.Items.All(item => b.Items.TryGetValue(item.Key, out Value? other) && AreSame(item.Value, other));
            default: return IsNumber(left) && IsNumber(right) && Order(left, right) == 0;
        }
    }

    /// <summary>Equality as containers use it: a value is the same as itself even where it does not equal itself (NaN).</summary>
    public static bool AreSame(Value left, Value right) => ReferenceEquals(left, right) || AreEqual(left, right);

    /// <summary>
    /// Negative, zero or positive as left is less than, equal to or greater than right; null for NaN. A fault where types have no
    /// order.
    /// </summary>
    public static int? Order(Value left, Value right)
    {
        switch (left, right)
        {
            case (StringValue a, StringValue b): return Order(a.Text, b.Text);
            case (SequenceValue a, SequenceValue b) when a.Kind == b.Kind && a.Kind is SequenceKind.List or SequenceKind.Tuple:
                int common = Math.Min(a.Length, b.Length);
                for (int i = 0; i < common; i++)
                {
                    if (!AreSame(a.Items[i], b.Items[i])) return Order(a.Items[i], b.Items[i]);
                }
                return a.Length.CompareTo(b.Length);
            case (FloatValue a, FloatValue b): return Order(a.Number, b.Number);
            case (FloatValue a, _) when PythonNumbers.TryInteger(right, out BigInteger b):
                return double.IsNaN(a.Number) ? null : -PythonNumbers.Compare(b, a.Number);
            case (_, FloatValue b) when PythonNumbers.TryInteger(left, out BigInteger a):
                return double.IsNaN(b.Number) ? null : PythonNumbers.Compare(a, b.Number);
            case (UndefinedValue undefined, _): throw undefined.Fault();
            case (_, UndefinedValue undefined): throw undefined.Fault();
        }
        if (PythonNumbers.TryInteger(left, out BigInteger x) && PythonNumbers.TryInteger(right, out BigInteger y)) return x.CompareTo(y);
        throw new TemplateFault($"values of the types {left.TypeName} and {right.TypeName} have no order");
    }

    public static int Hash(Value value) => value switch
    {
        StringValue s => s.Text.GetHashCode(StringComparison.Ordinal),
        FloatValue f when double.IsFinite(f.Number) && double.IsInteger(f.Number) => new BigInteger(f.Number).GetHashCode(),
        FloatValue f => f.Number.GetHashCode(),
        IntValue i => i.Number.GetHashCode(),
        BoolValue b => new BigInteger(b.IsTrue ? 1 : 0).GetHashCode(),
        UndefinedValue => 0,
        SequenceValue { Kind: SequenceKind.Tuple or SequenceKind.Range } s =>
            s.Items.Aggregate(s.Length, (hash, item) => HashCode.Combine(hash, Hash(item))),
        SequenceValue or DictValue => throw new TemplateFault($"a value of type {value.TypeName} cannot be a key"),
        _ => RuntimeHelpers.GetHashCode(value),
    };

    private static bool IsNumber(Value value) => value is BoolValue or IntValue or FloatValue;

    private static int? Order(double left, double right) => double.IsNaN(left) || double.IsNaN(right) ? null : left.CompareTo(right);

    /// <summary>By code points, which is not the order of UTF-16 where surrogates meet U+E000 and above.</summary>
    private static int Order(string left, string right)
    {
        if (!CodePoints.HasSurrogates(left) && !CodePoints.HasSurrogates(right)) return string.CompareOrdinal(left, right);
        int at = left.AsSpan().CommonPrefixLength(right);
        if (at == left.Length || at == right.Length) return left.Length.CompareTo(right.Length);
        return Rank(left[at]).CompareTo(Rank(right[at]));

        static int Rank(char c) => char.IsSurrogate(c) ? c + 0x10000 : c;
    }
}

/// <summary>Keys of a dict under Python's equality, by which 1, 1.0 and true are one key.</summary>
internal sealed class KeyComparer : IEqualityComparer<Value>
{
    public static readonly KeyComparer Instance = new();

    public bool Equals(Value? x, Value? y) => x is not null && y is not null && Equality.AreSame(x, y);

    public int GetHashCode([DisallowNull] Value obj) => Equality.Hash(obj);
}
