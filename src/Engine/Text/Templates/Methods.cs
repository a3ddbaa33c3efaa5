using System.Collections.Frozen;

namespace Engine.Text.Templates;

/// <summary>
/// The methods of Python's values, less those that change their object. Those of strings are in <see cref="StringMethods"/>.
/// </summary>
internal static class Methods
{
    private static readonly FrozenDictionary<string, Native> Strings = Table(StringMethods.All());

    private static readonly FrozenDictionary<string, Native> Tuples = Table(
        new("count", "value", (r, self, a) => new IntValue(((SequenceValue)self).Items.Count(item => r.AreEqual(item, a[0]!)))),
        new("index", "value start? stop?", IndexOf));

    private static readonly FrozenDictionary<string, Native> Lists = Table([.. Tuples.Values, new("copy", "", (_, self, _) => self)]);

    private static readonly FrozenDictionary<string, Native> Dicts = Table(
        new("copy", "", (_, self, _) => self),
        new("get", "key default?", Get),
        new("items", "", (r, self, _) => View(r, self, SequenceKind.ItemsView)),
        new("keys", "", (r, self, _) => View(r, self, SequenceKind.KeysView)),
        new("values", "", (r, self, _) => View(r, self, SequenceKind.ValuesView)));

    private static readonly FrozenDictionary<string, Native> Floats = Table(
        new Native("is_integer", "", (_, self, _) => BoolValue.Of(double.IsInteger(((FloatValue)self).Number))));

    /// <summary>The method of a value's type with this name, or null.</summary>
    public static Native? Find(Value value, string name)
    {
        FrozenDictionary<string, Native>? methods = value switch
        {
            StringValue => Strings,
            SequenceValue { Kind: SequenceKind.List } => Lists,
            SequenceValue { Kind: SequenceKind.Tuple or SequenceKind.Range } => Tuples,
            DictValue => Dicts,
            FloatValue => Floats,
            _ => null,
        };
        return methods is not null && methods.TryGetValue(name, out Native? method) ? method : null;
    }

    private static FrozenDictionary<string, Native> Table(params Native[] methods) =>
        methods.ToFrozenDictionary(method => method.Name, StringComparer.Ordinal);

    private static IntValue IndexOf(Interpreter render, Value self, Value?[] arguments)
    {
        var sequence = (SequenceValue)self;
        var window = (SequenceValue)Operators.Slice(self, arguments[1], arguments[2], null, render);
        int start = sequence.Length - Operators.Slice(self, arguments[1], null, null, render).Length;
        for (int i = 0; i < window.Length; i++)
        {
            if (render.AreEqual(window.Items[i], arguments[0]!)) return new IntValue(start + i);
        }
        throw new TemplateFault($"the value is not in the {self.TypeName}");
    }

    private static Value Get(Interpreter render, Value self, Value?[] arguments)
    {
        render.Budget.Scan(arguments[0]!.Weight);
        return ((DictValue)self).Items.TryGetValue(arguments[0]!, out Value? value) ? value : arguments[1] ?? NoneValue.Instance;
    }

    private static SequenceValue View(Interpreter render, Value self, SequenceKind kind)
    {
        OrderedDictionary<Value, Value> items = ((DictValue)self).Items;
        render.Budget.Objects(items.Count);
        return new SequenceValue(kind, kind switch
        {
            SequenceKind.KeysView => items.Keys,
            SequenceKind.ValuesView => items.Values,
            _ => [.. items.Select(item => SequenceValue.Tuple(item.Key, item.Value))],
        });
    }
}
