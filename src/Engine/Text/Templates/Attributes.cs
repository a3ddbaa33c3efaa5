using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>
/// What <c>a.b</c> and <c>a[b]</c> mean in jinja2's sandbox. The first looks for a method or attribute before it looks for an
/// element, the second the other way round; neither finding anything gives an undefined value.
/// </summary>
internal static class Attributes
{
    /// <summary>What the sandbox hides because it would change a value that others hold.</summary>
    private static readonly Dictionary<Type, string[]> Mutators = new()
    {
        [typeof(SequenceValue)] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"],
        [typeof(DictValue)] = ["clear", "pop", "popitem", "setdefault", "update"],
    };

    /// <summary><c>target.name</c>.</summary>
    public static Value Get(Value target, string name)
    {
        if (target is UndefinedValue undefined) throw undefined.Fault();
        return Attribute(target, name) ?? (target as DictValue)?.Find(name) ?? Missing(target, new StringValue(name));
    }

    /// <summary>The filter <c>attr</c>: as <see cref="Get"/>, without the keys of dicts.</summary>
    public static Value Own(Value target, string name)
    {
        if (target is UndefinedValue undefined) throw undefined.Fault();
        return Attribute(target, name) ?? Missing(target, new StringValue(name));
    }

    /// <summary><c>target[key]</c>.</summary>
    public static Value Item(Value target, Value key, Interpreter render)
    {
        switch (target)
        {
            case UndefinedValue undefined: throw undefined.Fault();
            case DictValue dict when key is not (SequenceValue { Kind: SequenceKind.List } or DictValue):
                render.Budget.Scan(key.Weight);
                if (dict.Items.TryGetValue(key, out Value? value)) return value;
                break;
            case StringValue { Length: int length } text when TryIndex(key, length, out int index):
                render.Budget.Scan(length);
                return new StringValue(CodePoints.Slice(text.Text, index, 1, 1));
            case SequenceValue { IsIndexable: true, Length: int length } sequence when TryIndex(key, length, out int index):
                return sequence.Items[index];
        }
        return (key is StringValue name ? Attribute(target, name.Text) : null) ?? Missing(target, key);
    }

    /// <summary>
    /// The value at a path such as <c>function.parameters.0</c>, as filters take it; a missing step gives the default where there
    /// is one.
    /// </summary>
    public static Value Path(Value target, Value path, Value? fallback, Interpreter render)
    {
        Value[] steps = path is StringValue text
            ? Array.ConvertAll(text.Text.Split('.'), step => BigInteger.TryParse(step, out BigInteger index) && step.All(char.IsDigit)
                ? PythonNumbers.Checked(index) : (Value)new StringValue(step))
            : [path];
        foreach (Value step in steps)
        {
            target = Item(target, step, render);
            if (target is UndefinedValue && fallback is not null and not NoneValue) target = fallback;
        }
        return target;
    }

    /// <summary>The method or attribute with this name, an undefined value where the sandbox hides it, or null.</summary>
    private static Value? Attribute(Value target, string name)
    {
        if (target is NamespaceValue attributes) return attributes.Find(new StringValue(name));
        if (target is ObjectValue own) return own.Attribute(name);
        if (target is SequenceValue { IsGroup: true } group && name is "grouper" or "list") return group.Items[name == "list" ? 1 : 0];
        bool isMutable = target is DictValue or SequenceValue { Kind: SequenceKind.List };
        if (isMutable && Mutators[target.GetType()].Contains(name))
            return new UndefinedValue($"'{name}' would change a value of type {target.TypeName}, which templates may not");
        return Methods.Find(target, name) is Native method ? new BoundNative(method, target) : null;
    }

    private static UndefinedValue Missing(Value target, Value key)
    {
        string owner = target is NoneValue ? "none" : $"a value of type {target.TypeName}";
        return key switch
        {
            StringValue name => new UndefinedValue($"{owner} has no attribute or key '{name.Text}'"),
            IntValue index => new UndefinedValue($"{owner} has no element {index.Number}"),
            _ => new UndefinedValue($"{owner} has no element for a key of type {key.TypeName}"),
        };
    }

    private static bool TryIndex(Value key, int length, out int index)
    {
        index = -1;
        if (!PythonNumbers.TryInteger(key, out BigInteger number)) return false;
        if (number.Sign < 0) number += length;
        if (number.Sign < 0 || number >= length) return false;
        index = (int)number;
        return true;
    }
}
