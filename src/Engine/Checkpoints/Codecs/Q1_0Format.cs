namespace Engine.Checkpoints.Codecs;

/// <summary>128 weights: <c>d: f16 | signs: u8[16]</c>; value = d where the weight's bit is set, −d where it is not.</summary>
internal readonly struct Q1_0Format : IGroupedFormat, IBlockGrid
{
    public const int BlockElements = 128, SignsOffset = 2, BlockBytes = SignsOffset + BlockElements / 8;

    public static DType DType => DType.Q1_0;
    public static int Elements => BlockElements;
    public static int Groups => 1;
    public static int GroupElements => BlockElements;
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
        double sum = 0;
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
        {
            sum += MathF.Abs(values[i]);
            codes[i] = (byte)(values[i] >= 0 ? 1 : 0);
        }
        HalfField.Write((float)(sum / BlockElements), block);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        GroupedScales.Read<Q1_0Format>(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        block[SignsOffset..BlockBytes].Clear();
        for (int i = 0; i < BlockElements; i++)
            block[SignsOffset + i / 8] |= (byte)(codes[i] << i % 8);
    }
}
