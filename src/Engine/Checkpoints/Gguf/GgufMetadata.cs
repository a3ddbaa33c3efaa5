using System.Collections;
using System.Diagnostics.CodeAnalysis;

namespace Engine.Checkpoints.Gguf;

/// <summary>
/// The key/value section of a GGUF file. Everything is checked when the file is opened; arrays (a vocabulary has hundreds of thousands of
/// strings) become objects when they are first asked for, and need the file to be open then.
/// </summary>
internal sealed class GgufMetadata(MappedFile file) : IReadOnlyDictionary<string, object>
{
    private readonly OrderedDictionary<string, object> values = [];

    public int Count => values.Count;

    public IEnumerable<string> Keys => values.Keys;

    public IEnumerable<object> Values => values.Keys.Select(key => this[key]);

    public object this[string key] =>
        TryGetValue(key, out object? value) ? value : throw new KeyNotFoundException($"{file.Path} has no metadata key {key}");

    /// <summary>Reads one key and its value from the header.</summary>
    public void Read(ref GgufReader reader)
    {
        string key = reader.String("a metadata key");
        if (values.ContainsKey(key))
            throw new EngineException("the metadata key occurs twice", file.Path, key);
        string what = $"the value of {key}";
        GgufType type = reader.Type($"the type of {key}");
        if (type != GgufType.Array)
        {
            values.Add(key, reader.Scalar(type, what));
            return;
        }
        GgufType elementType = reader.Type($"the element type of {key}");
        int count = reader.Count(GgufReader.MinimumSize(elementType), $"the element count of {key}");
        values.Add(key, new PendingArray(elementType, reader.Position, count));
        reader.SkipArray(elementType, count, what);
    }

    public bool ContainsKey(string key) => values.ContainsKey(key);

    public bool TryGetValue(string key, [MaybeNullWhen(false)] out object value)
    {
        lock (values)
        {
            if (!values.TryGetValue(key, out value))
                return false;
            if (value is PendingArray pending)
                values[key] = value = pending.Load(file, key);
            return true;
        }
    }

    public IEnumerator<KeyValuePair<string, object>> GetEnumerator()
    {
        foreach (string key in values.Keys.ToArray())
            yield return new(key, this[key]);
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private sealed record PendingArray(GgufType Type, int Position, int Count)
    {
        public Array Load(MappedFile file, string key)
        {
            var reader = new GgufReader(file.Slice(0, (int)Math.Min(file.Length, int.MaxValue)), file.Path) { Position = Position };
            return reader.Array(Type, Count, key);
        }
    }
}
