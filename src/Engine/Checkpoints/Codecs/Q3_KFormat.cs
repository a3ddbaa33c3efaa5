namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>high bits: u8[32] | low bits: u8[64] | scales: u8[12] | d: f16</c>; value = (d·(s − 32))·(q − 4). The low two bits of q as
/// <see cref="TwoBits"/> has them; the third of weight i is bit i / 32 of byte i mod 32. The low four bits of scale j are in byte j mod 8 (low nibbles for j &lt; 8,
/// high ones above), the upper two in byte 8 + j mod 4 at bit 2·(j / 4).
/// </summary>
internal readonly struct Q3_KFormat : IGroupedFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = 16, CodesOffset = 32, ScalesOffset = CodesOffset + 64;
    public const int ScaleOffset = ScalesOffset + 12, BlockBytes = ScaleOffset + 2;

    private const int ScaleHalf = 32;

    public static DType DType => DType.Q3_K;
    public static int Elements => BlockElements;
    static int IBlockGrid.GroupElements => GroupElements;
    public static int Groups => BlockElements / GroupElements;
    public static ReadOnlySpan<sbyte> Values => [-4, -3, -2, -1, 0, 1, 2, 3];

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block[ScaleOffset..]);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
        ReadOnlySpan<byte> packed = block.Slice(ScalesOffset, 12);
        for (int group = 0; group < Groups; group++)
        {
            int low = packed[group % 8] >> 4 * (group / 8) & 15, high = packed[8 + group % 4] >> 2 * (group / 4) & 3;
            scales[group] = (sbyte)((low | high << 4) - ScaleHalf);
        }
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        TwoBits.Read(block[CodesOffset..], codes);
        for (int i = 0; i < BlockElements; i++)
            codes[i] |= (byte)((block[i % 32] >> i / 32 & 1) << 2);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        block.Clear();
        Span<float> scales = stackalloc float[Groups];
        float extreme = 0f;
        for (int group = 0; group < Groups; group++)
        {
            scales[group] = SymmetricSearch.Fit(values.Slice(group * GroupElements, GroupElements), 4);
            if (MathF.Abs(scales[group]) > MathF.Abs(extreme))
                extreme = scales[group];
        }
        // The group of largest scale takes −32, whatever its sign: codes reach one step further down than up.
        float blockScale = HalfField.Write(extreme / -ScaleHalf, block[ScaleOffset..]);
        if (blockScale == 0)
            block[ScaleOffset..].Clear();
        float inverse = blockScale == 0 ? 0f : -ScaleHalf / extreme;
        Span<byte> codes = stackalloc byte[BlockElements];
        Span<byte> packed = block.Slice(ScalesOffset, 12);
        for (int group = 0; group < Groups; group++)
        {
            int scaleCode = (int)Math.Clamp(MathF.Round(inverse * scales[group]), -ScaleHalf, ScaleHalf - 1);
            packed[group % 8] |= (byte)((scaleCode + ScaleHalf & 15) << 4 * (group / 8));
            packed[8 + group % 4] |= (byte)(scaleCode + ScaleHalf >> 4 << 2 * (group / 4));
            float scale = blockScale * scaleCode;
            for (int i = group * GroupElements; i < (group + 1) * GroupElements; i++)
            {
                codes[i] = (byte)(scale == 0 ? 4 : 4 + (int)Math.Clamp(MathF.Round(values[i] / scale), -4f, 3f));
            }
        }
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        GroupedScales.Read<Q3_KFormat>(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        block[..CodesOffset].Clear();
        Span<byte> low = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
        {
            low[i] = (byte)(codes[i] & 3);
            block[i % 32] |= (byte)(codes[i] >> 2 << i / 32);
        }
        TwoBits.Write(low, block[CodesOffset..]);
    }
}
