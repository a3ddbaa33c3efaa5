using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Transforms;

namespace Engine.Compression;

/// <summary>
/// A checkpoint as it is when the layers that are finished take the place of what they were made from: dense ones where they lie, quantized ones decoded to F32
/// when they are asked for and kept no longer than the view that is handed out. Owns neither the source nor what is finished.
/// </summary>
internal sealed class CompressedCheckpoint : Checkpoint
{
    private readonly Checkpoint source;
    private readonly CompressedMatrices matrices;
    private readonly int layers;
    private readonly Dictionary<string, string> names = [];
    private readonly TensorsOnDemand decoded;

    /// <param name="source">The tensors under the names of their file.</param>
    /// <param name="matrices">What is finished.</param>
    /// <param name="layers">Only the first so many layers take their place.</param>
    /// <param name="rawName">The name in the file of a tensor in Hugging Face's vocabulary.</param>
    public CompressedCheckpoint(Checkpoint source, CompressedMatrices matrices, int layers, Func<string, string> rawName)
    {
        this.layers = layers;
        this.source = source;
        decoded = new TensorsOnDemand(source.Path);
        this.matrices = matrices;
        foreach (string tensor in matrices.Tensors)
        {
            names.Add(rawName(tensor), tensor);
        }
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => source.TensorNames;

    /// <inheritdoc/>
    public override JsonObject Config => source.Config;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        if (!source.TryGetTensor(name, out tensor))
        {
            return false;
        }
        if (!names.TryGetValue(name, out string? known) || !matrices.IsFinished(known, layers))
        {
            return true;
        }
        TensorView original = tensor;
        tensor = matrices.TryGetStored(known) is { } stored ? stored with { Name = name } : decoded.Get(name, () => matrices.Content(known, original));
        return true;
    }
}
