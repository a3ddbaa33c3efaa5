namespace Engine.Checkpoints;

/// <summary>
/// A tensor's bytes where they lie: mapped from a file or owned by a buffer. Row-major, outermost dimension first, rows contiguous and unpadded.
/// No alignment is promised: safetensors data may start at an odd byte.
/// </summary>
/// <param name="Name">The tensor's name in its checkpoint.</param>
/// <param name="DType">How the elements are stored.</param>
/// <param name="Shape">Dimensions, outermost first; empty for a scalar.</param>
/// <param name="Address">First byte. Valid while <paramref name="Owner"/> is reachable and its checkpoint is not disposed.</param>
/// <param name="ByteLength">Length in bytes, already checked against shape and type.</param>
/// <param name="Owner">What keeps the bytes alive.</param>
public sealed unsafe record TensorView(string Name, DType DType, long[] Shape, nint Address, long ByteLength, object Owner)
{
    /// <summary>Elements in all.</summary>
    public long ElementCount => Shape.Aggregate(1L, static (product, dimension) => checked(product * dimension));

    /// <summary>Elements of the innermost dimension; 1 for a scalar.</summary>
    public long Columns => Shape.Length == 0 ? 1 : Shape[^1];

    /// <summary>Product of all dimensions but the innermost.</summary>
    public long Rows => Columns == 0 ? 0 : ElementCount / Columns;

    /// <summary>Bytes of one row; 0 when there is none.</summary>
    public long RowBytes => Rows == 0 ? 0 : ByteLength / Rows;

    /// <summary>
    /// Where the type is <see cref="DType.Coded"/>, the matrix [<see cref="Rows"/>, <see cref="Columns"/>]: there are no bytes of rows then, no address, and the
    /// length is that of all parts that are stored. Null for every other type.
    /// </summary>
    public CodedMatrix? Coded { get; private init; }

    /// <summary>A view of codes and scales that are stored apart.</summary>
    public static TensorView Of(CodedMatrix coded, object owner) =>
        new(coded.Name, DType.Coded, [coded.Rows, coded.Columns], 0, coded.StoredBytes, owner) { Coded = coded };

    /// <summary>Only name, type and shape are known here, and the length that the bytes would have.</summary>
    public bool IsOutline { get; private init; }

    /// <summary>What a tensor is that is yet to be made.</summary>
    /// <exception cref="EngineException">Its size overflows, or a row is not a whole number of blocks.</exception>
    public static TensorView Outline(string name, DType dtype, long[] shape) =>
        new(name, dtype, shape, 0, dtype.TryByteLength(shape) ?? throw new EngineException("its size overflows", item: name), typeof(TensorView)) { IsOutline = true };

    /// <summary>The bytes of one row.</summary>
    /// <exception cref="InvalidOperationException">Codes and scales are stored apart (<see cref="Coded"/>).</exception>
    public ReadOnlySpan<byte> Row(long row)
    {
        RequireBytes();
        ArgumentOutOfRangeException.ThrowIfNegative(row);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(row, Rows);
        return new ReadOnlySpan<byte>((byte*)Address + row * RowBytes, checked((int)RowBytes));
    }

    /// <summary>A stretch of the bytes.</summary>
    /// <exception cref="InvalidOperationException">Codes and scales are stored apart (<see cref="Coded"/>).</exception>
    public ReadOnlySpan<byte> Slice(long offset, int length)
    {
        RequireBytes();
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, ByteLength - offset);
        return new ReadOnlySpan<byte>((byte*)Address + offset, length);
    }

    /// <summary>All bytes, for tensors under 2 GiB.</summary>
    public ReadOnlySpan<byte> Bytes => Slice(0, checked((int)ByteLength));

    private void RequireBytes()
    {
        if (Coded is not null)
        {
            throw new InvalidOperationException($"{Name} is stored as codes and scales apart, and has no rows of bytes");
        }
        if (IsOutline)
        {
            throw new InvalidOperationException($"{Name} is described here, and has no bytes");
        }
    }
}
