namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights: <c>digits: u8[48] | last digits: u8[4] | d: f16</c>; value = d·(q − 1). A byte is a fraction of 256 whose digits to base 3 are q: five of a byte of
/// <c>digits</c>, four of one of <c>last digits</c>. Weights go by digit and then by byte, of the first 32 bytes, the next 16 and the last 4.
/// </summary>
internal readonly struct TQ1_0Format : IGroupedFormat
{
    public const int BlockElements = 256, ScaleOffset = 52, BlockBytes = ScaleOffset + 2;

    public static DType DType => DType.TQ1_0;
    public static int Elements => BlockElements;
    public static int Groups => 1;
    public static ReadOnlySpan<sbyte> Values => TQ2_0Format.Values;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block[ScaleOffset..]);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        ReadDigits(block[..32], 5, codes);
        ReadDigits(block.Slice(32, 16), 5, codes[160..]);
        ReadDigits(block.Slice(48, 4), 4, codes[240..]);
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block) => throw ReadOnlyFormat.Refusal(DType);

    private static void ReadDigits(ReadOnlySpan<byte> bytes, int digits, Span<byte> codes)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            byte rest = bytes[i];
            for (int digit = 0; digit < digits; digit++)
            {
                codes[digit * bytes.Length + i] = (byte)(rest * 3 >> 8);
                rest = (byte)(rest * 3);
            }
        }
    }
}
