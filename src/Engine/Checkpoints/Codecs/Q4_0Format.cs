namespace Engine.Checkpoints.Codecs;

/// <summary>32 weights: <c>d: f16 | codes: u8[16]</c>; value = d·(q − 8). Byte j holds weight j in its low nibble and weight j + 16 in its
/// high one.</summary>
internal readonly struct Q4_0Format : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 32, CodesOffset = 2, BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q4_0;
    public static int GroupElements => BlockElements;
    public static ReadOnlySpan<sbyte> Values => [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7];

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfField.Read(block);
        ReadOnlySpan<byte> codes = block.Slice(CodesOffset, BlockElements / 2);
        for (int j = 0; j < BlockElements / 2; j++)
        {
            values[j] = scale * ((codes[j] & 15) - 8);
            values[j + BlockElements / 2] = scale * ((codes[j] >> 4) - 8);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        float inverse = SignedScale.Write(values, 8, block);
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)SignedScale.Code(values[i], inverse, 8);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        (scales[0], minima[0]) = (HalfField.Read(block), 0f);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => Nibbles.Write(codes, block[CodesOffset..]);
}

/// <summary>32 codes of four bits: byte j holds code j in its low nibble and code j + 16 in its high one.</summary>
internal static class Nibbles
{
    public static void Write(ReadOnlySpan<byte> codes, Span<byte> packed)
    {
        for (int j = 0; j < 16; j++)
            packed[j] = (byte)(codes[j] | codes[j + 16] << 4);
    }
}

/// <summary>
/// The scale of formats without a minimum: the value of largest magnitude, whatever its sign, takes the lowest code −half, since codes
/// reach one step further down than up.
/// </summary>
internal static class SignedScale
{
    /// <summary>Stores the scale and returns its inverse.</summary>
    public static float Write(ReadOnlySpan<float> values, int half, Span<byte> field)
    {
        float extreme = 0f;
        foreach (float value in values)
        {
            if (MathF.Abs(value) > MathF.Abs(extreme))
                extreme = value;
        }
        float scale = extreme / -half;
        HalfField.Write(scale, field);
        float inverse = scale == 0 ? 0f : 1f / scale;
        return float.IsInfinity(inverse) ? 0f : inverse;
    }

    /// <summary>The offset-binary code, 0 … 2·half − 1.</summary>
    public static int Code(float value, float inverse, int half) => Math.Min(2 * half - 1, (int)(value * inverse + (half + 0.5f)));
}
