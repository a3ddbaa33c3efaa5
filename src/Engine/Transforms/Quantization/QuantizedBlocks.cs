using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;

namespace Engine.Transforms.Quantization;

/// <summary>
/// A matrix of GGUF's blocks that is being made: the codec of the type chooses the scales of a block, then weights are rounded to what its codes stand for, one by one.
/// </summary>
public sealed class QuantizedBlocks : IWeightGrid
{
    private readonly BlockGrid grid;
    private readonly byte[] codes, bytes;
    private readonly float[] scales, minima;
    private readonly int columns, blockBytes, blockGroups;

    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs, whole blocks.</param>
    /// <param name="dtype">The type.</param>
    /// <exception cref="ArgumentException">It has no codes to choose (<see cref="Takes"/>), or rows are not whole blocks.</exception>
    public QuantizedBlocks(int rows, int columns, DType dtype)
    {
        grid = BlockGrid.For(dtype) ?? throw new ArgumentException($"{dtype} has no codes to choose", nameof(dtype));
        (GroupColumns, blockBytes) = (dtype.Info().BlockElements, dtype.Info().BlockBytes);
        if (columns % GroupColumns != 0)
        {
            throw new ArgumentException($"expected whole blocks of {GroupColumns}, found {columns} inputs", nameof(columns));
        }
        (this.columns, DType, blockGroups) = (columns, dtype, GroupColumns / grid.GroupElements);
        codes = new byte[rows * columns];
        bytes = new byte[checked((int)dtype.RowBytes(columns) * rows)];
        scales = new float[codes.Length / grid.GroupElements];
        minima = new float[scales.Length];
    }

    /// <summary>The type.</summary>
    public DType DType { get; }

    /// <inheritdoc/>
    public int GroupColumns { get; }

    /// <summary>Weights can be rounded to codes of the type one by one.</summary>
    public static bool Takes(DType dtype) => BlockGrid.For(dtype) is not null;

    /// <inheritdoc/>
    public void Fit(int row, int column, ReadOnlySpan<float> weights)
    {
        int block = (row * columns + column) / GroupColumns;
        Span<byte> header = BlockOf(block);
        Codec.For(DType).Encode(weights, header);
        int group = block * blockGroups;
        grid.ReadGroups(header, scales.AsSpan(group, blockGroups), minima.AsSpan(group, blockGroups));
    }

    /// <inheritdoc/>
    public float Round(int row, int column, float weight)
    {
        int place = row * columns + column, group = place / grid.GroupElements;
        float scale = scales[group], minimum = minima[group];
        ReadOnlySpan<sbyte> numbers = grid.Values;
        int code = TableSearch.Nearest(scale == 0 ? 0 : (weight + minimum) / scale, numbers);
        codes[place] = (byte)code;
        return scale * numbers[code] - minimum;
    }

    /// <summary>The blocks, [outputs, bytes of a row], when all weights are rounded.</summary>
    public byte[] ToBytes()
    {
        Parallel.For(0, codes.Length / GroupColumns, block => grid.WriteCodes(codes.AsSpan(block * GroupColumns, GroupColumns), BlockOf(block)));
        return bytes;
    }

    private Span<byte> BlockOf(int block) => bytes.AsSpan(block * blockBytes, blockBytes);
}
