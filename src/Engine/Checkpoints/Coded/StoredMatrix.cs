using System.Runtime.CompilerServices;

namespace Engine.Checkpoints.Coded;

/// <summary>Reads the codes of a row, place by place.</summary>
internal delegate void CodeReader(long row, Span<byte> codes);

/// <summary>Reads the codes of rows that follow each other to [rows, stride].</summary>
internal delegate void CodeRunReader(long firstRow, int rows, Span<byte> codes, int stride);

/// <summary>Reads the scales of a row, group by group, and its zero points where they differ.</summary>
internal delegate void ScaleReader(long row, Span<float> scales, Span<int> zeros);

/// <summary>A coded matrix made of a way to read codes and a way to read scales: formats combine a few of each.</summary>
internal sealed class StoredMatrix : CodedMatrix
{
    /// <summary>How codes are read.</summary>
    public required CodeReader Codes { get; init; }

    /// <summary>How codes of several rows are read at once; null where that is no faster.</summary>
    public CodeRunReader? Runs { get; init; }

    /// <summary>How scales and zero points are read.</summary>
    public required ScaleReader Scales { get; init; }

    /// <inheritdoc/>
    public override void ReadCodes(long row, Span<byte> codes) => Codes(row, codes);

    /// <inheritdoc/>
    public override void ReadCodes(long firstRow, int rows, Span<byte> codes, int stride)
    {
        if (Runs is null)
        {
            base.ReadCodes(firstRow, rows, codes, stride);
        }
        else
        {
            Runs(firstRow, rows, codes, stride);
        }
    }

    /// <inheritdoc/>
    public override void ReadScales(long row, Span<float> scales, Span<int> zeros) => Scales(row, scales, zeros);
}

/// <summary>Single elements of tensors whose shapes were checked; no alignment is assumed.</summary>
internal static unsafe class StoredElements
{
    /// <summary>A 32-bit word.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint Word(this TensorView tensor, long index) => Unsafe.ReadUnaligned<uint>((byte*)tensor.Address + index * sizeof(uint));

    /// <summary>A byte.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static byte Byte(this TensorView tensor, long index) => ((byte*)tensor.Address)[index];

    /// <summary>A float of any of the three types.</summary>
    public static float Float(this TensorView tensor, long index) => tensor.DType switch
    {
        DType.F32 => Unsafe.ReadUnaligned<float>((byte*)tensor.Address + index * sizeof(float)),
        DType.F16 => (float)Unsafe.ReadUnaligned<Half>((byte*)tensor.Address + index * sizeof(ushort)),
        _ => BitConverter.UInt32BitsToSingle((uint)Unsafe.ReadUnaligned<ushort>((byte*)tensor.Address + index * sizeof(ushort)) << 16),
    };

    /// <summary>An integer of 32 or 64 bits.</summary>
    public static long Integer(this TensorView tensor, long index) => tensor.DType == DType.I64
        ? Unsafe.ReadUnaligned<long>((byte*)tensor.Address + index * sizeof(long))
        : Unsafe.ReadUnaligned<int>((byte*)tensor.Address + index * sizeof(int));

    /// <summary>A field of a stream of b-bit fields, lowest bits first, over 32-bit words <paramref name="stride"/> apart.</summary>
    /// <param name="tensor">The words.</param>
    /// <param name="first">Index of the stream's first word.</param>
    /// <param name="stride">Words from one of the stream to the next.</param>
    /// <param name="field">Which field.</param>
    /// <param name="bits">1 … 8; fields may lie across two words.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint Field(this TensorView tensor, long first, long stride, long field, int bits)
    {
        long bit = field * bits;
        int shift = (int)(bit & 31);
        long word = first + (bit >> 5) * stride;
        ulong both = tensor.Word(word);
        if (shift + bits > 32)
        {
            both |= (ulong)tensor.Word(word + stride) << 32;
        }
        return (uint)(both >> shift) & ((1u << bits) - 1);
    }
}
