namespace Engine.Checkpoints.Codecs;

/// <summary>32 weights: <c>d: f16 | m: f16 | high: u32 | codes: u8[16]</c>; value = d·q + m. Bits of q as in
/// <see cref="Q5_0Format"/>.</summary>
internal readonly struct Q5_1Format : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 32, MinimumOffset = 2, HighBitsOffset = 4, CodesOffset = 8;
    public const int BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q5_1;
    public static int GroupElements => BlockElements;
    public static ReadOnlySpan<sbyte> Values => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block) && HalfField.IsFinite(block[MinimumOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfField.Read(block), minimum = HalfField.Read(block[MinimumOffset..]);
        for (int i = 0; i < BlockElements; i++)
            values[i] = scale * FiveBits.Read(block, HighBitsOffset, i) + minimum;
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        (float inverse, float minimum) = UnsignedScale.Write(values, 31, block, block[MinimumOffset..]);
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)UnsignedScale.Code(values[i], inverse, minimum, 31);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        (scales[0], minima[0]) = (HalfField.Read(block), -HalfField.Read(block[MinimumOffset..]));

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => FiveBits.Write(codes, block, HighBitsOffset);
}
