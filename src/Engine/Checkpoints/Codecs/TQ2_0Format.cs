namespace Engine.Checkpoints.Codecs;

/// <summary>256 weights: <c>codes: u8[64] | d: f16</c>; value = d·(q − 1). Codes as <see cref="TwoBits"/> has them; 3, which no encoder writes, stands for 2.</summary>
internal readonly struct TQ2_0Format : IGroupedFormat, IBlockGrid
{
    public const int BlockElements = 256, ScaleOffset = BlockElements / 4, BlockBytes = ScaleOffset + 2;

    public static DType DType => DType.TQ2_0;
    public static int Elements => BlockElements;
    public static int Groups => 1;
    public static int GroupElements => BlockElements;
    public static ReadOnlySpan<sbyte> Values => [-1, 0, 1, 2];
    static ReadOnlySpan<sbyte> IBlockGrid.Values => Values[..3];

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block[ScaleOffset..]);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes) => TwoBits.Read(block, codes);

    /// <summary>
    /// The scale of least squared error. With the k largest magnitudes coded as ±1 the best scale is their mean and what it gains (Σ|x|)²/k, so that sorting finds
    /// the best k. Weights that are ternary already come back as they were.
    /// </summary>
    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        Span<float> magnitudes = stackalloc float[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            magnitudes[i] = MathF.Abs(values[i]);
        magnitudes.Sort();
        double sum = 0, gain = 0, best = 0;
        for (int k = 1; k <= BlockElements; k++)
        {
            sum += magnitudes[^k];
            if (sum * sum / k > gain)
                (gain, best) = (sum * sum / k, sum / k);
        }
        float half = HalfField.Write((float)best, block[ScaleOffset..]) / 2f;
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)(values[i] > half ? 2 : values[i] < -half ? 0 : 1);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        GroupedScales.Read<TQ2_0Format>(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => TwoBits.Write(codes, block);
}
