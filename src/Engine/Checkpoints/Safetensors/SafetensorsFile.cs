using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Safetensors;

/// <summary>
/// One safetensors file. <c>config.json</c> and assets are looked for beside it. Source: github.com/huggingface/safetensors, README
/// "Format".
/// </summary>
public sealed class SafetensorsFile : Checkpoint
{
    private readonly MappedFile file;
    private readonly OrderedDictionary<string, TensorView> tensors;
    private readonly HfAssets assets;

    private SafetensorsFile(MappedFile file, OrderedDictionary<string, TensorView> tensors, IReadOnlyDictionary<string, string> annotations)
    {
        this.file = file;
        this.tensors = tensors;
        Annotations = annotations;
        assets = new HfAssets(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(file.Path))!);
    }

    /// <inheritdoc/>
    public override string Path => file.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <inheritdoc/>
    public override JsonObject Config => assets.Config;

    /// <summary>The strings under <c>__metadata__</c>.</summary>
    public IReadOnlyDictionary<string, string> Annotations { get; }

    /// <summary>Opens a file: maps it and reads its header.</summary>
    /// <exception cref="EngineException">The file is missing or malformed.</exception>
    public static SafetensorsFile Open(string path)
    {
        MappedFile file = MappedFile.Open(path);
        try
        {
            (OrderedDictionary<string, TensorView> tensors, Dictionary<string, string> annotations) = SafetensorsHeader.Read(file);
            return new SafetensorsFile(file, tensors, annotations);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => assets.Read(fileName);

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => assets.Names;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            file.Dispose();
        base.Dispose(disposing);
    }
}
