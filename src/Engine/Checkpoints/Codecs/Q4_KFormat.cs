namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | dmin: f16 | scales and minima: u8[12] | codes: u8[128]</c>; value = (d·s)·q − dmin·m. Groups
/// 2p and 2p + 1 share 32 bytes of codes: low nibbles, high nibbles.
/// </summary>
internal readonly struct Q4_KFormat : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = SixBitScales.GroupElements;
    public const int MinimumOffset = 2, ScalesOffset = 4, CodesOffset = ScalesOffset + SixBitScales.Bytes;
    public const int BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q4_K;
    static int IBlockGrid.GroupElements => GroupElements;
    public static ReadOnlySpan<sbyte> Values => Q4_1Format.Values;

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block) && HalfField.IsFinite(block[MinimumOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float blockScale = HalfField.Read(block), blockMinimum = HalfField.Read(block[MinimumOffset..]);
        for (int group = 0; group < SixBitScales.Groups; group++)
        {
            (int scaleCode, int minimumCode) = SixBitScales.Read(block[ScalesOffset..], group);
            float scale = blockScale * scaleCode, minimum = blockMinimum * minimumCode;
            ReadOnlySpan<byte> codes = block.Slice(CodesOffset + group / 2 * GroupElements, GroupElements);
            Span<float> output = values.Slice(group * GroupElements, GroupElements);
            int shift = group % 2 * 4;
            for (int i = 0; i < GroupElements; i++)
                output[i] = scale * (codes[i] >> shift & 15) - minimum;
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        Span<byte> codes = stackalloc byte[BlockElements];
        SixBitScales.Encode(values, maxCode: 15, firstOffset: -1f, steps: 20, block[..CodesOffset], codes);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) => SixBitScales.ReadGroups(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        for (int pair = 0; pair < SixBitScales.Groups / 2; pair++)
        {
            for (int i = 0; i < GroupElements; i++)
            {
                int low = codes[pair * 2 * GroupElements + i], high = codes[(pair * 2 + 1) * GroupElements + i];
                block[CodesOffset + pair * GroupElements + i] = (byte)(low | high << 4);
            }
        }
    }
}
