using System.Collections.Frozen;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Where a tokenizer is looked for: GGUF metadata, and files by name.</summary>
internal sealed record TokenizerFiles(string Path, IReadOnlyDictionary<string, object> Metadata, Func<string, byte[]?> Read)
{
    public static TokenizerFiles Of(Checkpoint checkpoint) => new(checkpoint.Path, checkpoint.Metadata, checkpoint.ReadAsset);

    public static TokenizerFiles OfFolder(string folder) =>
        new(folder, FrozenDictionary<string, object>.Empty, name => HfAssets.Read(folder, name));

    /// <summary>Reads and parses a JSON file, or returns null where there is none.</summary>
    public JsonItem? ReadJson(string name) => Read(name) is { } json ? JsonItem.Parse(json, NameOf(name)) : null;

    /// <summary>A file's name for messages.</summary>
    public string NameOf(string name) => Directory.Exists(Path) ? System.IO.Path.Combine(Path, name) : name;
}
