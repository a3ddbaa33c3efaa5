using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>
/// Σ exp(sₜ − m)·vₜ, Σ exp(sₜ − m) and m = max sₜ of some queries over the tokens seen so far (Milakov and Gimelshein 2018; Dao et al. 2022,
/// section 3.1). An m of −∞ says that no token has been seen.
/// </summary>
/// <param name="Memory">[accumulators: queries × width | maxima: queries | sums: queries].</param>
/// <param name="Queries">Queries.</param>
/// <param name="Width">Elements of an accumulator, whole vectors.</param>
internal readonly unsafe record struct RunningSoftmax(nint Memory, int Queries, int Width)
{
    public float* Accumulator(int query) => (float*)Memory + (long)query * Width;

    public float* Maxima => (float*)Memory + (long)Queries * Width;

    public float* Sums => Maxima + Queries;

    public void Clear()
    {
        new Span<float>((float*)Memory, Queries * Width).Clear();
        new Span<float>(Maxima, Queries).Fill(float.NegativeInfinity);
        new Span<float>(Sums, Queries).Clear();
    }

    /// <summary>
    /// Takes the scores of a tile's tokens from <paramref name="from"/> up to <paramref name="to"/>: replaces them by exp(s − m), all others in those
    /// vectors by 0, and brings accumulator and sum to the new maximum.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Take<TSimd, V>(int query, float* scores, int from, int to)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        int end = (to + TSimd.Width - 1) & -TSimd.Width;
        new Span<float>(scores, from).Fill(float.NegativeInfinity);
        new Span<float>(scores + to, end - to).Fill(float.NegativeInfinity);
        V largest = TSimd.Load(scores);
        for (int t = TSimd.Width; t < end; t += TSimd.Width)
        {
            largest = TSimd.Max(largest, TSimd.Load(scores + t));
        }
        float before = Maxima[query];
        float maximum = MathF.Max(before, TSimd.MaxLane(largest));
        V maxima = TSimd.Broadcast(maximum), sum = TSimd.Broadcast(0f);
        for (int t = 0; t < end; t += TSimd.Width)
        {
            V weight = VectorMath<TSimd, V>.Exp(TSimd.Subtract(TSimd.Load(scores + t), maxima));
            TSimd.Store(weight, scores + t);
            sum = TSimd.Add(sum, weight);
        }
        if (maximum != before)
        {
            // Multiplying by exp(0) = 1 would change nothing, so leaving it out does not either.
            float factor = VectorMath<TSimd, V>.Exp(before - maximum);
            Maxima[query] = maximum;
            Sums[query] *= factor;
            float* accumulator = Accumulator(query);
            for (int i = 0; i < Width; i += TSimd.Width)
            {
                TSimd.Store(TSimd.Multiply(TSimd.Load(accumulator + i), TSimd.Broadcast(factor)), accumulator + i);
            }
        }
        Sums[query] += TSimd.Sum(sum);
    }

    /// <summary>Adds what <paramref name="other"/> has seen; the order of merging is the order of the tokens.</summary>
    public void Merge<TSimd, V>(in RunningSoftmax other)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        for (int query = 0; query < Queries; query++)
        {
            float* mine = Accumulator(query);
            float* theirs = other.Accumulator(query);
            float a = Maxima[query], b = other.Maxima[query];
            if (float.IsNegativeInfinity(b))
            {
                continue;
            }
            if (float.IsNegativeInfinity(a))
            {
                Buffer.MemoryCopy(theirs, mine, Width * sizeof(float), Width * sizeof(float));
                Maxima[query] = b;
                Sums[query] = other.Sums[query];
                continue;
            }
            float maximum = MathF.Max(a, b);
            float keep = VectorMath<TSimd, V>.Exp(a - maximum), add = VectorMath<TSimd, V>.Exp(b - maximum);
            Maxima[query] = maximum;
            Sums[query] = Sums[query] * keep + other.Sums[query] * add;
            for (int i = 0; i < Width; i += TSimd.Width)
            {
                V kept = TSimd.Multiply(TSimd.Load(mine + i), TSimd.Broadcast(keep));
                TSimd.Store(TSimd.MultiplyAdd(TSimd.Load(theirs + i), TSimd.Broadcast(add), kept), mine + i);
            }
        }
    }
}
