namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 64 weights in 4 groups of 16: <c>scales: UE4M3[4] | codes: E2M1[64]</c>; value = scale · code. Group g has 8 bytes of codes, byte j of them weight j in its low
/// nibble and weight j + 8 in its high one. As in <see cref="MXFP4Format"/> the formulas are on doubled codes and half the scale.
/// </summary>
internal readonly struct NVFP4Format : IBlockFormat
{
    public const int BlockElements = 64, GroupElements = 16, Groups = BlockElements / GroupElements, CodesOffset = Groups;
    public const int BlockBytes = CodesOffset + BlockElements / 2;

    /// <summary>The scale that is no number counts as 0.</summary>
    public const byte NaNScale = 0x7F;

    public static DType DType => DType.NVFP4;

    public static bool IsFinite(ReadOnlySpan<byte> block) => true;

    /// <summary>Half of a scale: four bits of exponent, bias 7, three of mantissa; the top bit counts nothing, but 0xFF is not 0x7F.</summary>
    public static float HalfScale(byte scale)
    {
        int exponent = scale >> 3 & 15, mantissa = scale & 7;
        return scale == NaNScale ? 0f : exponent == 0 ? MathF.ScaleB(mantissa, -10) : MathF.ScaleB(8 + mantissa, exponent - 11);
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements; i++)
        {
            int place = i % GroupElements;
            codes[i] = (byte)(block[CodesOffset + i / GroupElements * 8 + place % 8] >> 4 * (place / 8) & 15);
        }
    }

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        Span<byte> codes = stackalloc byte[BlockElements];
        ReadCodes(block, codes);
        for (int i = 0; i < BlockElements; i++)
            values[i] = HalfScale(block[i / GroupElements]) * MXFP4Format.DoubledCodes[codes[i]];
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);
}
