namespace Engine.Checkpoints.Codecs;

/// <summary>
/// A block format whose weights are <c>(d · factor · s) · v</c>: a float16 d per block, an integer scale s per group of the block, and a number v that a code
/// stands for. Codecs and kernels read the parts of a block here; how they are put together is written once (<see cref="Grouped{TFormat}"/>).
/// </summary>
internal interface IGroupedFormat
{
    /// <summary>The type.</summary>
    static abstract DType DType { get; }

    /// <summary>Weights of a block.</summary>
    static abstract int Elements { get; }

    /// <summary>Groups of a block, each of as many weights; 1 where d is the only scale.</summary>
    static abstract int Groups { get; }

    /// <summary>A power of two.</summary>
    static virtual float Factor => 1f;

    /// <summary>Every s is odd and between 0 and 32, so that four bits hold it.</summary>
    static virtual bool ScalesAreOdd => false;

    /// <summary>What the codes stand for.</summary>
    static abstract ReadOnlySpan<sbyte> Values { get; }

    /// <summary>The bits of d.</summary>
    static abstract ushort ReadScale(ReadOnlySpan<byte> block);

    /// <summary>Reads s of every group; not called where there is one group.</summary>
    static virtual void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
    }

    /// <summary>Reads the codes, indices into <see cref="Values"/>, in the order of the weights.</summary>
    static abstract void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes);

    /// <summary>Encodes one block of finite values.</summary>
    /// <exception cref="EngineException">The format is read only.</exception>
    static abstract void Encode(ReadOnlySpan<float> values, Span<byte> block);
}

/// <summary>The codec of a grouped format. A factor that is a power of two changes no rounding, so the result has the bits of the format's own order.</summary>
internal readonly struct Grouped<TFormat> : IBlockFormat
    where TFormat : IGroupedFormat
{
    private const int MaxElements = 256, MaxGroups = 16;

    public static DType DType => TFormat.DType;

    public static bool IsFinite(ReadOnlySpan<byte> block) => Half.IsFinite(BitConverter.UInt16BitsToHalf(TFormat.ReadScale(block)));

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        Span<sbyte> scales = stackalloc sbyte[MaxGroups];
        Span<byte> codes = stackalloc byte[MaxElements];
        scales[0] = 1;
        if (TFormat.Groups > 1)
            TFormat.ReadScales(block, scales);
        TFormat.ReadCodes(block, codes);
        float blockScale = (float)BitConverter.UInt16BitsToHalf(TFormat.ReadScale(block)) * TFormat.Factor;
        ReadOnlySpan<sbyte> numbers = TFormat.Values;
        int elements = values.Length / TFormat.Groups;
        for (int group = 0; group < TFormat.Groups; group++)
        {
            float scale = blockScale * scales[group];
            for (int i = group * elements; i < (group + 1) * elements; i++)
                values[i] = scale * numbers[codes[i]];
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => TFormat.Encode(values, block);
}

/// <summary>Formats that are read and not written.</summary>
internal static class ReadOnlyFormat
{
    public static EngineException Refusal(DType dtype) => new($"writing {dtype.Info().Name} is not supported yet");
}
