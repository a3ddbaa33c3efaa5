using System.Numerics.Tensors;

namespace Engine.Transforms.Calibration;

/// <summary>
/// The upper triangular factor U of (H + λI)⁻¹ = Uᵀ·U, which the optimal-brain-surgeon sweeps of GPTQ (Frantar et al. 2022, algorithm 1) and SparseGPT (Frantar and
/// Alistarh 2023) read row by row. With J the matrix that reverses the order of the inputs, J·H·J = L·Lᵀ gives U = J·L⁻¹·J: one factorization and one
/// triangular inverse, and H itself is never inverted. Results do not depend on the number of threads.
/// </summary>
public static unsafe class InverseFactor
{
    /// <summary>λ as a part of the mean of H's diagonal, as in both papers.</summary>
    public const double UsualDamping = 0.01;

    private const int Block = 64, RowTile = 32, Attempts = 6;

    /// <summary>Computes U.</summary>
    /// <param name="moment">H = Σ x·xᵀ, [inputs, inputs]; overwritten. All zeros, where no row came, count as the identity.</param>
    /// <param name="inputs">Rows and columns.</param>
    /// <param name="damping">λ as a part of the mean of the diagonal; ten times as much where rounding has left H + λI indefinite.</param>
    /// <returns>[inputs, inputs], zero below the diagonal.</returns>
    /// <exception cref="EngineException">No damping makes the matrix definite.</exception>
    public static float[] Compute(float[] moment, int inputs, double damping = UsualDamping)
    {
        ArgumentNullException.ThrowIfNull(moment);
        ArgumentOutOfRangeException.ThrowIfNotEqual(moment.Length, inputs * inputs, nameof(moment));
        Array.Reverse(moment);
        double mean = 0;
        float[] diagonal = new float[inputs];
        for (int i = 0; i < inputs; i++)
        {
            diagonal[i] = moment[i * inputs + i];
            mean += diagonal[i] / (double)inputs;
        }
        if (mean == 0)
        {
            (mean, damping) = (1, 1);
        }
        for (int attempt = 0; attempt < Attempts; attempt++, damping *= 10)
        {
            Restore(moment, diagonal, inputs, (float)(damping * mean));
            if (TryFactorize(moment, inputs))
            {
                float[] inverse = Invert(moment, inputs);
                Array.Reverse(inverse);
                return inverse;
            }
        }
        throw new EngineException("the second moments of the calibration text cannot be factorized", item: "calibration");
    }

    /// <summary>Makes the lower triangle again from the upper one, which a factorization leaves alone, with λ on the diagonal.</summary>
    private static void Restore(float[] matrix, float[] diagonal, int inputs, float damping)
    {
        for (int i = 0; i < inputs; i++)
        {
            for (int j = 0; j < i; j++)
            {
                matrix[i * inputs + j] = matrix[j * inputs + i];
            }
            matrix[i * inputs + i] = diagonal[i] + damping;
        }
    }

    /// <summary>L of L·Lᵀ in the lower triangle, by blocks of columns; false where a pivot is not positive.</summary>
    private static bool TryFactorize(float[] matrix, int inputs)
    {
        for (int first = 0; first < inputs; first += Block)
        {
            int width = Math.Min(Block, inputs - first), start = first;
            Parallel.For(0, (inputs - first + RowTile - 1) / RowTile, tile =>
            {
                int row = start + tile * RowTile;
                fixed (float* all = matrix)
                {
                    // Also above the diagonal within the block, where nothing may change: the products go to a copy of the tile.
                    float* products = stackalloc float[RowTile * Block];
                    new Span<float>(products, RowTile * Block).Clear();
                    int rows = Math.Min(RowTile, inputs - row);
                    RowProducts.Add(-1, all + (long)row * inputs, inputs, rows, all + (long)start * inputs, inputs, width, start, products, Block);
                    for (int i = 0; i < rows; i++)
                    {
                        int columns = Math.Min(width, row + i - start + 1);
                        var target = new Span<float>(all + (long)(row + i) * inputs + start, columns);
                        TensorPrimitives.Add(target, new ReadOnlySpan<float>(products + i * Block, columns), target);
                    }
                }
            });
            if (!TryFactorizeBlock(matrix, inputs, first, width))
            {
                return false;
            }
            Parallel.For(first + width, inputs, row => SolveRow(matrix, inputs, row, start, width));
        }
        return true;
    }

    private static bool TryFactorizeBlock(float[] matrix, int inputs, int first, int width)
    {
        for (int row = first; row < first + width; row++)
        {
            SolveRow(matrix, inputs, row, first, row - first);
            ReadOnlySpan<float> left = matrix.AsSpan(row * inputs + first, row - first);
            float pivot = matrix[row * inputs + row] - TensorPrimitives.SumOfSquares(left);
            if (!(pivot > 0) || !float.IsFinite(pivot))
            {
                return false;
            }
            matrix[row * inputs + row] = MathF.Sqrt(pivot);
        }
        return true;
    }

    /// <summary>Elements of a row of L in columns whose pivots are known.</summary>
    private static void SolveRow(float[] matrix, int inputs, int row, int first, int width)
    {
        Span<float> target = matrix.AsSpan(row * inputs + first, width);
        for (int j = 0; j < width; j++)
        {
            ReadOnlySpan<float> other = matrix.AsSpan((first + j) * inputs + first, j + 1);
            target[j] = (target[j] - TensorPrimitives.Dot(target[..j], other[..j])) / other[j];
        }
    }

    /// <summary>The inverse of a lower triangle, by blocks of columns.</summary>
    private static float[] Invert(float[] lower, int inputs)
    {
        float[] inverse = new float[lower.Length];
        Parallel.For(0, (inputs + Block - 1) / Block, block =>
        {
            int first = block * Block, width = Math.Min(Block, inputs - first);
            for (int row = first; row < inputs; row++)
            {
                Span<float> target = inverse.AsSpan(row * inputs + first, width);
                for (int k = first; k < row; k++)
                {
                    TensorPrimitives.MultiplyAdd(inverse.AsSpan(k * inputs + first, width), -lower[row * inputs + k], target, target);
                }
                if (row - first < width)
                {
                    target[row - first] += 1;
                }
                TensorPrimitives.Divide(target, lower[row * inputs + row], target);
            }
        });
        return inverse;
    }
}
