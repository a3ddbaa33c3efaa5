namespace Engine.Checkpoints.Codecs;

/// <summary>128 weights: <c>d: f16 | signs: u8[16]</c>; value = d where the weight's bit is set, −d where it is not.</summary>
internal readonly struct Q1_0Format : IGroupedFormat
{
    public const int BlockElements = 128, SignsOffset = 2, BlockBytes = SignsOffset + BlockElements / 8;

    public static DType DType => DType.Q1_0;
    public static int Groups => 1;
    public static ReadOnlySpan<sbyte> Values => [-1, 1];

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)(block[SignsOffset + i / 8] >> i % 8 & 1);
    }

    /// <summary>The mean magnitude is the scale of least squared error.</summary>
    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        block.Clear();
        double sum = 0;
        for (int i = 0; i < BlockElements; i++)
        {
            sum += MathF.Abs(values[i]);
            if (values[i] >= 0)
                block[SignsOffset + i / 8] |= (byte)(1 << i % 8);
        }
        HalfField.Write((float)(sum / BlockElements), block);
    }
}
