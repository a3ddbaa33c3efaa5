using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>vectors: u8[32] | upper bits: u4[32] | scales: u16[4]</c>; value = d·(2s + 1)·(t ± 1/8) as in <see cref="IQ1_SFormat"/>. A nibble
/// of upper bits has three of a vector and the sign of its eighth. A word of scales has s of four groups from bit 3k, and in its top four bits a nibble of the
/// float16 d, lowest first.
/// </summary>
internal readonly struct IQ1_MFormat : IGroupedFormat
{
    public const int BlockElements = 256, HighBitsOffset = BlockElements / 8, ScalesOffset = HighBitsOffset + BlockElements / 16;
    public const int BlockBytes = ScalesOffset + 8;

    public static DType DType => DType.IQ1_M;
    public static int Elements => BlockElements;
    public static int Groups => 16;
    public static float Factor => 0.125f;
    public static bool ScalesAreOdd => true;
    public static ReadOnlySpan<sbyte> Values => ShiftedTernary.Values;

    public static ushort ReadScale(ReadOnlySpan<byte> block)
    {
        int scale = 0;
        for (int word = 0; word < 4; word++)
            scale |= Word(block, word) >> 12 << 4 * word;
        return (ushort)scale;
    }

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
        for (int group = 0; group < Groups; group++)
            scales[group] = (sbyte)(2 * (Word(block, group / 4) >> 3 * (group % 4) & 7) + 1);
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements / 8; i++)
        {
            int high = block[HighBitsOffset + i / 2] >> 4 * (i % 2);
            ShiftedTernary.Read(CodeGrids.IQ1[block[i] | (high & 7) << 8], high >> 3 & 1, codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static int Word(ReadOnlySpan<byte> block, int word) => BinaryPrimitives.ReadUInt16LittleEndian(block[(ScalesOffset + 2 * word)..]);
}
