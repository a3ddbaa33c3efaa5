using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;

namespace Engine.Transforms.Pruning;

/// <summary>What a tensor keeps of another.</summary>
/// <param name="Name">Its name.</param>
/// <param name="From">The other's name.</param>
public sealed record TensorCut(string Name, string From)
{
    /// <summary>What is kept along the outermost dimension of several, in order; null for all.</summary>
    public int[]? Outermost { get; init; }

    /// <summary>What is kept along the innermost dimension, in order; null for all.</summary>
    public int[]? Innermost { get; init; }

    /// <summary>Tensors of the other's shape, whose sum takes its place; empty where it is the other alone. Nothing is cut then.</summary>
    public ImmutableArray<TensorShare> Sum { get; init; } = [];
}

/// <summary>What a tensor adds to a sum.</summary>
/// <param name="From">Its name.</param>
/// <param name="Weight">Factor on it.</param>
/// <param name="Rows">The row that becomes row i, for each i; null for the order they have.</param>
/// <param name="Columns">As <paramref name="Rows"/>, of columns.</param>
public sealed record TensorShare(string From, float Weight, int[]? Rows = null, int[]? Columns = null);

/// <summary>
/// A checkpoint of which parts are left: layers, experts or inner neurons that are gone or merged, the others under new names. What is not as it was is made when it is asked for
/// (<see cref="TensorsOnDemand"/>). Owns the source.
/// </summary>
public sealed class CutCheckpoint : Checkpoint
{
    private readonly Checkpoint source;
    private readonly OrderedDictionary<string, TensorCut> cuts = [];
    private readonly TensorsOnDemand copies;

    /// <param name="source">What is cut: matrices of plain numbers.</param>
    /// <param name="cuts">The tensors that are left.</param>
    /// <param name="config">The configuration of what is left.</param>
    /// <exception cref="EngineException">Two tensors have one name, or there is nothing of that name to cut.</exception>
    public CutCheckpoint(Checkpoint source, IEnumerable<TensorCut> cuts, JsonObject config)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(cuts);
        this.source = source;
        copies = new TensorsOnDemand(source.Path);
        Config = config;
        foreach (TensorCut cut in cuts)
        {
            TensorView tensor = source[cut.From];
            if (((cut.Innermost ?? cut.Outermost) is not null || !cut.Sum.IsEmpty) && tensor.DType.Info() is not { BlockElements: 1, BlockBytes: > 0 })
            {
                throw new EngineException($"expected plain numbers, found {tensor.DType}: nothing can be cut out of it", source.Path, cut.From);
            }
            if (!this.cuts.TryAdd(cut.Name, cut))
            {
                throw new EngineException("two tensors would have this name", source.Path, cut.Name);
            }
        }
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => cuts.Keys;

    /// <inheritdoc/>
    public override JsonObject Config { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        tensor = null;
        if (!cuts.TryGetValue(name, out TensorCut? cut))
        {
            return false;
        }
        if (!cut.Sum.IsEmpty)
        {
            tensor = copies.Get(name, () => new TensorSource(
                name, source[cut.From].DType, source[cut.From].Shape, stream => Add(source[cut.From], cut, stream)));
            return true;
        }
        if (cut.Innermost is null && cut.Outermost is null)
        {
            tensor = source[cut.From] with { Name = name };
            return true;
        }
        tensor = copies.Get(name, () => Content(source[cut.From], cut));
        return true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            source.Dispose();
        }
        base.Dispose(disposing);
    }

    private void Add(TensorView first, TensorCut cut, Stream stream)
    {
        float[] sum = new float[first.ElementCount];
        int columns = (int)first.Columns;
        foreach (TensorShare share in cut.Sum)
        {
            float[] part = source[share.From].ToFloats();
            for (int i = 0; i < sum.Length; i++)
            {
                int row = i / columns, column = i % columns;
                sum[i] += share.Weight * part[(share.Rows?[row] ?? row) * columns + (share.Columns?[column] ?? column)];
            }
        }
        TensorSource.FromValues(cut.Name, first.Shape, sum, first.DType).WriteTo(stream);
    }

    private static TensorSource Content(TensorView whole, TensorCut cut)
    {
        long[] shape = [.. whole.Shape];
        shape[0] = cut.Outermost?.Length ?? shape[0];
        shape[^1] = cut.Innermost?.Length ?? shape[^1];
        return new TensorSource(cut.Name, whole.DType, shape, stream => Copy(whole, cut, stream));
    }

    private static void Copy(TensorView whole, TensorCut cut, Stream stream)
    {
        int element = whole.DType.Info().BlockBytes;
        long sliceRows = whole.Shape.Length > 1 ? whole.Rows / whole.Shape[0] : 1;
        int slices = cut.Outermost?.Length ?? (int)(whole.Rows / sliceRows);
        byte[] kept = new byte[(cut.Innermost?.Length ?? 0) * element];
        for (int slice = 0; slice < slices; slice++)
        {
            long first = (cut.Outermost?[slice] ?? slice) * sliceRows;
            for (long row = first; row < first + sliceRows; row++)
            {
                ReadOnlySpan<byte> stored = whole.Row(row);
                for (int i = 0; i < cut.Innermost?.Length; i++)
                {
                    stored.Slice(cut.Innermost[i] * element, element).CopyTo(kept.AsSpan(i * element));
                }
                stream.Write(cut.Innermost is null ? stored : kept);
            }
        }
    }
}
