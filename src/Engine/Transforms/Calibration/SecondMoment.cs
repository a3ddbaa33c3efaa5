using System.Numerics.Tensors;

namespace Engine.Transforms.Calibration;

/// <summary>
/// What calibrated methods know of the inputs of a linear map: Σ x·xᵀ over the rows x of a text, or its diagonal alone. Results do not depend on the number of
/// threads. Not safe for concurrent use.
/// </summary>
public sealed unsafe class SecondMoment
{
    /// <summary>The widest input whose matrix an array can hold.</summary>
    public const int LargestInputs = 46340;

    private const int Tile = 32;

    // Only the triangle below the diagonal and the diagonal are kept up.
    private readonly float[]? matrix;
    private readonly double[] diagonal;

    /// <param name="inputs">Width of a row.</param>
    /// <param name="full">The whole matrix; otherwise its diagonal.</param>
    /// <exception cref="EngineException">The matrix is too large.</exception>
    public SecondMoment(int inputs, bool full)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(inputs);
        if (full && inputs > LargestInputs)
        {
            throw new EngineException($"second moments of {inputs} inputs do not fit in memory; expected at most {LargestInputs}");
        }
        Inputs = inputs;
        matrix = full ? new float[inputs * inputs] : null;
        diagonal = new double[inputs];
    }

    /// <summary>Width of a row.</summary>
    public int Inputs { get; }

    /// <summary>Rows that came.</summary>
    public long Rows { get; private set; }

    /// <summary>Adds rows.</summary>
    /// <param name="rows">[count, inputs].</param>
    /// <param name="count">Rows.</param>
    /// <exception cref="EngineException">A number is not finite.</exception>
    public void Add(ReadOnlySpan<float> rows, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(rows.Length, count * Inputs, nameof(rows));
        if (rows.IsEmpty)
        {
            return;
        }
        if (!float.IsFinite(TensorPrimitives.MaxMagnitude(rows)))
        {
            throw new EngineException("the calibration text brings activations that are not finite", item: "calibration");
        }
        Rows += count;
        float[] columns = Transpose(rows, count);
        for (int i = 0; i < Inputs; i++)
        {
            diagonal[i] += TensorPrimitives.SumOfSquares(columns.AsSpan(i * count, count));
        }
        if (matrix is not null)
        {
            AddProducts(columns, count);
        }
    }

    /// <summary>‖x‖ of every input over all rows, [inputs].</summary>
    public float[] Norms() => [.. diagonal.Select(static sum => (float)Math.Sqrt(sum))];

    /// <summary>Σ x·xᵀ, [inputs, inputs], both triangles.</summary>
    /// <param name="order">The inputs in the order in which they are rows and columns; null for the order they have.</param>
    /// <exception cref="InvalidOperationException">Only the diagonal was asked for.</exception>
    public float[] ToMatrix(int[]? order = null)
    {
        if (matrix is null)
        {
            throw new InvalidOperationException("only the diagonal was kept");
        }
        float[] whole = new float[matrix.Length];
        for (int i = 0; i < Inputs; i++)
        {
            int row = order?[i] ?? i;
            for (int j = 0; j <= i; j++)
            {
                int column = order?[j] ?? j;
                whole[i * Inputs + j] = whole[j * Inputs + i] = matrix[Math.Max(row, column) * Inputs + Math.Min(row, column)];
            }
        }
        return whole;
    }

    private float[] Transpose(ReadOnlySpan<float> rows, int count)
    {
        float[] columns = new float[rows.Length];
        for (int first = 0; first < Inputs; first += Tile)
        {
            for (int row = 0; row < count; row++)
            {
                for (int i = first; i < Math.Min(first + Tile, Inputs); i++)
                {
                    columns[i * count + row] = rows[row * Inputs + i];
                }
            }
        }
        return columns;
    }

    private void AddProducts(float[] columns, int count)
    {
        int tiles = (Inputs + Tile - 1) / Tile, inputs = Inputs;
        // The longest rows of tiles first, so that threads end together.
        Parallel.For(0, tiles, index =>
        {
            int first = (tiles - 1 - index) * Tile, rows = Math.Min(Tile, inputs - first);
            fixed (float* values = columns, target = matrix)
            {
                for (int other = 0; other <= first; other += Tile)
                {
                    RowProducts.Add(
                        1, values + (long)first * count, count, rows, values + (long)other * count, count, Math.Min(Tile, inputs - other), count,
                        target + (long)first * inputs + other, inputs);
                }
            }
        });
    }
}
