namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>d: f16 | vectors: u8[32] | signs: u8[32] | upper vector bits: u8[8] | scales: u4[16]</c>; value = d·(2s + 1)/8·v. Each byte of
/// upper bits has two for each of four vectors (<see cref="SignedGrid"/>).
/// </summary>
internal readonly struct IQ2_SFormat : IGroupedFormat
{
    public const int BlockElements = 256, VectorsOffset = 2, SignsOffset = VectorsOffset + BlockElements / 8;
    public const int HighBitsOffset = SignsOffset + BlockElements / 8, ScalesOffset = HighBitsOffset + 8, BlockBytes = ScalesOffset + 8;

    public static DType DType => DType.IQ2_S;
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
            int vector = block[VectorsOffset + i] | (block[HighBitsOffset + i / 4] >> 2 * (i % 4) & 3) << 8;
            SignedGrid.Read8(CodeGrids.IQ2_S[vector], block[SignsOffset + i], codes[(8 * i)..]);
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);
}
