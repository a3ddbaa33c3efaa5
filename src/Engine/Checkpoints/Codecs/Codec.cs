using System.Numerics.Tensors;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// Turns stored bytes into float32 and back, for one <see cref="Checkpoints.DType"/>. Stateless and safe for concurrent use. Kernels have
/// their own inner loops; a codec is the definition they are tested against, and what converters and transforms use.
/// </summary>
public abstract class Codec
{
    private static readonly Codec[] codecs = [.. DTypes.All.Select(static info => Create(info.DType))];

    /// <summary>The type that this codec reads and writes.</summary>
    public abstract DType DType { get; }

    /// <summary>The codec of a type.</summary>
    public static Codec For(DType dtype) => codecs[(int)dtype];

    /// <summary>Decodes whole blocks, in the order of operations that the format defines (formats.md §2.1), so that the result is
    /// bit-exact.</summary>
    /// <param name="source">Whole blocks.</param>
    /// <param name="destination">As many elements as <paramref name="source"/> holds.</param>
    /// <exception cref="ArgumentException">The lengths do not fit.</exception>
    public void Decode(ReadOnlySpan<byte> source, Span<float> destination)
    {
        RequireFit(source.Length, destination.Length);
        DecodeBlocks(source, destination);
    }

    /// <summary>Encodes whole blocks.</summary>
    /// <param name="source">A multiple of the block's elements; every value finite.</param>
    /// <param name="destination">Room for exactly those blocks.</param>
    /// <exception cref="ArgumentException">The lengths do not fit.</exception>
    /// <exception cref="EngineException">A value is NaN or infinite, or too large for the format; or the format cannot be
    /// written.</exception>
    public void Encode(ReadOnlySpan<float> source, Span<byte> destination)
    {
        RequireFit(destination.Length, source.Length);
        int bad = FiniteCheck.IndexOfNonFinite(source);
        if (bad >= 0)
            throw new EngineException($"element {bad} is {source[bad]}; only finite values can be stored as {DType.Info().Name}");
        EncodeBlocks(source, destination);
    }

    /// <summary>
    /// Finds the first block whose scales (or, for plain floats, values) are NaN or infinite, and returns the index of its first element;
    /// −1 where all are finite. Opening a file does not read its data, so whoever packs or decodes a tensor asks this once.
    /// </summary>
    public abstract long IndexOfNonFinite(ReadOnlySpan<byte> source);

    /// <summary>Decodes; the lengths have been checked.</summary>
    protected abstract void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination);

    /// <summary>Encodes; the lengths and the values have been checked.</summary>
    protected abstract void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination);

    private void RequireFit(int bytes, int elements)
    {
        DTypeInfo info = DType.Info();
        if (elements % info.BlockElements != 0 || (long)elements / info.BlockElements * info.BlockBytes != bytes)
        {
            throw new ArgumentException(
                $"{elements} elements of {info.Name} take {(double)elements / info.BlockElements * info.BlockBytes} bytes, not {bytes}");
        }
    }

    private static Codec Create(DType dtype) => dtype switch
    {
        DType.F32 => new F32Codec(),
        DType.F16 => new F16Codec(),
        DType.BF16 => new BF16Codec(),
        DType.F64 => new F64Codec(),
        DType.I8 => new IntegerCodec<sbyte>(dtype),
        DType.I16 => new IntegerCodec<short>(dtype),
        DType.I32 => new IntegerCodec<int>(dtype),
        DType.I64 => new IntegerCodec<long>(dtype),
        DType.U8 or DType.Bool => new IntegerCodec<byte>(dtype),
        DType.U16 => new IntegerCodec<ushort>(dtype),
        DType.U32 => new IntegerCodec<uint>(dtype),
        DType.U64 => new IntegerCodec<ulong>(dtype),
        DType.Q4_0 => new BlockCodec<Q4_0Format>(),
        DType.Q4_1 => new BlockCodec<Q4_1Format>(),
        DType.Q5_0 => new BlockCodec<Q5_0Format>(),
        DType.Q5_1 => new BlockCodec<Q5_1Format>(),
        DType.Q8_0 => new BlockCodec<Q8_0Format>(),
        DType.Q4_K => new BlockCodec<Q4_KFormat>(),
        DType.Q5_K => new BlockCodec<Q5_KFormat>(),
        DType.Q6_K => new BlockCodec<Q6_KFormat>(),
        DType.MXFP4 => new BlockCodec<MXFP4Format>(),
        DType.Q2_K => new BlockCodec<Q2_KFormat>(),
        DType.Q3_K => new BlockCodec<Grouped<Q3_KFormat>>(),
        DType.IQ4_NL => new BlockCodec<Grouped<IQ4_NLFormat>>(),
        DType.IQ4_XS => new BlockCodec<Grouped<IQ4_XSFormat>>(),
        DType.IQ3_XXS => new BlockCodec<Grouped<IQ3_XXSFormat>>(),
        DType.IQ3_S => new BlockCodec<Grouped<IQ3_SFormat>>(),
        DType.IQ2_XXS => new BlockCodec<Grouped<IQ2_XXSFormat>>(),
        DType.IQ2_XS => new BlockCodec<Grouped<IQ2_XSFormat>>(),
        DType.IQ2_S => new BlockCodec<Grouped<IQ2_SFormat>>(),
        DType.IQ1_S => new BlockCodec<Grouped<IQ1_SFormat>>(),
        DType.IQ1_M => new BlockCodec<Grouped<IQ1_MFormat>>(),
        DType.TQ1_0 => new BlockCodec<Grouped<TQ1_0Format>>(),
        DType.TQ2_0 => new BlockCodec<Grouped<TQ2_0Format>>(),
        DType.NVFP4 => new BlockCodec<NVFP4Format>(),
        DType.Q1_0 => new BlockCodec<Grouped<Q1_0Format>>(),
        DType.Q2_0 => new BlockCodec<Grouped<Q2_0Format>>(),
        DType.Coded => new CodedCodec(),
        DType.F8_E4M3 or DType.F8_E5M2 or DType.F8_E8M0 => new Float8Codec(dtype),
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, null),
    };
}

/// <summary>A format made of blocks: the loop over blocks is written once in <see cref="BlockCodec{TFormat}"/>, a format supplies one
/// block.</summary>
internal interface IBlockFormat
{
    /// <summary>The type.</summary>
    static abstract DType DType { get; }

    /// <summary>Decodes one block.</summary>
    static abstract void Decode(ReadOnlySpan<byte> block, Span<float> values);

    /// <summary>Encodes one block of finite values.</summary>
    static abstract void Encode(ReadOnlySpan<float> values, Span<byte> block);

    /// <summary>All float fields of the block are finite.</summary>
    static abstract bool IsFinite(ReadOnlySpan<byte> block);
}

/// <summary>The loop over the blocks of a format.</summary>
internal sealed class BlockCodec<TFormat> : Codec
    where TFormat : IBlockFormat
{
    private readonly int elements = TFormat.DType.Info().BlockElements;
    private readonly int bytes = TFormat.DType.Info().BlockBytes;

    public override DType DType => TFormat.DType;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source)
    {
        for (int block = 0; block < source.Length / bytes; block++)
        {
            if (!TFormat.IsFinite(source.Slice(block * bytes, bytes)))
                return (long)block * elements;
        }
        return -1;
    }

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination)
    {
        for (int block = 0; block < source.Length / bytes; block++)
            TFormat.Decode(source.Slice(block * bytes, bytes), destination.Slice(block * elements, elements));
    }

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination)
    {
        for (int block = 0; block < destination.Length / bytes; block++)
            TFormat.Encode(source.Slice(block * elements, elements), destination.Slice(block * bytes, bytes));
    }
}

/// <summary>Searching spans for values that are not finite.</summary>
internal static class FiniteCheck
{
    public static int IndexOfNonFinite(ReadOnlySpan<float> values)
    {
        // NaN propagates through MaxMagnitude, and so does infinity: one vectorized pass decides the common case.
        if (values.IsEmpty || float.IsFinite(TensorPrimitives.MaxMagnitude(values)))
            return -1;
        for (int i = 0; i < values.Length; i++)
        {
            if (!float.IsFinite(values[i]))
                return i;
        }
        return -1;
    }
}
