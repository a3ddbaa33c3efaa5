using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Calibration;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>Compresses the matrices of a layer as options say.</summary>
/// <param name="options">What is done.</param>
/// <param name="checkpoint">Where the matrices are.</param>
internal sealed class MatrixCompressor(CompressionOptions options, Checkpoint checkpoint)
{
    /// <summary>Compresses matrices that are multiplied with the same rows.</summary>
    /// <param name="input">The matrices.</param>
    /// <param name="statistics">What is known of the rows; null where no calibration is needed.</param>
    /// <param name="cancellationToken">Looked at before each matrix.</param>
    /// <returns>What is stored of them.</returns>
    public IEnumerable<TensorSource> Compress(TargetInput input, LinearStatistics? statistics, CancellationToken cancellationToken)
    {
        SecondMoment? moment = statistics?.Take(input);
        float[] norms = options.NeedsCalibration ? moment!.Norms() : [];
        int[]? order = options.OrdersInputs ? [.. Enumerable.Range(0, input.Inputs).OrderByDescending(place => norms[place])] : null;
        float[] factor = options.NeedsMoments ? InverseFactor.Compute(moment!.ToMatrix(order), input.Inputs, options.Damping) : [];
        moment = null;
        foreach (TargetMatrix matrix in input.Matrices)
        {
            cancellationToken.ThrowIfCancellationRequested();
            foreach (TensorSource stored in Compress(matrix, norms, factor, order))
            {
                yield return stored;
            }
        }
    }

    private IEnumerable<TensorSource> Compress(TargetMatrix matrix, float[] norms, float[] factor, int[]? order)
    {
        (MatrixPlace place, int rows, int columns) = (matrix.Place, matrix.Rows, matrix.Columns);
        float[] weights = Read(matrix);
        QuantizedMatrix? quantized = options.Quantize is null ? null : new QuantizedMatrix(rows, columns, options.Quantize, matrix.Stored);
        QuantizedBlocks? blocks = matrix.IsBlocks ? new QuantizedBlocks(rows, columns, matrix.Stored) : null;
        // An expert that no token of the text went to has no norms.
        bool[]? pruned = (options.Prune, options.Criterion) switch
        {
            (null, _) or (_, PruningCriterion.SparseGpt) => null,
            ({ } pattern, PruningCriterion.Wanda) when Array.Exists(norms, static norm => norm > 0) =>
                PruningMask.Wanda(weights, rows, columns, pattern, norms),
            ({ } pattern, _) => PruningMask.Magnitude(weights, rows, columns, pattern),
        };
        bool chooses = options.Prune is not null && options.Criterion == PruningCriterion.SparseGpt;
        IWeightGrid? rounded = options.Method == RoundingMethod.Gptq ? (IWeightGrid?)quantized ?? blocks : null;
        if (chooses || rounded is not null)
        {
            OptimalBrainSurgeon.Run(weights, rows, columns, factor, chooses ? options.Prune : null, pruned, rounded, order);
        }
        else
        {
            for (int i = 0; i < pruned?.Length; i++)
            {
                weights[i] = pruned[i] ? 0 : weights[i];
            }
        }
        if (rounded is null)
        {
            quantized?.RoundToNearest(weights);
        }
        if (blocks is not null)
        {
            return [LayerStore.Blocks(place, rows, blocks)];
        }
        return quantized is null
            ? [LayerStore.Dense(place, CompressedMatrices.Shape(matrix), matrix.Transposed ? Transpose(weights, rows, columns) : weights, matrix.Stored)]
            : LayerStore.Quantized(place, quantized);
    }

    /// <summary>The weights as [outputs, inputs].</summary>
    private float[] Read(TargetMatrix matrix)
    {
        TensorView tensor = checkpoint[matrix.Place.Tensor];
        if (matrix.Place.Slice is { } slice)
        {
            long rows = tensor.Rows / tensor.Shape[0];
            tensor = tensor.SliceRows(slice * rows, rows);
        }
        float[] values = tensor.ToFloats();
        tensor.Evict();
        if (values.Length > 0 && !float.IsFinite(TensorPrimitives.MaxMagnitude<float>(values)))
        {
            tensor.RequireFinite();
            throw new EngineException("a weight is NaN or infinite", checkpoint.Path, matrix.Place.Tensor);
        }
        return matrix.Transposed ? Transpose(values, matrix.Columns, matrix.Rows) : values;
    }

    private static float[] Transpose(float[] values, int rows, int columns)
    {
        float[] transposed = new float[values.Length];
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < columns; column++)
            {
                transposed[column * rows + row] = values[row * columns + column];
            }
        }
        return transposed;
    }
}
