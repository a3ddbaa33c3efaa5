namespace Engine.Checkpoints.Codecs;

/// <summary>
/// A block format whose codes can be chosen one by one once its scales are: value = scale · <see cref="Values"/>[code] − minimum, with scale and minimum of the group that the
/// weight is in. In this order of operations the result has the bits that its codec decodes.
/// </summary>
internal interface IBlockGrid
{
    /// <summary>Weights of a group.</summary>
    static abstract int GroupElements { get; }

    /// <summary>What the codes that an encoder writes stand for, ascending from code 0 on.</summary>
    static abstract ReadOnlySpan<sbyte> Values { get; }

    /// <summary>Reads scale and minimum of every group.</summary>
    static abstract void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima);

    /// <summary>Replaces the codes of a block, in the order of the weights; scales stay.</summary>
    static abstract void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block);
}

/// <summary>The grid of a block type: its codec chooses scales, whoever asks chooses codes. Stateless and safe for concurrent use.</summary>
internal abstract class BlockGrid
{
    /// <summary>Weights of a group.</summary>
    public abstract int GroupElements { get; }

    /// <summary>What the codes stand for, ascending.</summary>
    public abstract ReadOnlySpan<sbyte> Values { get; }

    /// <summary>The grid of a type; null where it has none: floats, and types that are not written.</summary>
    public static BlockGrid? For(DType dtype) => dtype switch
    {
        DType.Q4_0 => new Of<Q4_0Format>(),
        DType.Q4_1 => new Of<Q4_1Format>(),
        DType.Q5_0 => new Of<Q5_0Format>(),
        DType.Q5_1 => new Of<Q5_1Format>(),
        DType.Q8_0 => new Of<Q8_0Format>(),
        DType.Q2_K => new Of<Q2_KFormat>(),
        DType.Q3_K => new Of<Q3_KFormat>(),
        DType.Q4_K => new Of<Q4_KFormat>(),
        DType.Q5_K => new Of<Q5_KFormat>(),
        DType.Q6_K => new Of<Q6_KFormat>(),
        DType.IQ4_NL => new Of<IQ4_NLFormat>(),
        DType.IQ4_XS => new Of<IQ4_XSFormat>(),
        DType.TQ2_0 => new Of<TQ2_0Format>(),
        DType.Q1_0 => new Of<Q1_0Format>(),
        _ => null,
    };

    /// <summary>Reads scale and minimum of every group of a block.</summary>
    public abstract void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima);

    /// <summary>Replaces the codes of a block; scales stay.</summary>
    public abstract void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block);

    private sealed class Of<TFormat> : BlockGrid
        where TFormat : IBlockGrid
    {
        public override int GroupElements => TFormat.GroupElements;

        public override ReadOnlySpan<sbyte> Values => TFormat.Values;

        public override void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) => TFormat.ReadGroups(block, scales, minima);

        public override void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => TFormat.WriteCodes(codes, block);
    }
}

/// <summary>The scales of grouped formats as <see cref="IBlockGrid"/> has them.</summary>
internal static class GroupedScales
{
    /// <summary>Reads the scales of a block; there are no minima.</summary>
    public static void Read<TFormat>(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima)
        where TFormat : IGroupedFormat
    {
        Span<sbyte> factors = stackalloc sbyte[TFormat.Groups];
        factors[0] = 1;
        if (TFormat.Groups > 1)
            TFormat.ReadScales(block, factors);
        float blockScale = (float)BitConverter.UInt16BitsToHalf(TFormat.ReadScale(block)) * TFormat.Factor;
        for (int group = 0; group < TFormat.Groups; group++)
            scales[group] = blockScale * factors[group];
        minima.Clear();
    }
}
