using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Quantizes activations to 8 bits per block of 32: <c>d = max|x| / 127</c>, <c>code = round(x · 127 / max|x|)</c>, ties to even. Each step is one
/// IEEE operation, so every instruction set gives the same codes.
/// </summary>
internal static unsafe class ActivationQuantizer
{
    // Adding 1.5 · 2²³ leaves the rounded integer in the low bits of the sum: rounding to even that needs no conversion instruction.
    private const float Magic = 12582912f;
    private const int InfinityBits = 0x7F800000;

    // Below this 127 / max overflows or loses bits; such a block is zero for every purpose of float32 sums.
    private const float Negligible = 1e-30f;

    /// <summary>Quantizes 32 values into the record of their block.</summary>
    /// <param name="values">[32].</param>
    /// <param name="record">The record (<see cref="ActivationLayout"/>).</param>
    /// <param name="tokens">Tokens of the tile.</param>
    /// <param name="token">Which of them this is.</param>
    public static void Quantize(float* values, byte* record, int tokens, int token)
    {
        if (Avx512BW.VL.IsSupported)
        {
            QuantizeAvx512(values, record, tokens, token);
        }
        else
        {
            QuantizePortable(values, record, tokens, token);
        }
    }

    /// <summary>The definition, in vectors of any processor.</summary>
    internal static void QuantizePortable(float* values, byte* record, int tokens, int token)
    {
        Vector256<float> a = Vector256.Load(values), b = Vector256.Load(values + 8);
        Vector256<float> c = Vector256.Load(values + 16), d = Vector256.Load(values + 24);
        Vector256<int> magnitude = Vector256.Create(int.MaxValue);

        // As integers the magnitudes of floats keep their order, with infinity and then NaN above all: a maximum that loses neither.
        Vector256<int> max = Vector256.Max(
            Vector256.Max(a.AsInt32() & magnitude, b.AsInt32() & magnitude), Vector256.Max(c.AsInt32() & magnitude, d.AsInt32() & magnitude));
        Vector128<int> max4 = Vector128.Max(max.GetLower(), max.GetUpper());
        max4 = Vector128.Max(max4, Vector128.Shuffle(max4, Vector128.Create(2, 3, 0, 1)));
        max4 = Vector128.Max(max4, Vector128.Shuffle(max4, Vector128.Create(1, 0, 3, 2)));
        int maxBits = max4.ToScalar();
        float maximum = BitConverter.Int32BitsToSingle(maxBits);

        int* fields = (int*)record + token;
        if (maxBits >= InfinityBits || maximum < Negligible)
        {
            SetWithoutCodes(fields, tokens, maxBits);
            return;
        }

        float step = maximum / 127f;
        Vector256<float> inverse = Vector256.Create(127f / maximum);
        Vector256<int> codesA = Round(a, inverse), codesB = Round(b, inverse), codesC = Round(c, inverse), codesD = Round(d, inverse);
        int firstHalf = Vector256.Sum(codesA + codesB), secondHalf = Vector256.Sum(codesC + codesD);
        Vector256<sbyte> codes = Vector256.Narrow(Vector256.Narrow(codesA, codesB), Vector256.Narrow(codesC, codesD));
        SetCodes(fields, tokens, codes.AsInt32());
        SetFields(fields, tokens, step, step * (firstHalf + secondHalf), firstHalf, secondHalf);
    }

    /// <summary>The same steps on 512-bit vectors: with many tokens quantizing would otherwise take a fifth of a product's time.</summary>
    internal static void QuantizeAvx512(float* values, byte* record, int tokens, int token)
    {
        Vector512<float> a = Vector512.Load(values), b = Vector512.Load(values + 16);
        Vector512<int> max = Vector512.Max(a.AsInt32() & Vector512.Create(int.MaxValue), b.AsInt32() & Vector512.Create(int.MaxValue));
        Vector256<int> max8 = Vector256.Max(max.GetLower(), max.GetUpper());
        Vector128<int> max4 = Vector128.Max(max8.GetLower(), max8.GetUpper());
        max4 = Vector128.Max(max4, Vector128.Shuffle(max4, Vector128.Create(2, 3, 0, 1)));
        max4 = Vector128.Max(max4, Vector128.Shuffle(max4, Vector128.Create(1, 0, 3, 2)));
        int maxBits = max4.ToScalar();
        float maximum = BitConverter.Int32BitsToSingle(maxBits);

        int* fields = (int*)record + token;
        if (maxBits >= InfinityBits || maximum < Negligible)
        {
            SetWithoutCodes(fields, tokens, maxBits);
            return;
        }

        float step = maximum / 127f;
        Vector512<float> inverse = Vector512.Create(127f / maximum), magic = Vector512.Create(Magic);
        Vector512<int> magicBits = Vector512.Create(BitConverter.SingleToInt32Bits(Magic));
        Vector256<sbyte> codes = Vector256.Create(
            Avx512F.ConvertToVector128SByte((a * inverse + magic).AsInt32() - magicBits),
            Avx512F.ConvertToVector128SByte((b * inverse + magic).AsInt32() - magicBits));

        // Sums of 4 neighbours in each of 8 lanes; the lower 4 lanes are the first half of the block.
        Vector256<short> pairs = Avx2.MultiplyAddAdjacent(Vector256.Create((byte)1), codes);
        Vector256<int> sums = Avx2.MultiplyAddAdjacent(pairs, Vector256.Create((short)1));
        sums = Avx2.HorizontalAdd(sums, sums);
        sums = Avx2.HorizontalAdd(sums, sums);
        int firstHalf = sums.GetLower().ToScalar(), secondHalf = sums.GetUpper().ToScalar();
        SetCodes(fields, tokens, codes.AsInt32());
        SetFields(fields, tokens, step, step * (firstHalf + secondHalf), firstHalf, secondHalf);
    }

    /// <summary>A block of zeros; or one with a NaN or infinity, which must show in the output instead of becoming some finite code.</summary>
    private static void SetWithoutCodes(int* fields, int tokens, int maxBits)
    {
        float scale = maxBits >= InfinityBits ? float.NaN : 0f;
        SetCodes(fields, tokens, default);
        SetFields(fields, tokens, scale, scale, 0, 0);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetCodes(int* fields, int tokens, Vector256<int> groups)
    {
        if (tokens == 1)
        {
            groups.Store(fields);
            return;
        }
        int* words = (int*)&groups;
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            fields[group * tokens] = words[group];
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetFields(int* fields, int tokens, float scale, float scaledSum, int firstHalf, int secondHalf)
    {
        fields[ActivationLayout.Scale / 4 * tokens] = BitConverter.SingleToInt32Bits(scale);
        fields[ActivationLayout.ScaledSum / 4 * tokens] = BitConverter.SingleToInt32Bits(scaledSum);
        fields[ActivationLayout.NegativeSum / 4 * tokens] = -(firstHalf + secondHalf);
        fields[ActivationLayout.NegativeHalfSums / 4 * tokens] = -firstHalf;
        fields[(ActivationLayout.NegativeHalfSums / 4 + 1) * tokens] = -secondHalf;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Round(Vector256<float> values, Vector256<float> inverse) =>
        (values * inverse + Vector256.Create(Magic)).AsInt32() - Vector256.Create(BitConverter.SingleToInt32Bits(Magic));
}
