namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 8 groups of 32: <c>d: f16 | vectors: u8[64] | upper vector bits: u8[8] | signs: u8[32] | scales: u4[8]</c>; value = d·(2s + 1)·v. Bit k of a byte
/// of upper bits is of the k-th vector of its group (<see cref="SignedGrid"/>).
/// </summary>
internal readonly struct IQ3_SFormat : IGroupedFormat
{
    public const int BlockElements = 256, VectorsOffset = 2, HighBitsOffset = VectorsOffset + BlockElements / 4, SignsOffset = HighBitsOffset + 8;
    public const int ScalesOffset = SignsOffset + BlockElements / 8, BlockBytes = ScalesOffset + 4;

    public static DType DType => DType.IQ3_S;
    public static int Elements => BlockElements;
    public static int Groups => 8;
    public static ReadOnlySpan<sbyte> Values => [1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15];

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadScales(ReadOnlySpan<byte> block, Span<sbyte> scales) => OddScales.Read(block[ScalesOffset..], scales[..Groups]);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements / 8; i++)
            SignedGrid.Read4And4(Vector(block, 2 * i), Vector(block, 2 * i + 1), block[SignsOffset + i], codes[(8 * i)..]);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static ushort Vector(ReadOnlySpan<byte> block, int index) =>
        CodeGrids.IQ3_S[block[VectorsOffset + index] | (block[HighBitsOffset + index / 8] >> index % 8 & 1) << 8];
}
