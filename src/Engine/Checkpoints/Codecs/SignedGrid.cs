using System.Numerics;

namespace Engine.Checkpoints.Codecs;

/// <summary>Codes of IQ2 and IQ3: a magnitude of a vector of <see cref="CodeGrids"/>, and above its bits the sign.</summary>
internal static class SignedGrid
{
    /// <summary>What codes of IQ2 stand for: three magnitudes in two bits, and a sign.</summary>
    public static ReadOnlySpan<sbyte> TwoBitValues => [8, 25, 43, 0, -8, -25, -43, 0];

    /// <summary>Reads 8 codes of two bits and a sign.</summary>
    /// <param name="vector">8 magnitudes.</param>
    /// <param name="signs">A bit per weight, set where it is negative.</param>
    /// <param name="codes">Receives the codes.</param>
    public static void Read8(ushort vector, byte signs, Span<byte> codes)
    {
        for (int i = 0; i < 8; i++)
            codes[i] = (byte)(vector >> 2 * i & 3 | (signs >> i & 1) << 2);
    }

    /// <summary>Reads 8 codes of three bits and a sign.</summary>
    /// <param name="first">4 magnitudes.</param>
    /// <param name="second">4 more.</param>
    /// <param name="signs">A bit per weight, set where it is negative.</param>
    /// <param name="codes">Receives the codes.</param>
    public static void Read4And4(ushort first, ushort second, byte signs, Span<byte> codes)
    {
        for (int i = 0; i < 4; i++)
        {
            codes[i] = (byte)(first >> 3 * i & 7 | (signs >> i & 1) << 3);
            codes[4 + i] = (byte)(second >> 3 * i & 7 | (signs >> 4 + i & 1) << 3);
        }
    }

    /// <summary>Seven signs are stored; the eighth makes the number of negative ones even.</summary>
    public static byte EvenSigns(uint seven) => (byte)(seven & 127 | (uint)BitOperations.PopCount(seven & 127) << 7);
}
