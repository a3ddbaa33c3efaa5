using System.Runtime.Intrinsics;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// 32 weights: <c>e: E8M0 | codes: E2M1[32]</c>; value = 2^(e − 127) · code (OCP Microscaling Formats 1.0, MXFP4). Byte j holds weight j in its low nibble
/// and weight j + 16 in its high one, as ggml has it. The formulas here are on doubled codes, which are integers, and half the scale.
/// </summary>
internal readonly struct MXFP4Format : IBlockFormat
{
    public const int BlockElements = 32, CodesOffset = 1, BlockBytes = CodesOffset + BlockElements / 2;

    /// <summary>The scale that is no number.</summary>
    public const byte NaNScale = 0xFF;

    private const int LargestExponent = 2; // of the code 6 = 1.5 · 2²

    /// <summary>Twice the value of each code: sign, two bits of exponent, one of mantissa.</summary>
    public static ReadOnlySpan<sbyte> DoubledCodes => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    public static DType DType => DType.MXFP4;

    public static bool IsFinite(ReadOnlySpan<byte> block) => block[0] != NaNScale;

    /// <summary>2^(e − 128), half the scale; subnormal for e below 2.</summary>
    public static float HalfScale(byte exponent) => BitConverter.UInt32BitsToSingle(exponent < 2 ? (exponent + 1u) << 21 : (exponent - 1u) << 23);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfScale(block[0]);
        for (int j = 0; j < BlockElements / 2; j++)
        {
            int codes = block[CodesOffset + j];
            values[j] = scale * DoubledCodes[codes & 15];
            values[j + BlockElements / 2] = scale * DoubledCodes[codes >> 4];
        }
    }

    /// <summary>
    /// The scale is the largest power of two in the block over that of the largest code, and each weight takes the nearest code, the even one of two (OCP 1.0,
    /// section 6.3); what is above the largest code becomes that.
    /// </summary>
    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        float largest = 0f;
        foreach (float value in values)
        {
            largest = MathF.Max(largest, MathF.Abs(value));
        }
        block[0] = (byte)(largest == 0 ? 0 : Math.Clamp(Math.ILogB(largest) - LargestExponent + 127, 0, NaNScale - 1));
        double inverse = Math.ScaleB(1, 128 - block[0]);
        for (int j = 0; j < BlockElements / 2; j++)
        {
            block[CodesOffset + j] = (byte)(Code(values[j] * inverse) | Code(values[j + BlockElements / 2] * inverse) << 4);
        }
    }

    /// <summary>Brings rows whose codes and scales are stored apart, byte j of 16 holding weights 2j (low nibble) and 2j + 1 (gpt-oss), to blocks.</summary>
    /// <param name="codes">[blocks, 16].</param>
    /// <param name="scales">[blocks].</param>
    /// <param name="destination">[blocks, 17].</param>
    public static void Join(ReadOnlySpan<byte> codes, ReadOnlySpan<byte> scales, Span<byte> destination)
    {
        for (int block = 0; block < scales.Length; block++)
        {
            Vector128<byte> pairs = Vector128.Create(codes.Slice(block * (BlockElements / 2), BlockElements / 2));
            Vector128<byte> even = pairs & Vector128.Create((byte)15), odd = pairs >>> 4;
            // Weights 0–15 and 16–31 as bytes.
            Vector128<byte> first = (Vector128.WidenLower(even) | Vector128.WidenLower(odd) << 8).AsByte();
            Vector128<byte> second = (Vector128.WidenUpper(even) | Vector128.WidenUpper(odd) << 8).AsByte();
            Span<byte> target = destination.Slice(block * BlockBytes, BlockBytes);
            target[0] = scales[block];
            (first | second << 4).CopyTo(target[CodesOffset..]);
        }
    }

    /// <summary>The code whose double is nearest.</summary>
    private static int Code(double doubled)
    {
        double size = Math.Abs(doubled);
        int code = 7;
        for (int i = 0; i < 7; i++)
        {
            double middle = (DoubledCodes[i] + DoubledCodes[i + 1]) / 2.0;
            if (size < middle || (size == middle && i % 2 == 0))
            {
                code = i;
                break;
            }
        }
        return doubled < 0 ? code | 8 : code;
    }
}
