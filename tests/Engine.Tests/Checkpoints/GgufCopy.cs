using Engine.Checkpoints;

namespace Engine.Tests.Checkpoints;

/// <summary>A GGUF file in memory, to be changed: what another converter, or a broken one, would have written.</summary>
internal static class GgufCopy
{
    /// <summary>A copy of a file.</summary>
    /// <param name="file">The file, under GGUF's own names.</param>
    /// <param name="metadata">Keys whose values are other ones; null leaves the key out.</param>
    /// <param name="keep">The tensors that are copied; null for all.</param>
    public static MemoryCheckpoint Of(Checkpoint file, IReadOnlyDictionary<string, object?>? metadata = null, Func<string, bool>? keep = null)
    {
        var copy = new MemoryCheckpoint("copy");
        foreach ((string key, object value) in file.Metadata.Where(pair => metadata?.ContainsKey(pair.Key) != true))
        {
            copy.AddMetadata(key, value);
        }
        foreach ((string key, object? value) in metadata ?? new Dictionary<string, object?>())
        {
            if (value is not null)
            {
                copy.AddMetadata(key, value);
            }
        }
        foreach (string name in file.TensorNames.Where(name => keep?.Invoke(name) != false))
        {
            copy.Add(name, file[name].DType, file[name].Shape, file[name].Bytes);
        }
        return copy;
    }
}
