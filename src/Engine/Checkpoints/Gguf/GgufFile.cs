using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Engine.Checkpoints.Gguf;

/// <summary>
/// A GGUF model, version 2 or 3, in one file or split as <c>name-00001-of-0000N.gguf</c>. Tensors and metadata carry their names in the
/// file;
/// <see cref="GgufVocabulary"/> presents them in Hugging Face's vocabulary. Opening maps the files and reads headers only.
/// Source: ggml's docs/gguf.md.
/// </summary>
public sealed partial class GgufFile : Checkpoint
{
    private readonly List<GgufPart> parts = [];
    private readonly OrderedDictionary<string, TensorView> tensors;

    private GgufFile(string path, List<GgufPart> parts, OrderedDictionary<string, TensorView> tensors)
    {
        Path = path;
        this.parts = parts;
        this.tensors = tensors;
    }

    /// <inheritdoc/>
    public override string Path { get; }

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <summary>Empty: GGUF has <see cref="Metadata"/>. See <see cref="GgufVocabulary"/>.</summary>
    public override JsonObject Config { get; } = [];

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => parts[0].Metadata;

    /// <summary>Opens a GGUF file; any part of a split model opens all of it.</summary>
    /// <exception cref="EngineException">The file is missing, malformed, or in a version or type that is not supported.</exception>
    public static GgufFile Open(string path)
    {
        var parts = new List<GgufPart> { GgufPart.Open(path) };
        try
        {
            var count = (int)Math.Min(parts[0].Metadata.GetInteger("split.count", path) ?? 1, int.MaxValue);
            if (count > 1)
                OpenSplit(path, count, parts);
            return new GgufFile(path, parts, parts.Count == 1 ? parts[0].Tensors : Merge(path, parts));
        }
        catch
        {
            parts.ForEach(static part => part.Dispose());
            throw;
        }
    }

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            parts.ForEach(static part => part.Dispose());
        base.Dispose(disposing);
    }

    private static void OpenSplit(string path, int count, List<GgufPart> parts)
    {
        Match name = SplitName().Match(System.IO.Path.GetFileName(path));
        if (!name.Success || int.Parse(name.Groups["count"].Value, CultureInfo.InvariantCulture) != count)
            throw new EngineException(
                $"the metadata says {count} parts; expected a file name that ends in -0000k-of-{count:D5}.gguf", path, "split.count");

        string folder = System.IO.Path.GetDirectoryName(path) ?? "";
        int given = int.Parse(name.Groups["number"].Value, CultureInfo.InvariantCulture);
        if (given < 1 || given > count)
            throw new EngineException($"the file name says part {given} of {count}", path);
        GgufPart opened = parts[0];
        for (int number = 1; number <= count; number++)
        {
            string partPath = System.IO.Path.Combine(folder, $"{name.Groups["prefix"].Value}-{number:D5}-of-{count:D5}.gguf");
            GgufPart part = number == given ? opened : OpenPart(partPath, number, count);
            // The part that was named stays in the list while others are opened, so that a failure disposes of all.
            if (part != opened)
                parts.Insert(number - 1, part);
            long? found = part.Metadata.GetInteger("split.no", part.Path);
            if (found != number - 1)
                throw new EngineException(
                    $"expected {number - 1}, found {found?.ToString(CultureInfo.InvariantCulture) ?? "nothing"}", part.Path, "split.no");
        }
    }

    private static GgufPart OpenPart(string path, int number, int count) => File.Exists(path)
        ? GgufPart.Open(path)
        : throw new EngineException($"part {number} of {count} is missing", path);

    private static OrderedDictionary<string, TensorView> Merge(string path, List<GgufPart> parts)
    {
        var merged = new OrderedDictionary<string, TensorView>();
        foreach (GgufPart part in parts)
        {
            foreach ((string name, TensorView tensor) in part.Tensors)
            {
                if (!merged.TryAdd(name, tensor))
                    throw new EngineException("the tensor occurs in two parts of the model", part.Path, name);
            }
        }
        long? expected = parts[0].Metadata.GetInteger("split.tensors.count", path);
        return expected is null || expected == merged.Count
            ? merged
            : throw new EngineException($"expected {expected} tensors in all parts, found {merged.Count}", path, "split.tensors.count");
    }

    [GeneratedRegex(@"^(?<prefix>.+)-(?<number>\d{5})-of-(?<count>\d{5})\.gguf$", RegexOptions.CultureInvariant)]
    private static partial Regex SplitName();
}
