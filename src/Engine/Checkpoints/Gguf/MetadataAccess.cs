using System.Globalization;

namespace Engine.Checkpoints.Gguf;

/// <summary>Typed access to GGUF metadata: converters write the same key as U32, I32 or U64 as they please.</summary>
public static class MetadataAccess
{
    /// <summary>An integer of any width, or null where the key is absent.</summary>
    /// <exception cref="EngineException">The value is not an integer, or does not fit in 63 bits.</exception>
    public static long? GetInteger(this IReadOnlyDictionary<string, object> metadata, string key, string file)
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        return AsInteger(value) ?? throw new EngineException($"expected an integer, found {Describe(value)}", file, key);
    }

    /// <summary>A number, or null where the key is absent.</summary>
    /// <exception cref="EngineException">The value is not a finite number.</exception>
    public static double? GetNumber(this IReadOnlyDictionary<string, object> metadata, string key, string file)
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        // A float is taken as the decimal that it was written as: 1e-5f means 0.00001, not 0.00000999999974737875.
        double? number = value switch
        {
            float single => double.Parse(single.ToString("R", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture),
            double wide => wide,
            _ => AsInteger(value),
        };
        return number is { } finite && double.IsFinite(finite)
            ? finite
            : throw new EngineException($"expected a finite number, found {Describe(value)}", file, key);
    }

    /// <summary>A string, or null where the key is absent.</summary>
    /// <exception cref="EngineException">The value is something else.</exception>
    public static string? GetString(this IReadOnlyDictionary<string, object> metadata, string key, string file)
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        return value as string ?? throw new EngineException($"expected a string, found {Describe(value)}", file, key);
    }

    /// <summary>A truth value, or null where the key is absent.</summary>
    /// <exception cref="EngineException">The value is something else.</exception>
    public static bool? GetFlag(this IReadOnlyDictionary<string, object> metadata, string key, string file)
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        return value as bool? ?? throw new EngineException($"expected true or false, found {Describe(value)}", file, key);
    }

    /// <summary>An integer, or one per layer; null where the key is absent.</summary>
    /// <exception cref="EngineException">The value is something else.</exception>
    public static long[]? GetIntegers(this IReadOnlyDictionary<string, object> metadata, string key, string file)
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        if (AsInteger(value) is { } single)
            return [single];
        if (value is not Array array || value is string[] or float[] or double[] or bool[])
            throw new EngineException($"expected an integer or an array of integers, found {Describe(value)}", file, key);
        var integers = new long[array.Length];
        for (int i = 0; i < integers.Length; i++)
        {
            object element = array.GetValue(i)!;
            integers[i] = AsInteger(element) ?? throw new EngineException($"element {i} does not fit: {Describe(element)}", file, key);
        }
        return integers;
    }

    private static long? AsInteger(object value) => value switch
    {
        byte or sbyte or ushort or short or uint or int or long => Convert.ToInt64(value, CultureInfo.InvariantCulture),
        ulong unsigned and <= long.MaxValue => (long)unsigned,
        _ => null,
    };

    private static string Describe(object value) => value switch
    {
        string text => $"the string \"{(text.Length > 40 ? text[..40] + "…" : text)}\"",
        Array array => $"an array of {array.Length} {array.GetType().GetElementType()!.Name}",
        _ => string.Create(CultureInfo.InvariantCulture, $"{value} ({value.GetType().Name})"),
    };
}
