using Engine.Plans;

namespace Engine.Tests.Cpu;

/// <summary>How far float32 arithmetic may take attention from the exact result for the same stored numbers.</summary>
internal static class AttentionRounding
{
    private const double UnitRoundoff = 1.0 / (1 << 24);

    /// <summary>
    /// Roundings of both signs: their sum stays within λ times the root of the sum of their squares but for 2·exp(−λ²/2) of the cases
    /// (Higham and Mary 2019, theorem 2.4), one in 10¹³.
    /// </summary>
    private const double Lambda = 8;

    /// <summary>
    /// A bound for every output of one sequence, to first order. An error Δₜ of the score of token t moves output i by Σ pₜ·Δₜ·(vₜᵢ − oᵢ); the
    /// sums over tokens round besides.
    /// </summary>
    /// <param name="plan">Heads, scale and window.</param>
    /// <param name="qkv">[tokens, qkvWidth], after the rotation; keys and values before the cache rounds them, which is near enough for a bound.</param>
    /// <param name="rotated">Whether there was a rotation.</param>
    /// <returns>[tokens × heads × valueDim].</returns>
    public static float[] Tolerances(AttentionPlan plan, ReadOnlySpan<float> qkv, bool rotated)
    {
        int width = plan.QkvWidth, headDim = plan.HeadDim, valueDim = plan.ValueDim, rows = qkv.Length / width;
        int firstValue = plan.Latent is null ? plan.Heads + plan.KvHeads : plan.Heads;
        // One rounding of q · scale. A rotation rounds each number of a pair by its factor, its product and its sum, 3·√2 of the pair's length at
        // most, in q and in k.
        double perNorm = rotated ? 1 + 2 * 3 * Math.Sqrt(2) : 1;
        var tolerances = new float[rows * plan.Heads * valueDim];
        double[] scores = new double[rows], errors = new double[rows], mixed = new double[valueDim], sizes = new double[valueDim];
        for (int row = 0; row < rows; row++)
        {
            int first = plan.SlidingWindow is int window ? Math.Max(0, row - window + 1) : 0;
            for (int head = 0; head < plan.Heads; head++)
            {
                int kvHead = head / (plan.Heads / plan.KvHeads);
                ReadOnlySpan<float> query = qkv.Slice(row * width + head * headDim, headDim);
                double largest = double.NegativeInfinity;
                for (int t = first; t <= row; t++)
                {
                    (double dot, double rounding) = Dot(query, qkv.Slice(t * width + (plan.Heads + kvHead) * headDim, headDim), perNorm);
                    (scores[t], errors[t]) = (plan.Scale * dot, plan.Scale * rounding);
                    largest = Math.Max(largest, scores[t]);
                }
                double sink = plan.Sinks.IsEmpty ? double.NegativeInfinity : plan.Sinks[head], highest = largest;
                largest = Math.Max(largest, sink);
                double total = Math.Exp(sink - largest);
                // Of a sink's exponential, its argument and the factor that brings the others to the same maximum; its value is 0.
                double sinkError = plan.Sinks.IsEmpty ? 0 : UnitRoundoff * (Math.Abs(highest - sink) + 8);
                for (int t = first; t <= row; t++)
                {
                    errors[t] += UnitRoundoff * (largest - scores[t]); // of the exponential's argument
                    total += scores[t] = Math.Exp(scores[t] - largest);
                }

                Array.Clear(mixed);
                Array.Clear(sizes);
                for (int t = first; t <= row; t++)
                {
                    double weight = scores[t] /= total;
                    ReadOnlySpan<float> value = qkv.Slice(t * width + (firstValue + kvHead) * headDim, valueDim);
                    for (int i = 0; i < valueDim; i++)
                    {
                        mixed[i] += weight * value[i];
                        sizes[i] += weight * Math.Abs(value[i]);
                    }
                }
                // The weighted sum and the sum of weights, with two units in the last place of every exponential.
                double perSize = UnitRoundoff * (Lambda * Math.Sqrt(row - first + 1) + 8);
                Span<float> output = tolerances.AsSpan((row * plan.Heads + head) * valueDim, valueDim);
                for (int i = 0; i < valueDim; i++)
                {
                    output[i] = (float)(perSize * (sizes[i] + Math.Abs(mixed[i])) + sinkError * Math.Abs(mixed[i]));
                }
                for (int t = first; t <= row; t++)
                {
                    double weighted = scores[t] * errors[t];
                    ReadOnlySpan<float> value = qkv.Slice(t * width + (firstValue + kvHead) * headDim, valueDim);
                    for (int i = 0; i < valueDim; i++)
                    {
                        output[i] += (float)(weighted * Math.Abs(value[i] - mixed[i]));
                    }
                }
            }
        }
        return tolerances;
    }

    /// <summary>q·k, and how far a chain of multiply-adds in float32 may be from it: each step rounds the sum so far.</summary>
    private static (double Dot, double Rounding) Dot(ReadOnlySpan<float> query, ReadOnlySpan<float> key, double perNorm)
    {
        double sum = 0, squares = 0, queryNorm = 0, keyNorm = 0;
        for (int i = 0; i < query.Length; i++)
        {
            sum += (double)query[i] * key[i];
            squares += sum * sum;
            queryNorm += (double)query[i] * query[i];
            keyNorm += (double)key[i] * key[i];
        }
        return (sum, UnitRoundoff * (Lambda * Math.Sqrt(squares) + perNorm * Math.Sqrt(queryNorm * keyNorm)));
    }
}
