namespace Engine.Checkpoints.Codecs;

/// <summary>64 weights: <c>d: f16 | codes: u8[16]</c>; value = d·(q − 1). Byte j holds weights 4j … 4j + 3, the lowest bits first.</summary>
internal readonly struct Q2_0Format : IGroupedFormat
{
    public const int BlockElements = 64, CodesOffset = 2, BlockBytes = CodesOffset + BlockElements / 4;

    public static DType DType => DType.Q2_0;
    public static int Elements => BlockElements;
    public static int Groups => 1;
    public static ReadOnlySpan<sbyte> Values => TQ2_0Format.Values;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)(block[CodesOffset + i / 4] >> 2 * (i % 4) & 3);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);
}
