namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 256 weights in 16 groups of 16: <c>low: u8[128] | high: u8[64] | scales: i8[16] | d: f16</c>; value = (d·s)·(q − 32). The block is two
/// halves of 128 weights; in a half, weight 32k + l has its low nibble in byte l + 32·(k mod 2) (low nibbles for k &lt; 2, high ones above)
/// and its two high bits in byte l at bit 2k.
/// </summary>
internal readonly struct Q6_KFormat : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 256, GroupElements = 16, Groups = BlockElements / GroupElements, HalfElements = 128;
    public const int HighBitsOffset = 128, ScalesOffset = 192, ScaleOffset = ScalesOffset + Groups, BlockBytes = ScaleOffset + 2;

    private const int HalfCodes = 32;

    private static readonly sbyte[] codeValues = [.. Enumerable.Range(-HalfCodes, 2 * HalfCodes).Select(static code => (sbyte)code)];

    public static DType DType => DType.Q6_K;
    static int IBlockGrid.GroupElements => GroupElements;
    public static ReadOnlySpan<sbyte> Values => codeValues;

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block[ScaleOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float blockScale = HalfField.Read(block[ScaleOffset..]);
        for (int run = 0; run < BlockElements / 32; run++)
        {
            int half = run / 4, k = run % 4;
            ReadOnlySpan<byte> low = block.Slice(64 * half + 32 * (k & 1), 32);
            ReadOnlySpan<byte> high = block.Slice(HighBitsOffset + 32 * half, 32);
            Span<float> output = values.Slice(run * 32, 32);
            float first = blockScale * (sbyte)block[ScalesOffset + 2 * run], second = blockScale * (sbyte)block[ScalesOffset + 2 * run + 1];
            int lowShift = 4 * (k >> 1), highShift = 2 * k;
            for (int l = 0; l < 32; l++)
            {
                int code = low[l] >> lowShift & 15 | (high[l] >> highShift & 3) << 4;
                output[l] = (l < GroupElements ? first : second) * (code - 32);
            }
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        block.Clear();
        Span<float> scales = stackalloc float[Groups];
        float extreme = 0f;
        for (int group = 0; group < Groups; group++)
        {
            scales[group] = SymmetricSearch.Fit(values.Slice(group * GroupElements, GroupElements), 32);
            if (MathF.Abs(scales[group]) > MathF.Abs(extreme))
                extreme = scales[group];
        }
        // The group of largest scale takes −128, whatever its sign: codes reach one step further down than up.
        float blockScale = HalfField.Write(extreme / -128f, block[ScaleOffset..]);
        if (blockScale == 0)
            return;
        float inverse = -128f / extreme;
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int group = 0; group < Groups; group++)
        {
            sbyte scaleCode = (sbyte)Math.Min(127f, MathF.Round(inverse * scales[group]));
            block[ScalesOffset + group] = (byte)scaleCode;
            float scale = blockScale * scaleCode;
            for (int i = group * GroupElements; i < (group + 1) * GroupElements; i++)
                codes[i] = (byte)(scale == 0 ? HalfCodes : HalfCodes + (int)Math.Clamp(MathF.Round(values[i] / scale), -32f, 31f));
        }
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima)
    {
        float blockScale = HalfField.Read(block[ScaleOffset..]);
        for (int group = 0; group < Groups; group++)
            scales[group] = blockScale * (sbyte)block[ScalesOffset + group];
        minima.Clear();
    }

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        block[..ScalesOffset].Clear();
        for (int i = 0; i < BlockElements; i++)
        {
            int half = i / HalfElements, k = i % HalfElements / 32, l = i % 32;
            block[64 * half + 32 * (k & 1) + l] |= (byte)((codes[i] & 15) << 4 * (k >> 1));
            block[HighBitsOffset + 32 * half + l] |= (byte)(codes[i] >> 4 << 2 * k);
        }
    }
}
