using System.Numerics.Tensors;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints.Writing;

/// <summary>Random tensors for models that are made for measurements. The same seed and names give the same tensors.</summary>
internal sealed class SyntheticTensors(int seed)
{
    // Rows are drawn from a small encoded tile per row length and type, so that gigabytes take seconds.
    private const int TileRows = 128;

    private readonly Dictionary<(DType DType, int Columns, SparsityPattern? Sparsity), byte[]> tiles = [];

    /// <summary>Changes a row that is about to be written: its number, and its bytes.</summary>
    public delegate void RowEdit(int row, Span<byte> stored);

    /// <summary>A vector of equal values.</summary>
    public static TensorSource Constant(string name, int width, float value) =>
        TensorSource.FromValues(name, [width], [.. Enumerable.Repeat(value, width)]);

    /// <summary>A matrix [rows, columns] of Gaussian values of deviation columns^−½, which keeps the size of what it is multiplied with.</summary>
    /// <param name="name">Its name, which chooses its rows: were all layers the same, the engine would keep one.</param>
    /// <param name="dtype">How it is stored.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="columns">Columns.</param>
    /// <param name="edit">Sees every row before it is written; null to leave them.</param>
    /// <param name="sparsity">Which weights are zero, the smaller ones of each four neighbours or of each row; null for none.</param>
    public TensorSource Matrix(string name, DType dtype, int rows, int columns, RowEdit? edit = null, SparsityPattern? sparsity = null) =>
        new(name, dtype, [rows, columns], stream =>
        {
            int rowBytes = (int)dtype.RowBytes(columns);
            if (!tiles.TryGetValue((dtype, columns, sparsity), out byte[]? tile))
                tiles.Add((dtype, columns, sparsity), tile = Tile(dtype, columns, sparsity));
            var random = new Random(SeedOf(name));
            byte[] edited = edit is null ? [] : new byte[rowBytes];
            for (int row = 0; row < rows; row++)
            {
                ReadOnlySpan<byte> stored = tile.AsSpan(random.Next(TileRows) * rowBytes, rowBytes);
                if (edit is not null)
                {
                    stored.CopyTo(edited);
                    edit(row, edited);
                    stored = edited;
                }
                stream.Write(stored);
            }
        });

    /// <summary>A small Gaussian vector, the same for every name.</summary>
    public TensorSource Bias(string name, int width, DType dtype = DType.F32) =>
        TensorSource.FromValues(name, [width], Gaussian(new Random(seed), width, 0.1f), dtype);

    /// <summary>Small Gaussian values of any shape.</summary>
    public TensorSource Values(string name, DType dtype, long[] shape, float deviation) =>
        new(name, dtype, shape, stream =>
        {
            long count = shape.Aggregate(1L, static (product, dimension) => product * dimension);
            TensorSource.FromValues(name, shape, Gaussian(new Random(SeedOf(name)), (int)count, deviation), dtype).WriteTo(stream);
        });

    private int SeedOf(string name) => name.Aggregate(seed, static (hash, character) => unchecked(hash * 31 + character));

    private byte[] Tile(DType dtype, int columns, SparsityPattern? sparsity)
    {
        int rowBytes = (int)dtype.RowBytes(columns);
        var tile = new byte[TileRows * rowBytes];
        float deviation = 1f / MathF.Sqrt(columns);
        Parallel.For(0, TileRows, row =>
        {
            float[] values = Gaussian(new Random(unchecked(seed * 31 + row)), columns, deviation);
            if (sparsity is { IsTwoOfFour: true })
                KeepTwoOfFour(values);
            else if (sparsity is not null)
                ClearLeast(values, sparsity.CountOf(columns));
            Codec.For(dtype).Encode(values, tile.AsSpan(row * rowBytes, rowBytes));
        });
        return tile;
    }

    private static void KeepTwoOfFour(Span<float> values)
    {
        Span<float> magnitudes = stackalloc float[4];
        for (int start = 0; start + 4 <= values.Length; start += 4)
        {
            Span<float> group = values.Slice(start, 4);
            TensorPrimitives.Abs(group, magnitudes);
            for (int i = 0; i < 2; i++)
            {
                int least = TensorPrimitives.IndexOfMin(magnitudes);
                (group[least], magnitudes[least]) = (0, float.PositiveInfinity);
            }
        }
    }

    private static void ClearLeast(float[] values, int count)
    {
        float[] magnitudes = [.. values.Select(MathF.Abs)];
        int[] places = [.. Enumerable.Range(0, values.Length)];
        Array.Sort(magnitudes, places);
        foreach (int place in places.AsSpan(0, count))
            values[place] = 0;
    }

    private static float[] Gaussian(Random random, int count, float deviation)
    {
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            // Box and Muller (1958).
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            values[i] = deviation * (float)(radius * Math.Cos(2 * Math.PI * random.NextDouble()));
        }
        return values;
    }
}
