using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>
/// A Python value as a template sees it. Values are immutable (the sandbox forbids what would change a list or a dict), except
/// for the few objects made for change: namespaces, cyclers, joiners, iterators.
/// </summary>
internal abstract class Value
{
    /// <summary>How deep containers may nest, so that walking them is safe.</summary>
    protected const int MaxDepth = 200;

    protected const int ElementWeight = 16;

    /// <summary>
    /// How heavy a value may be when everything shared in it is counted at each place it appears, so that walking it ends.
    /// </summary>
    protected const long MaxWeight = 1 << 26;

    /// <summary>Python's name of the type, for messages.</summary>
    public abstract string TypeName { get; }

    /// <summary>Python's <c>bool(value)</c>.</summary>
    public virtual bool IsTrue => true;

    /// <summary>What a walk over the value costs: one per character, <see cref="ElementWeight"/> per element.</summary>
    public virtual long Weight => ElementWeight;

    /// <summary>How many containers are nested in each other: 0 for a scalar, 1 for a list of scalars.</summary>
    public virtual int Depth => 0;

    /// <summary>Python's <c>len(value)</c>, or −1 where there is none.</summary>
    public virtual int Length => -1;

    protected static void CheckSize(int depth, long weight)
    {
        if (depth > MaxDepth) throw new TemplateFault($"a value nests deeper than {MaxDepth}");
        if (weight > MaxWeight) throw new TemplateFault("a value has too many elements");
    }
}

internal sealed class NoneValue : Value
{
    public static readonly NoneValue Instance = new();

    public override string TypeName => "NoneType";

    public override bool IsTrue => false;
}

/// <summary>
/// What a missing name, key or attribute gives: empty when printed, false, and a fault with its message when used otherwise.
/// </summary>
internal sealed class UndefinedValue(string message) : Value
{
    public override string TypeName => "Undefined";

    public override bool IsTrue => false;

    public override int Length => 0;

    public TemplateFault Fault() => new(message);
}

internal sealed class BoolValue : Value
{
    public static readonly BoolValue True = new(), False = new();

    public override string TypeName => "bool";

    public override bool IsTrue => this == True;

    public static BoolValue Of(bool value) => value ? True : False;
}

internal sealed class IntValue(BigInteger number) : Value
{
    public BigInteger Number => number;

    public override string TypeName => "int";

    public override bool IsTrue => !number.IsZero;
}

internal sealed class FloatValue(double number) : Value
{
    public double Number => number;

    public override string TypeName => "float";

    public override bool IsTrue => number != 0;
}

/// <summary>A string. <see cref="IsMarkup"/> marks one that went through <c>safe</c>: adding to it escapes what is added.</summary>
internal sealed class StringValue(string text, bool isMarkup = false) : Value
{
    public static readonly StringValue Empty = new("");

    private int _codePoints = -1;

    public string Text => text;

    public bool IsMarkup => isMarkup;

    public override string TypeName => isMarkup ? "Markup" : "str";

    public override bool IsTrue => text.Length > 0;

    public override long Weight => ElementWeight + text.Length;

    /// <summary>In code points, as Python counts.</summary>
    public override int Length => _codePoints >= 0 ? _codePoints : _codePoints = CodePoints.Count(text);
}

internal enum SequenceKind { List, Tuple, Range, KeysView, ValuesView, ItemsView }

/// <summary>A list, or what differs from one by its type only: a tuple, a range, a view of a dict.</summary>
internal sealed class SequenceValue : Value
{
    public static readonly SequenceValue EmptyTuple = new(SequenceKind.Tuple, []);

    public SequenceValue(SequenceKind kind, IReadOnlyList<Value> items)
    {
        Kind = kind;
        Items = items;
        Weight = ElementWeight;
        foreach (Value item in items)
        {
            Weight += item.Weight;
            Depth = Math.Max(Depth, item.Depth);
        }
        CheckSize(++Depth, Weight);
    }

    public SequenceKind Kind { get; }

    /// <summary>
    /// Whether this is a group of <c>groupby</c>: a tuple whose elements are also its attributes <c>grouper</c> and <c>list</c>.
    /// </summary>
    public bool IsGroup { get; init; }

    /// <summary>How a range was written; its elements do not say.</summary>
    public string? Description { get; init; }

    public IReadOnlyList<Value> Items { get; }

    /// <summary>Whether elements can be taken by their index, which the views of a dict do not allow.</summary>
    public bool IsIndexable => Kind < SequenceKind.KeysView;

    public override string TypeName => Kind switch
    {
        SequenceKind.List => "list",
        SequenceKind.Tuple => "tuple",
        SequenceKind.Range => "range",
        SequenceKind.KeysView => "dict_keys",
        SequenceKind.ValuesView => "dict_values",
        _ => "dict_items",
    };

    public override bool IsTrue => Items.Count > 0;

    public override long Weight { get; }

    public override int Depth { get; }

    public override int Length => Items.Count;

    public static SequenceValue List(IReadOnlyList<Value> items) => new(SequenceKind.List, items);

    public static SequenceValue Tuple(params Value[] items) => new(SequenceKind.Tuple, items);
}

/// <summary>A dict: keys by Python's equality, in the order of insertion.</summary>
internal sealed class DictValue : Value
{
    public DictValue(OrderedDictionary<Value, Value> items)
    {
        Items = items;
        Weight = ElementWeight;
        foreach ((Value key, Value value) in items)
        {
            Weight += key.Weight + value.Weight;
            Depth = Math.Max(Depth, Math.Max(key.Depth, value.Depth));
        }
        CheckSize(++Depth, Weight);
    }

    public OrderedDictionary<Value, Value> Items { get; }

    public override string TypeName => "dict";

    public override bool IsTrue => Items.Count > 0;

    public override long Weight { get; }

    public override int Depth { get; }

    public override int Length => Items.Count;

    public static OrderedDictionary<Value, Value> NewItems() => new(KeyComparer.Instance);

    public Value? Find(string key) => Items.TryGetValue(new StringValue(key), out Value? value) ? value : null;
}

/// <summary>What <c>map</c>, <c>select</c> and their kind give: elements that can be taken once. Always true, without a length.</summary>
internal sealed class IteratorValue(IEnumerable<Value> items) : Value
{
    private readonly IEnumerator<Value> _items = items.GetEnumerator();

    public override string TypeName => "generator";

    /// <summary>The elements that have not been taken yet.</summary>
    public IEnumerable<Value> Rest()
    {
        while (_items.MoveNext()) yield return _items.Current;
    }
}

/// <summary>The object that <c>namespace()</c> makes; the only one with attributes that <c>set</c> can write.</summary>
internal sealed class NamespaceValue(DictValue attributes) : Value
{
    private readonly OrderedDictionary<Value, Value> _attributes = new(attributes.Items, KeyComparer.Instance);

    public override string TypeName => "Namespace";

    public IEnumerable<KeyValuePair<Value, Value>> Attributes => _attributes;

    public Value? Find(Value name) => _attributes.TryGetValue(name, out Value? value) ? value : null;

    public void Set(string name, Value value) => _attributes[new StringValue(name)] = value;
}
