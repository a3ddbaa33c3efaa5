using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>
/// 8-bit floats to float32: sign-extended, exponent and mantissa moved to their place, what the extension left between them and the sign masked away, and the
/// bias corrected by a product that is exact, also for subnormals. NaN and infinity are not known here.
/// </summary>
internal static unsafe class SmallFloats
{
    /// <summary>S.EEEE.MMM: how far it is moved, what is kept, and 2^(127 − 7).</summary>
    public const int E4M3Shift = 20;

    /// <summary>Sign, and 7 bits from <see cref="E4M3Shift"/> on.</summary>
    public const uint E4M3Mask = 0x87F00000;

    /// <summary>2^(127 − 7).</summary>
    public const float E4M3Factor = 1.329227995784916e36f;

    /// <summary>The same for S.EEEEE.MM.</summary>
    public const int E5M2Shift = 21;

    /// <summary>Sign, and 7 bits from <see cref="E5M2Shift"/> on.</summary>
    public const uint E5M2Mask = 0x8FE00000;

    /// <summary>2^(127 − 15).</summary>
    public const float E5M2Factor = 5.192296858534828e33f;

    private const int LargestCode = 0x7E;

    /// <summary>The positive numbers of S.EEEE.MMM, ascending, from that of code 1.</summary>
    private static readonly ImmutableArray<float> positive = CodeTables.Of(CodeNumbers.E4M3)[1..(LargestCode + 1)];

    /// <summary>Widens 8 numbers S.EEEE.MMM.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> WidenE4M3(byte* codes) => Widen(codes, E4M3Shift, E4M3Mask, E4M3Factor);

    /// <summary>Widens 16 numbers as <see cref="WidenE4M3"/> does 8.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> WidenE4M3Avx512(byte* codes)
    {
        Vector512<int> moved = Avx512F.ConvertToVector512Int32(Vector128.Load((sbyte*)codes)) << E4M3Shift;
        return (moved.AsUInt32() & Vector512.Create(E4M3Mask)).AsSingle() * Vector512.Create(E4M3Factor);
    }

    /// <summary>Widens 8 numbers S.EEEEE.MM.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> WidenE5M2(byte* codes) => Widen(codes, E5M2Shift, E5M2Mask, E5M2Factor);

    /// <summary>The code S.EEEE.MMM whose number is nearest; either of two where it is halfway.</summary>
    public static byte Nearest(float value)
    {
        float magnitude = MathF.Abs(value);
        int place = positive.BinarySearch(magnitude);
        int above = place >= 0 ? place : ~place; // The first that is not smaller.
        float lower = above == 0 ? 0 : positive[above - 1];
        int code = above == positive.Length || magnitude - lower < positive[above] - magnitude ? above : above + 1;
        return (byte)(code | (value < 0 ? 0x80 : 0));
    }

    /// <summary>
    /// Finds a factor under which all scales are numbers S.EEEE.MMM but for <paramref name="tolerance"/>, as they are where a file has them so and the factor
    /// apart; null where there is none.
    /// </summary>
    /// <param name="scales">Distinct magnitudes.</param>
    /// <param name="tolerance">Relative; of two roundings to float32, 2⁻²².</param>
    public static float? FindFactor(IReadOnlyCollection<float> scales, float tolerance)
    {
        float largest = scales.Max();
        return largest == 0 ? 1 : positive.Select(number => (float?)(largest / number)).FirstOrDefault(factor => scales.All(scale => Fits(scale, factor!.Value)));

        bool Fits(float scale, float factor) =>
            float.IsNormal(factor) && Math.Abs(CodeTables.Of(CodeNumbers.E4M3)[Nearest(scale / factor)] * (double)factor - scale) <= tolerance * (double)scale;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Widen(byte* codes, int shift, uint mask, float factor) =>
        ((Widening.SignedToInt32((sbyte*)codes) << shift).AsUInt32() & Vector256.Create(mask)).AsSingle() * Vector256.Create(factor);
}
