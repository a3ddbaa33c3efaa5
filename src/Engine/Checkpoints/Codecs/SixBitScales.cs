namespace Engine.Checkpoints.Codecs;

/// <summary>
/// The 12 bytes of Q4_K and Q5_K that hold eight 6-bit scales and eight 6-bit minima. Groups 0–3 have theirs in the low six bits of bytes
/// 0–3 (scales) and 4–7 (minima); groups 4–7 have four bits in bytes 8–11 (scale low nibble, minimum high nibble) and two in the top of
/// bytes 0–7.
/// </summary>
internal static class SixBitScales
{
    public const int Groups = 8, GroupElements = 32, Bytes = 12, Max = 63;

    public static (int Scale, int Minimum) Read(ReadOnlySpan<byte> packed, int group) => group < 4
        ? (packed[group] & 63, packed[group + 4] & 63)
        : (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4);

    /// <summary>Scale and minimum of every group of a block that begins with d and dmin.</summary>
    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima)
    {
        float blockScale = HalfField.Read(block), blockMinimum = HalfField.Read(block[2..]);
        for (int group = 0; group < Groups; group++)
        {
            (int scale, int minimum) = Read(block[4..], group);
            (scales[group], minima[group]) = (blockScale * scale, blockMinimum * minimum);
        }
    }

    /// <summary>Encodes 256 weights in groups of 32 up to their codes: d, dmin and the packed bytes, the header of a block.</summary>
    public static void Encode(ReadOnlySpan<float> values, int maxCode, float firstOffset, int steps, Span<byte> header, Span<byte> codes)
    {
        Span<byte> scales = stackalloc byte[Groups], minima = stackalloc byte[Groups];
        new AffineGroups(values.Length / Groups, maxCode, Max, firstOffset, steps).Encode(values, header, scales, minima, codes);
        Write(scales, minima, header[4..]);
    }

    public static void Write(ReadOnlySpan<byte> scales, ReadOnlySpan<byte> minima, Span<byte> packed)
    {
        for (int group = 0; group < 4; group++)
        {
            int upper = group + 4;
            packed[group] = (byte)(scales[group] | scales[upper] >> 4 << 6);
            packed[upper] = (byte)(minima[group] | minima[upper] >> 4 << 6);
            packed[upper + 4] = (byte)(scales[upper] & 15 | (minima[upper] & 15) << 4);
        }
    }
}
