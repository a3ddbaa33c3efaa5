using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;

namespace Engine.Transforms.Quantization;

/// <summary>
/// A matrix of integers that is being made: groups are fitted, then weights are rounded to their grid one by one, in any order. Rows may be worked on by
/// different threads.
/// </summary>
public sealed class QuantizedMatrix : IWeightGrid
{
    private const float SmallestHalf = 6.1035156e-05f; // the least normal number of binary16

    private readonly int groups;

    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs, whole groups.</param>
    /// <param name="format">The grid.</param>
    /// <param name="scaleType">How scales will be stored: F32, F16 or BF16; weights are rounded with scales of that precision.</param>
    public QuantizedMatrix(int rows, int columns, IntegerFormat format, DType scaleType)
    {
        ArgumentNullException.ThrowIfNull(format);
        (Rows, Columns, Format, ScaleType) = (rows, columns, format, scaleType);
        groups = format.GroupsOf(columns);
        Codes = new byte[rows * columns];
        Scales = new float[rows * groups];
        Zeros = new byte[rows * groups];
        Array.Fill(Zeros, (byte)format.MiddleCode);
    }

    /// <summary>Outputs.</summary>
    public int Rows { get; }

    /// <summary>Inputs.</summary>
    public int Columns { get; }

    /// <summary>The grid.</summary>
    public IntegerFormat Format { get; }

    /// <summary>How scales are stored.</summary>
    public DType ScaleType { get; }

    /// <inheritdoc/>
    public int GroupColumns => Columns / groups;

    /// <summary>[rows, columns], below 2^bits.</summary>
    public byte[] Codes { get; }

    /// <summary>[rows, groups], representable in <see cref="ScaleType"/>.</summary>
    public float[] Scales { get; }

    /// <summary>[rows, groups]: the codes that stand for 0.</summary>
    public byte[] Zeros { get; }

    /// <summary>
    /// Chooses scale and zero of a group so that its grid reaches from the least to the largest weight and holds 0: symmetric, scale = max |w| / (2^bits − 1) · 2,
    /// where one end is half a step short.
    /// </summary>
    /// <param name="row">The output.</param>
    /// <param name="column">The group's first input.</param>
    /// <param name="weights">Its weights, finite.</param>
    public void Fit(int row, int column, ReadOnlySpan<float> weights)
    {
        float least = Math.Min(0, TensorPrimitives.Min(weights)), largest = Math.Max(0, TensorPrimitives.Max(weights));
        int place = row * groups + column / GroupColumns, steps = Format.Codes - 1;
        float scale = RoundScale(Format.IsSymmetric ? 2 * Math.Max(-least, largest) / steps : (largest - least) / steps);
        Scales[place] = scale;
        if (!Format.IsSymmetric)
        {
            Zeros[place] = (byte)Math.Clamp(MathF.Round(-least / scale), 0, steps);
        }
    }

    /// <inheritdoc/>
    public float Round(int row, int column, float weight)
    {
        int place = row * groups + column / GroupColumns;
        float scale = Scales[place];
        int zero = Zeros[place];
        float code = Math.Clamp(MathF.Round(weight / scale) + zero, 0, Format.Codes - 1);
        Codes[row * Columns + column] = (byte)code;
        return (code - zero) * scale;
    }

    /// <summary>The numbers of a row.</summary>
    /// <param name="row">The output.</param>
    /// <param name="destination">[columns].</param>
    public void DecodeRow(int row, Span<float> destination)
    {
        for (int column = 0; column < Columns; column++)
        {
            int place = row * groups + column / GroupColumns;
            destination[column] = (Codes[row * Columns + column] - Zeros[place]) * Scales[place];
        }
    }

    /// <summary>Rounds every weight to the nearest number of its group's grid: no calibration, no compensation.</summary>
    /// <param name="weights">[rows, columns]; zeros stay zeros.</param>
    public void RoundToNearest(ReadOnlyMemory<float> weights) => Parallel.For(0, Rows, row =>
    {
        ReadOnlySpan<float> values = weights.Span.Slice(row * Columns, Columns);
        for (int first = 0; first < Columns; first += GroupColumns)
        {
            Fit(row, first, values.Slice(first, GroupColumns));
            for (int column = first; column < first + GroupColumns; column++)
            {
                Round(row, column, values[column]);
            }
        }
    });

    /// <summary>A scale as it will be read; never 0, which would make of zeros something that is no number.</summary>
    private float RoundScale(float scale)
    {
        if (scale == 0)
        {
            return 1;
        }
        Span<byte> stored = stackalloc byte[sizeof(float)];
        stored = stored[..(int)ScaleType.RowBytes(1)];
        float rounded = 0;
        Codec.For(ScaleType).Encode(new ReadOnlySpan<float>(ref scale), stored);
        Codec.For(ScaleType).Decode(stored, new Span<float>(ref rounded));
        return rounded == 0 ? SmallestHalf : rounded;
    }
}
