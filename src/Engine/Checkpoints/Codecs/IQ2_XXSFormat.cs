using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | groups: (vectors: u8[4], signs and scale: u32)[8]</c>; value = d·(2s + 1)/8·v. The word has seven signs of each vector
/// from bit 7k and s in its top four bits (<see cref="SignedGrid"/>).
/// </summary>
internal readonly struct IQ2_XXSFormat : IGroupedFormat
{
    public const int BlockElements = 256, BlockBytes = 2 + BlockElements / 4;

    public static DType DType => DType.IQ2_XXS;
    public static int Elements => BlockElements;
    public static int Groups => 8;
    public static float Factor => 0.125f;
    public static bool ScalesAreOdd => true;
    public static ReadOnlySpan<sbyte> Values => SignedGrid.TwoBitValues;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales)
    {
        for (int group = 0; group < Groups; group++)
            scales[group] = (sbyte)(2 * (Word(block, group) >> 28) + 1);
    }

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements / 8; i++)
        {
            byte signs = SignedGrid.EvenSigns(Word(block, i / 4) >> 7 * (i % 4));
            SignedGrid.Read8(CodeGrids.IQ2_XXS[block[2 + 8 * (i / 4) + i % 4]], signs, codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static uint Word(ReadOnlySpan<byte> block, int group) => BinaryPrimitives.ReadUInt32LittleEndian(block[(6 + 8 * group)..]);
}
