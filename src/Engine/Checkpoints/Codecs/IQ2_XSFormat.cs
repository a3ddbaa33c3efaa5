using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>d: f16 | vectors: u16[32] | scales: u4[16]</c>; value = d·(2s + 1)/8·v. A word has nine bits of vector and seven signs
/// (<see cref="SignedGrid"/>).
/// </summary>
internal readonly struct IQ2_XSFormat : IGroupedFormat
{
    public const int BlockElements = 256, VectorsOffset = 2, ScalesOffset = VectorsOffset + BlockElements / 4, BlockBytes = ScalesOffset + 8;

    public static DType DType => DType.IQ2_XS;
    public static int Elements => BlockElements;
    public static int Groups => 16;
    public static float Factor => 0.125f;
    public static bool ScalesAreOdd => true;
    public static ReadOnlySpan<sbyte> Values => SignedGrid.TwoBitValues;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales) => OddScales.Read(block[ScalesOffset..], scales[..Groups]);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements / 8; i++)
        {
            int word = BinaryPrimitives.ReadUInt16LittleEndian(block[(VectorsOffset + 2 * i)..]);
            SignedGrid.Read8(CodeGrids.IQ2_XS[word & 511], SignedGrid.EvenSigns((uint)word >> 9), codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);
}

/// <summary>Scales 2s + 1 of nibbles s, low ones first.</summary>
internal static class OddScales
{
    public static void Read(ReadOnlySpan<byte> nibbles, Span<sbyte> scales)
    {
        for (int group = 0; group < scales.Length; group++)
            scales[group] = (sbyte)(2 * (nibbles[group / 2] >> 4 * (group % 2) & 15) + 1);
    }
}
