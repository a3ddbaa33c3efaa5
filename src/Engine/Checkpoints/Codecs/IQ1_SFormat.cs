using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | vectors: u8[32] | upper bits: u16[8]</c>; value = d·(2s + 1)·(t ± 1/8), t ternary. A word of upper bits has three of each
/// of four vectors from bit 3k, s from bit 12, and in its top bit the sign of the eighth (set: minus).
/// </summary>
internal readonly struct IQ1_SFormat : IGroupedFormat
{
    public const int BlockElements = 256, VectorsOffset = 2, HighBitsOffset = VectorsOffset + BlockElements / 8, BlockBytes = HighBitsOffset + 16;

    public static DType DType => DType.IQ1_S;
    public static int Elements => BlockElements;
    public static int Groups => 8;
    public static float Factor => 0.125f;
    public static bool ScalesAreOdd => true;
    public static ReadOnlySpan<sbyte> Values => ShiftedTernary.Values;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
        for (int group = 0; group < Groups; group++)
            scales[group] = (sbyte)(2 * (Word(block, group) >> 12 & 7) + 1);
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements / 8; i++)
        {
            int word = Word(block, i / 4), vector = block[VectorsOffset + i] | (word >> 3 * (i % 4) & 7) << 8;
            ShiftedTernary.Read(CodeGrids.IQ1[vector], word >> 15, codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static int Word(ReadOnlySpan<byte> block, int group) => BinaryPrimitives.ReadUInt16LittleEndian(block[(HighBitsOffset + 2 * group)..]);
}

/// <summary>Codes of IQ1: two bits of a vector of <see cref="CodeGrids"/>, and above them the sign of the eighth that is added.</summary>
internal static class ShiftedTernary
{
    /// <summary>Eight times t + 1/8 and t − 1/8.</summary>
    public static ReadOnlySpan<sbyte> Values => [-7, 1, 9, 0, -9, -1, 7, 0];

    /// <summary>Reads 8 codes.</summary>
    public static void Read(ushort vector, int minus, Span<byte> codes)
    {
        for (int i = 0; i < 8; i++)
            codes[i] = (byte)(vector >> 2 * i & 3 | minus << 2);
    }
}
