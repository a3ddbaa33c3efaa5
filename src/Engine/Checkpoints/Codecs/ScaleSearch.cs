using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Engine.Checkpoints.Codecs;

/// <summary>
/// Choosing the scales of K-quants. For a group of weights x and codes q the best scale (and minimum) is a weighted least-squares problem
/// with a closed solution; the codes depend on the scale in turn. The search tries inverse scales around the one that spans the range,
/// solves for each, and keeps the one of smallest weighted error. Large weights count more: they carry most of a dot product.
/// </summary>
/// <param name="groupElements">Weights of a group, a multiple of 8.</param>
/// <param name="maxCode">Largest code.</param>
/// <param name="maxScale">Largest scale and minimum of a group, in units of those of the block.</param>
/// <param name="firstOffset">First candidate: the range is divided into maxCode + firstOffset steps.</param>
/// <param name="steps">Candidates after the first, each 0.1 further.</param>
internal readonly struct AffineGroups(int groupElements, int maxCode, int maxScale, float firstOffset, int steps)
{
    private const int MaxGroups = 16, MaxGroupElements = 32;

    /// <summary>Encodes a block up to the packing of what is found.</summary>
    /// <param name="values">The weights.</param>
    /// <param name="header">Receives d and dmin.</param>
    /// <param name="scaleCodes">Receives a scale per group.</param>
    /// <param name="minimumCodes">Receives a minimum per group.</param>
    /// <param name="codes">Receives a code per weight.</param>
    public void Encode(ReadOnlySpan<float> values, Span<byte> header, Span<byte> scaleCodes, Span<byte> minimumCodes, Span<byte> codes)
    {
        Span<float> scales = stackalloc float[MaxGroups];
        Span<float> minima = stackalloc float[MaxGroups];
        float largestScale = 0f, largestMinimum = 0f;
        int groups = values.Length / groupElements;
        for (int group = 0; group < groups; group++)
        {
            (scales[group], minima[group]) = Fit(values.Slice(group * groupElements, groupElements));
            largestScale = MathF.Max(largestScale, scales[group]);
            largestMinimum = MathF.Max(largestMinimum, minima[group]);
        }

        float blockScale = HalfField.Write(largestScale / maxScale, header);
        float blockMinimum = HalfField.Write(largestMinimum / maxScale, header[2..]);
        for (int group = 0; group < groups; group++)
        {
            scaleCodes[group] = ScaleCode(scales[group], largestScale);
            minimumCodes[group] = ScaleCode(minima[group], largestMinimum);
            float scale = blockScale * scaleCodes[group], minimum = blockMinimum * minimumCodes[group];
            for (int i = group * groupElements; i < (group + 1) * groupElements; i++)
                codes[i] = scale == 0 ? (byte)0 : (byte)Math.Clamp(MathF.Round((values[i] + minimum) / scale), 0f, maxCode);
        }
    }

    private byte ScaleCode(float value, float largest) =>
        largest == 0 ? (byte)0 : (byte)Math.Min(maxScale, MathF.Round(value / largest * maxScale));

    /// <summary>Finds scale ≥ 0 and minimum ≥ 0 such that x ≈ scale·q − minimum.</summary>
    private (float Scale, float Minimum) Fit(ReadOnlySpan<float> x)
    {
        ReadOnlySpan<Vector256<float>> values = MemoryMarshal.Cast<float, Vector256<float>>(x);
        Vector256<float> low = Vector256<float>.Zero, high = Vector256.Create(float.MinValue), squares = Vector256<float>.Zero;
        foreach (Vector256<float> value in values)
        {
            low = Vector256.Min(low, value);
            high = Vector256.Max(high, value);
            squares += value * value;
        }
        float smallest = 0f, largest = float.MinValue;
        for (int lane = 0; lane < Vector256<float>.Count; lane++)
        {
            smallest = MathF.Min(smallest, low[lane]);
            largest = MathF.Max(largest, high[lane]);
        }
        float range = largest - smallest;
        if (range < SymmetricSearch.Smallest)
            return (0f, -smallest);

        Span<Vector256<float>> weights = stackalloc Vector256<float>[MaxGroupElements / Vector256<float>.Count];
        Vector256<float> typical = Vector256.Create(MathF.Sqrt(Vector256.Sum(squares) / groupElements));
        Vector256<float> sums = default, weightedSums = default;
        for (int i = 0; i < values.Length; i++)
        {
            weights[i] = typical + Vector256.Abs(values[i]);
            sums += weights[i];
            weightedSums += weights[i] * values[i];
        }
        float sumW = Vector256.Sum(sums), sumX = Vector256.Sum(weightedSums);

        float bestScale = range / maxCode, bestMinimum = smallest;
        float bestError = Error(values, weights, maxCode / range, smallest, maxCode, bestScale, bestMinimum);
        for (int step = 0; step <= steps; step++)
        {
            // Codes count from the best minimum so far, not from the smallest weight: scale and codes improve in turns.
            float inverse = (maxCode + firstOffset + 0.1f * step) / range, origin = bestMinimum;
            Vector256<float> codeSums = default, codeSquares = default, products = default;
            for (int i = 0; i < values.Length; i++)
            {
                Vector256<float> code = Codes(values[i], inverse, origin, maxCode), weighted = weights[i] * code;
                codeSums += weighted;
                codeSquares += weighted * code;
                products += weighted * values[i];
            }
            float sumQ = Vector256.Sum(codeSums), sumQQ = Vector256.Sum(codeSquares), sumQX = Vector256.Sum(products);
            float determinant = sumW * sumQQ - sumQ * sumQ;
            if (!(determinant > 0))
                continue;
            float scale = (sumW * sumQX - sumX * sumQ) / determinant, minimum = (sumQQ * sumX - sumQ * sumQX) / determinant;
            if (minimum > 0)
            {
                // The format subtracts a minimum that is not negative, so none is the best it can do.
                minimum = 0f;
                scale = sumQX / sumQQ;
            }
            if (!(scale > 0))
                continue;
            float error = Error(values, weights, inverse, origin, maxCode, scale, minimum);
            if (error < bestError)
                (bestError, bestScale, bestMinimum) = (error, scale, minimum);
        }
        return (bestScale, -bestMinimum);
    }

    private static Vector256<float> Codes(Vector256<float> values, float inverse, float origin, int maxCode) => Vector256.Min(
        Vector256.Max(Vector256.Round((values - Vector256.Create(origin)) * Vector256.Create(inverse)), Vector256<float>.Zero),
        Vector256.Create((float)maxCode));

    private static float Error(
        ReadOnlySpan<Vector256<float>> values, ReadOnlySpan<Vector256<float>> weights,
        float inverse, float origin, int maxCode, float scale, float minimum)
    {
        Vector256<float> errors = default;
        for (int i = 0; i < values.Length; i++)
        {
            Vector256<float> difference =
                Vector256.Create(scale) * Codes(values[i], inverse, origin, maxCode) + Vector256.Create(minimum) - values[i];
            errors += weights[i] * difference * difference;
        }
        return Vector256.Sum(errors);
    }
}

/// <summary>The search of <see cref="AffineGroups"/> for formats without a minimum.</summary>
internal static class SymmetricSearch
{
    /// <summary>Groups whose values all lie below this are zero: their inverse scale would overflow.</summary>
    public const float Smallest = 1e-30f;

    private const int Candidates = 9;

    /// <summary>Finds the scale such that x ≈ scale·q with −half ≤ q &lt; half; negative where the largest magnitude is positive.</summary>
    /// <param name="x">A multiple of 8 weights.</param>
    /// <param name="half">Codes below zero.</param>
    public static float Fit(ReadOnlySpan<float> x, int half)
    {
        float extreme = 0f;
        foreach (float value in x)
        {
            if (MathF.Abs(value) > MathF.Abs(extreme))
                extreme = value;
        }
        if (MathF.Abs(extreme) < Smallest)
            return 0f;

        // Values are divided by the extreme first so that squares of squares neither vanish nor overflow.
        ReadOnlySpan<Vector256<float>> values = MemoryMarshal.Cast<float, Vector256<float>>(x);
        Vector256<float> unit = Vector256.Create(1f / extreme), lowest = Vector256.Create((float)-half);
        Vector256<float> highest = Vector256.Create(half - 1f);
        float bestScale = 0f, bestGain = 0f;
        for (int candidate = -Candidates; candidate <= Candidates; candidate++)
        {
            Vector256<float> inverse = Vector256.Create(-(half + 0.1f * candidate));
            Vector256<float> products = default, squares = default;
            foreach (Vector256<float> raw in values)
            {
                Vector256<float> value = raw * unit, weight = value * value;
                Vector256<float> code = Vector256.Min(Vector256.Max(Vector256.Round(value * inverse), lowest), highest);
                products += weight * value * code;
                squares += weight * code * code;
            }
            float sumQX = Vector256.Sum(products), sumQQ = Vector256.Sum(squares);
            // The weighted error is Σwx² − (Σwqx)²/Σwq²: the larger the second term, the better.
            if (sumQQ > 0 && sumQX * sumQX / sumQQ > bestGain)
                (bestScale, bestGain) = (sumQX / sumQQ, sumQX * sumQX / sumQQ);
        }
        return bestScale * extreme;
    }
}
