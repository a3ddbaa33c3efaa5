namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 32 weights: <c>d: f16 | codes: u8[16]</c>; value = d · K[q], K sixteen numbers that lie closer together about zero. Codes as <see cref="Q4_0Format"/> has them.
/// </summary>
internal readonly struct IQ4_NLFormat : IGroupedFormat, IBlockGrid
{
    public const int BlockElements = 32, CodesOffset = 2, BlockBytes = CodesOffset + BlockElements / 2;

    /// <summary>K.</summary>
    public static ReadOnlySpan<sbyte> Values => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    public static DType DType => DType.IQ4_NL;
    public static int Elements => BlockElements;
    public static int Groups => 1;
    public static int GroupElements => BlockElements;

    public static ushort ReadScale(ReadOnlySpan<byte> block) => BitConverter.ToUInt16(block);

    public static void ReadCodes(ReadOnlySpan<byte> block, Span<byte> codes) => ReadNibbles(block[CodesOffset..], codes);

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        float scale = HalfField.Write(TableSearch.Fit(values, Values), block);
        WriteNibbles(values, scale, block[CodesOffset..]);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        GroupedScales.Read<IQ4_NLFormat>(block, scales, minima);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => Nibbles.Write(codes, block[CodesOffset..]);

    /// <summary>Reads 32 codes of 16 bytes.</summary>
    internal static void ReadNibbles(ReadOnlySpan<byte> packed, Span<byte> codes)
    {
        for (int j = 0; j < BlockElements / 2; j++)
        {
            codes[j] = (byte)(packed[j] & 15);
            codes[j + BlockElements / 2] = (byte)(packed[j] >> 4);
        }
    }

    /// <summary>Writes the nearest codes of 32 weights under a scale.</summary>
    internal static void WriteNibbles(ReadOnlySpan<float> values, float scale, Span<byte> packed)
    {
        float inverse = scale == 0 ? 0f : 1f / scale;
        inverse = float.IsInfinity(inverse) ? 0f : inverse;
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)TableSearch.Nearest(values[i] * inverse, Values);
        Nibbles.Write(codes, packed);
    }
}
