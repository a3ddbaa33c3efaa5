using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | vectors: u8[64] | signs and scales: u32[8]</c>; value = d·(2s + 1)/4·v. A word has seven signs of each eight weights
/// from bit 7k and s in its top four bits (<see cref="SignedGrid"/>).
/// </summary>
internal readonly struct IQ3_XXSFormat : IGroupedFormat
{
    public const int BlockElements = 256, VectorsOffset = 2, WordsOffset = VectorsOffset + BlockElements / 4, BlockBytes = WordsOffset + 32;

    public static DType DType => DType.IQ3_XXS;
    public static int Elements => BlockElements;
    public static int Groups => 8;
    public static float Factor => 0.25f;
    public static bool ScalesAreOdd => true;
    public static ReadOnlySpan<sbyte> Values => [4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62];

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
            ushort first = CodeGrids.IQ3_XXS[block[VectorsOffset + 2 * i]], second = CodeGrids.IQ3_XXS[block[VectorsOffset + 2 * i + 1]];
            SignedGrid.Read4And4(first, second, SignedGrid.EvenSigns(Word(block, i / 4) >> 7 * (i % 4)), codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static uint Word(ReadOnlySpan<byte> block, int group) => BinaryPrimitives.ReadUInt32LittleEndian(block[(WordsOffset + 4 * group)..]);
}
