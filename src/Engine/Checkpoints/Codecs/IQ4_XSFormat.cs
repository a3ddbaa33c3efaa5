using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | upper scale bits: u16 | lower scale bits: u8[4] | codes: u8[8, 16]</c>; value = (d·(s − 32))·K[q], K that of
/// <see cref="IQ4_NLFormat"/>. Group g has four bits of its scale in nibble g of the lower ones and two at bit 2g of the upper ones.
/// </summary>
internal readonly struct IQ4_XSFormat : IGroupedFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = 32, HighBitsOffset = 2, LowBitsOffset = 4, CodesOffset = 8;
    public const int BlockBytes = CodesOffset + BlockElements / 2;

    private const int ScaleHalf = 32;

    public static DType DType => DType.IQ4_XS;
    public static int Elements => BlockElements;
    static int IBlockGrid.GroupElements => GroupElements;
    public static int Groups => BlockElements / GroupElements;
    public static ReadOnlySpan<sbyte> Values => IQ4_NLFormat.Values;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
        int high = BinaryPrimitives.ReadUInt16LittleEndian(block[HighBitsOffset..]);
        for (int group = 0; group < Groups; group++)
        {
            int low = block[LowBitsOffset + group / 2] >> 4 * (group % 2) & 15;
            scales[group] = (sbyte)((low | (high >> 2 * group & 3) << 4) - ScaleHalf);
        }
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int group = 0; group < Groups; group++)
            IQ4_NLFormat.ReadNibbles(block[(CodesOffset + 16 * group)..], codes[(GroupElements * group)..]);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        block.Clear();
        Span<float> scales = stackalloc float[Groups];
        float extreme = 0f;
        for (int group = 0; group < Groups; group++)
        {
            scales[group] = TableSearch.Fit(values.Slice(group * GroupElements, GroupElements), Values);
            if (MathF.Abs(scales[group]) > MathF.Abs(extreme))
                extreme = scales[group];
        }
        // As in Q3_K the group of largest scale takes −32.
        float blockScale = HalfField.Write(extreme / -ScaleHalf, block), inverse = blockScale == 0 ? 0f : -ScaleHalf / extreme;
        int high = 0;
        for (int group = 0; group < Groups; group++)
        {
            int scaleCode = (int)Math.Clamp(MathF.Round(inverse * scales[group]), -ScaleHalf, ScaleHalf - 1);
            block[LowBitsOffset + group / 2] |= (byte)((scaleCode + ScaleHalf & 15) << 4 * (group % 2));
            high |= scaleCode + ScaleHalf >> 4 << 2 * group;
            IQ4_NLFormat.WriteNibbles(values.Slice(group * GroupElements, GroupElements), blockScale * scaleCode, block[(CodesOffset + 16 * group)..]);
        }
        BinaryPrimitives.WriteUInt16LittleEndian(block[HighBitsOffset..], (ushort)high);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        GroupedScales.Read<IQ4_XSFormat>(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        for (int group = 0; group < Groups; group++)
            Nibbles.Write(codes[(GroupElements * group)..], block[(CodesOffset + GroupElements / 2 * group)..]);
    }
}
