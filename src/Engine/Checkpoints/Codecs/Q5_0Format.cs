using System.Buffers.Binary;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 32 weights: <c>d: f16 | high: u32 | codes: u8[16]</c>; value = d·(q − 16). Low four bits of q as in <see cref="Q4_0Format"/>, bit i of
/// <c>high</c> is the fifth bit of weight i.
/// </summary>
internal readonly struct Q5_0Format : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 32, HighBitsOffset = 2, CodesOffset = 6, BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q5_0;
    public static int GroupElements => BlockElements;
    public static ReadOnlySpan<sbyte> Values => [-16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfField.Read(block);
        for (int i = 0; i < BlockElements; i++)
            values[i] = scale * (FiveBits.Read(block, HighBitsOffset, i) - 16);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        float inverse = SignedScale.Write(values, 16, block);
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)SignedScale.Code(values[i], inverse, 16);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        (scales[0], minima[0]) = (HalfField.Read(block), 0f);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => FiveBits.Write(codes, block, HighBitsOffset);
}

/// <summary>32 five-bit codes: a u32 of fifth bits, then 16 bytes of nibbles.</summary>
internal static class FiveBits
{
    public static int Read(ReadOnlySpan<byte> block, int offset, int element)
    {
        uint high = BinaryPrimitives.ReadUInt32LittleEndian(block[offset..]);
        int packed = block[offset + sizeof(uint) + element % 16];
        int low = element < 16 ? packed & 15 : packed >> 4;
        return low | (int)(high >> element & 1) << 4;
    }

    public static void Write(ReadOnlySpan<byte> codes, Span<byte> block, int offset)
    {
        uint high = 0;
        for (int i = 0; i < 32; i++)
            high |= (uint)(codes[i] >> 4) << i;
        BinaryPrimitives.WriteUInt32LittleEndian(block[offset..], high);
        for (int j = 0; j < 16; j++)
            block[offset + sizeof(uint) + j] = (byte)(codes[j] & 15 | (codes[j + 16] & 15) << 4);
    }
}
