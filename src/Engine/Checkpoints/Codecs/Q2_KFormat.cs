namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>scales and minima: u8[16] | codes: u8[64] | d: f16 | dmin: f16</c>; value = (d·s)·q − dmin·m, s the low nibble of its
/// group's byte and m the high one. Codes as <see cref="TwoBits"/> has them.
/// </summary>
internal readonly struct Q2_KFormat : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = 16, Groups = BlockElements / GroupElements, CodesOffset = Groups;
    public const int ScaleOffset = CodesOffset + BlockElements / 4, MinimumOffset = ScaleOffset + 2, BlockBytes = MinimumOffset + 2;

    private const int MaxScale = 15;

    public static DType DType => DType.Q2_K;
    static int IBlockGrid.GroupElements => GroupElements;
    public static ReadOnlySpan<sbyte> Values => [0, 1, 2, 3];

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block[ScaleOffset..]) && HalfField.IsFinite(block[MinimumOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        Span<byte> codes = stackalloc byte[BlockElements];
        TwoBits.Read(block[CodesOffset..], codes);
        float blockScale = HalfField.Read(block[ScaleOffset..]), blockMinimum = HalfField.Read(block[MinimumOffset..]);
        for (int group = 0; group < Groups; group++)
        {
            float scale = blockScale * (block[group] & 15), minimum = blockMinimum * (block[group] >> 4);
            for (int i = group * GroupElements; i < (group + 1) * GroupElements; i++)
                values[i] = scale * codes[i] - minimum;
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        Span<byte> codes = stackalloc byte[BlockElements], scales = stackalloc byte[Groups], minima = stackalloc byte[Groups];
        var search = new AffineGroups(GroupElements, maxCode: 3, MaxScale, firstOffset: -0.5f, steps: 15);
        search.Encode(values, block[ScaleOffset..], scales, minima, codes);
        for (int group = 0; group < Groups; group++)
            block[group] = (byte)(scales[group] | minima[group] << 4);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima)
    {
        float blockScale = HalfField.Read(block[ScaleOffset..]), blockMinimum = HalfField.Read(block[MinimumOffset..]);
        for (int group = 0; group < Groups; group++)
            (scales[group], minima[group]) = (blockScale * (block[group] & 15), blockMinimum * (block[group] >> 4));
    }

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => TwoBits.Write(codes, block[CodesOffset..]);
}

/// <summary>
/// 256 two-bit codes in 64 bytes, two halves of 128 codes in 32 bytes each: code 32k + l of a half lies in byte l at bit 2k.
/// </summary>
internal static class TwoBits
{
    public static void Read(ReadOnlySpan<byte> packed, Span<byte> codes)
    {
        for (int i = 0; i < 256; i++)
            codes[i] = (byte)(packed[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3);
    }

    public static void Write(ReadOnlySpan<byte> codes, Span<byte> packed)
    {
        packed[..64].Clear();
        for (int i = 0; i < 256; i++)
            packed[32 * (i / 128) + i % 32] |= (byte)(codes[i] << 2 * (i % 128 / 32));
    }
}
