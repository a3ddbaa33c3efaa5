using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>The matrices of finished layers as tensors of the model, under Hugging Face's names.</summary>
internal sealed class CompressedMatrices
{
    private readonly LayerStore store;
    private readonly IntegerFormat? format;
    private readonly Dictionary<MatrixPlace, (int Layer, TargetMatrix Matrix)> places = [];
    private readonly Dictionary<string, int> layerOf = [];
    private readonly Dictionary<string, DType> typeOf = [];

    /// <param name="store">Where they are.</param>
    /// <param name="targets">All matrices.</param>
    /// <param name="format">The integers that they are stored as, or null.</param>
    public CompressedMatrices(LayerStore store, CompressionTargets targets, IntegerFormat? format)
    {
        this.store = store;
        this.format = format;
        foreach ((int layer, TargetLayer parts) in targets.Layers.Index())
        {
            foreach (TargetMatrix matrix in parts.Inputs.SelectMany(static input => input.Matrices))
            {
                foreach (MatrixPlace place in (IEnumerable<MatrixPlace>)[matrix.Place, .. matrix.Copies])
                {
                    places[place] = (layer, matrix);
                    typeOf[place.Tensor] = matrix.Stored;
                    layerOf[place.Tensor] = Math.Max(layer, layerOf.GetValueOrDefault(place.Tensor));
                }
            }
        }
    }

    /// <summary>The tensors that are, or will be, compressed.</summary>
    public IEnumerable<string> Tensors => layerOf.Keys;

    /// <summary>The tensor is, or will be, compressed.</summary>
    public bool Covers(string tensor) => layerOf.ContainsKey(tensor);

    /// <summary>All of the tensor is compressed, and belongs to the first so many layers.</summary>
    public bool IsFinished(string tensor, int layers) => layerOf[tensor] < layers && store.Has(layerOf[tensor]);

    /// <summary>A finished tensor that lies in the store as it is, or null.</summary>
    public TensorView? TryGetStored(string tensor) => format is null && places.TryGetValue(new MatrixPlace(tensor, null), out var found)
        ? store.Whole(found.Layer, found.Matrix)
        : null;

    /// <summary>A finished tensor of integers as floats, or one of several matrices as it is.</summary>
    /// <param name="tensor">Its name.</param>
    /// <param name="original">What it was made from: of matrices that nothing uses, it is what remains.</param>
    public TensorSource Content(string tensor, TensorView original)
    {
        if (format is not null)
        {
            return new TensorSource(tensor, DType.F32, original.Shape, stream =>
            {
                QuantizedMatrix matrix = Quantized(tensor);
                float[] values = new float[matrix.Rows * matrix.Columns];
                Parallel.For(0, matrix.Rows, row => matrix.DecodeRow(row, values.AsSpan(row * matrix.Columns, matrix.Columns)));
                TensorSource.FromValues(tensor, original.Shape, values).WriteTo(stream);
            });
        }
        DType type = typeOf[tensor];
        return new TensorSource(tensor, type, original.Shape, stream =>
        {
            long slices = original.Shape.Length == 3 ? original.Shape[0] : 1, rows = original.Rows / slices;
            for (int slice = 0; slice < slices; slice++)
            {
                TensorView part = places.TryGetValue(new MatrixPlace(tensor, original.Shape.Length == 3 ? slice : null), out var found)
                    ? store.Whole(found.Layer, found.Matrix)
                    : original.SliceRows(slice * rows, rows);
                TensorSource.Convert(part, type).WriteTo(stream);
            }
        });
    }

    /// <summary>The tensors that a finished, quantized tensor is written as.</summary>
    public IReadOnlyList<TensorSource> Packed(string tensor, CompressionOptions options)
    {
        TargetMatrix matrix = places[new MatrixPlace(tensor, null)].Matrix;
        return CompressedTensors.Tensors(
            tensor[..^CompressionJob.WeightSuffix.Length], (matrix.Rows, matrix.Columns), format!, matrix.Stored, options.Prune, () => Quantized(tensor));
    }

    private QuantizedMatrix Quantized(string tensor)
    {
        (int layer, TargetMatrix matrix) = places[new MatrixPlace(tensor, null)];
        return store.Quantized(layer, matrix.Place, matrix.Rows, matrix.Columns, format!, matrix.Stored);
    }

    /// <summary>The shape that a matrix is stored in.</summary>
    public static long[] Shape(TargetMatrix matrix) => matrix.Transposed ? [matrix.Columns, matrix.Rows] : [matrix.Rows, matrix.Columns];
}
