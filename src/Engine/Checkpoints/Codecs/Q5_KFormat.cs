namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | dmin: f16 | scales and minima: u8[12] | high: u8[32] | codes: u8[128]</c>; as
/// <see cref="Q4_KFormat"/> with a fifth bit: bit g of <c>high[i]</c> belongs to weight i of group g.
/// </summary>
internal readonly struct Q5_KFormat : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = SixBitScales.GroupElements;
    public const int MinimumOffset = 2, ScalesOffset = 4, HighBitsOffset = ScalesOffset + SixBitScales.Bytes;
    public const int CodesOffset = HighBitsOffset + BlockElements / 8, BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q5_K;
    static int IBlockGrid.GroupElements => GroupElements;
    public static ReadOnlySpan<sbyte> Values => Q5_1Format.Values;

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block) && HalfField.IsFinite(block[MinimumOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float blockScale = HalfField.Read(block), blockMinimum = HalfField.Read(block[MinimumOffset..]);
        ReadOnlySpan<byte> high = block.Slice(HighBitsOffset, GroupElements);
        for (int group = 0; group < SixBitScales.Groups; group++)
        {
            (int scaleCode, int minimumCode) = SixBitScales.Read(block[ScalesOffset..], group);
            float scale = blockScale * scaleCode, minimum = blockMinimum * minimumCode;
            ReadOnlySpan<byte> codes = block.Slice(CodesOffset + group / 2 * GroupElements, GroupElements);
            Span<float> output = values.Slice(group * GroupElements, GroupElements);
            int shift = group % 2 * 4;
            for (int i = 0; i < GroupElements; i++)
                output[i] = scale * (codes[i] >> shift & 15 | (high[i] >> group & 1) << 4) - minimum;
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        Span<byte> codes = stackalloc byte[BlockElements];
        SixBitScales.Encode(values, maxCode: 31, firstOffset: -0.5f, steps: 15, block[..HighBitsOffset], codes);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) => SixBitScales.ReadGroups(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        block[HighBitsOffset..].Clear();
        for (int i = 0; i < BlockElements; i++)
        {
            int group = i / GroupElements, column = i % GroupElements;
            block[CodesOffset + group / 2 * GroupElements + column] |= (byte)((codes[i] & 15) << group % 2 * 4);
            block[HighBitsOffset + column] |= (byte)(codes[i] >> 4 << group);
        }
    }
}
