using System.Numerics;
using System.Numerics.Tensors;

namespace Engine.Sampling;

/// <summary>Memory of <see cref="Candidates"/> that outlives a token; it grows and is never given back.</summary>
internal sealed class CandidateStorage
{
    private ulong[] keys = [];
    private ulong[] scratch = [];

    /// <summary>The first buffer with room for this many keys; what it held up to <paramref name="keep"/> is kept.</summary>
    public Span<ulong> Keys(int count, int keep) => Grow(ref keys, count, keep);

    /// <summary>The second buffer with room for this many keys.</summary>
    public Span<ulong> Scratch(int count) => Grow(ref scratch, count, 0);

    private static Span<ulong> Grow(ref ulong[] buffer, int count, int keep)
    {
        if (buffer.Length < count)
        {
            ulong[] larger = new ulong[(int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(count, 64))];
            buffer.AsSpan(0, keep).CopyTo(larger);
            buffer = larger;
        }
        return buffer;
    }
}

/// <summary>
/// The tokens that can still be drawn, with their logits. It begins <em>dense</em>: all of the vocabulary, the caller's logits by id.
/// The first truncation makes it <em>sparse</em>: a list of (logit, id) keys, so a vocabulary is read once and never copied or sorted
/// as a whole.
/// </summary>
internal ref struct Candidates
{
    /// <summary>exp(x) is below what float32 can hold for every x under this.</summary>
    private const float ExpUnderflow = -104f;

    private const int BlockSize = 1024;

    private readonly Span<float> dense;
    private readonly CandidateStorage storage;
    private Span<ulong> keys;
    private int sorted;

    /// <summary>All tokens.</summary>
    /// <param name="logits">[vocabularySize]; without NaN. A rescaling step writes to it.</param>
    /// <param name="maximum">The largest logit; finite.</param>
    /// <param name="storage">Where sparse candidates go.</param>
    public Candidates(Span<float> logits, float maximum, CandidateStorage storage)
    {
        dense = logits;
        this.storage = storage;
        Maximum = maximum;
        Count = logits.Length;
        IsDense = true;
    }

    /// <summary>Candidates in all.</summary>
    public int Count { get; private set; }

    /// <summary>All of the vocabulary is still there.</summary>
    public bool IsDense { get; private set; }

    /// <summary>The largest logit of the candidates.</summary>
    public float Maximum { get; private set; }

    /// <summary>This many candidates at the front of <see cref="Keys"/> are in order: likeliest first, ties by lowest id.</summary>
    public readonly int Sorted => sorted;

    /// <summary>Sparse candidates as <see cref="CandidateKey"/>s of (logit, id).</summary>
    public readonly ReadOnlySpan<ulong> Keys => keys[..Count];

    /// <summary>A second buffer of keys for steps that order candidates by something else.</summary>
    public readonly Span<ulong> Scratch => storage.Scratch(Count)[..Count];

    /// <summary>Σ exp(logit − <see cref="Maximum"/>) over the candidates; ≥ 1.</summary>
    public readonly double SumOfExponentials()
    {
        double sum = 0;
        if (IsDense)
        {
            for (int start = 0; start < dense.Length; start += BlockSize)
            {
                sum += SumOfBlock(start);
            }
        }
        else
        {
            foreach (ulong key in Keys)
            {
                sum += Weight(key);
            }
        }
        return sum;
    }

    /// <summary>exp(logit − <see cref="Maximum"/>) of a sparse candidate.</summary>
    public readonly double Weight(ulong key) => Math.Exp((double)CandidateKey.Value(key) - Maximum);

    /// <summary>Keeps the <paramref name="count"/> likeliest, in order; those of logit −∞ go in any case.</summary>
    public void KeepLikeliest(int count)
    {
        count = Math.Min(count, Count);
        if (IsDense)
        {
            CollectLikeliest(count);
        }
        Truncate(Math.Min(count, Count));
    }

    /// <summary>Keeps those whose logit is at least <paramref name="logit"/>; the likeliest always stays.</summary>
    public void KeepAtLeast(float logit)
    {
        logit = Math.Min(logit, Maximum);
        if (IsDense)
        {
            CollectAtLeast(logit);
            return;
        }
        int kept = 0, keptSorted = 0;
        for (int i = 0; i < Count; i++)
        {
            if (CandidateKey.Value(keys[i]) >= logit)
            {
                keptSorted += i < sorted ? 1 : 0;
                keys[kept++] = keys[i];
            }
        }
        (Count, sorted) = (kept, keptSorted);
    }

    /// <summary>
    /// Puts the <paramref name="count"/> likeliest sparse candidates in order at the front; the others follow in no order.
    /// </summary>
    public void Sort(int count)
    {
        count = Math.Min(count, Count);
        if (count > sorted)
        {
            CandidateKey.SortFront(keys[..Count], sorted, count);
            sorted = count;
        }
    }

    /// <summary>Keeps the <paramref name="count"/> likeliest sparse candidates, in order.</summary>
    public void Truncate(int count)
    {
        Sort(count);
        Count = count;
    }

    /// <summary>Keeps the sparse candidates at these positions of <see cref="Keys"/>.</summary>
    /// <param name="positions">Keys whose index is a position; those of <see cref="Scratch"/>.</param>
    public void Keep(scoped Span<ulong> positions)
    {
        for (int i = 0; i < positions.Length; i++)
        {
            positions[i] = keys[CandidateKey.Index(positions[i])];
        }
        // In order again, so that the draw does not depend on how the survivors were found.
        positions.Sort();
        positions.CopyTo(keys);
        Count = sorted = positions.Length;
        Maximum = CandidateKey.Value(keys[0]);
    }

    /// <summary>Makes all candidates sparse, leaving out those whose probability is 0 in float32.</summary>
    public void MakeSparse()
    {
        if (IsDense)
        {
            CollectAtLeast(Maximum + ExpUnderflow);
        }
    }

    /// <summary>
    /// logit ← (logit − <see cref="Maximum"/>) / temperature. Subtracting first keeps every quotient below 1, so nothing overflows.
    /// </summary>
    public void Scale(float temperature)
    {
        if (IsDense)
        {
            TensorPrimitives.Subtract(dense, Maximum, dense);
            TensorPrimitives.Divide(dense, temperature, dense);
        }
        else
        {
            for (int i = 0; i < Count; i++)
            {
                keys[i] = CandidateKey.Pack((CandidateKey.Value(keys[i]) - Maximum) / temperature, CandidateKey.Index(keys[i]));
            }
            // Different logits may have become equal, and then ids decide.
            sorted = 0;
        }
        Maximum = 0;
    }

    /// <summary>
    /// The token at which the cumulated probability, in id order while dense and likeliest first after that, passes
    /// <paramref name="uniform"/>.
    /// </summary>
    /// <param name="uniform">In [0, 1).</param>
    public int Draw(double uniform)
    {
        double remaining = uniform * SumOfExponentials();
        if (IsDense)
        {
            return DrawDense(remaining);
        }
        Sort(Count);
        int last = 0;
        for (int i = 0; i < Count; i++)
        {
            double weight = Weight(keys[i]);
            if (weight > 0)
            {
                last = i;
                if ((remaining -= weight) < 0)
                {
                    break;
                }
            }
        }
        return CandidateKey.Index(keys[last]);
    }

    private readonly int DrawDense(double remaining)
    {
        int start = 0;
        for (; start + BlockSize < dense.Length; start += BlockSize)
        {
            double sum = SumOfBlock(start);
            if (remaining < sum)
            {
                break;
            }
            remaining -= sum;
        }
        Span<float> weights = stackalloc float[BlockSize];
        int last = -1;
        // Rounding can leave a remainder past a block's end: the next possible token takes it, or the last one if there is none.
        for (; start < dense.Length; start += BlockSize)
        {
            Span<float> block = Weights(start, weights);
            for (int i = 0; i < block.Length; i++)
            {
                if (block[i] > 0)
                {
                    last = start + i;
                    if ((remaining -= block[i]) < 0)
                    {
                        return last;
                    }
                }
            }
        }
        return last >= 0 ? last : Greedy.FirstIndexOf(dense, Maximum);
    }

    private readonly double SumOfBlock(int start) => TensorPrimitives.Sum<float>(Weights(start, stackalloc float[BlockSize]));

    private readonly Span<float> Weights(int start, Span<float> buffer)
    {
        ReadOnlySpan<float> logits = dense[start..Math.Min(start + BlockSize, dense.Length)];
        Span<float> weights = buffer[..logits.Length];
        TensorPrimitives.Subtract(logits, Maximum, weights);
        TensorPrimitives.Exp(weights, weights);
        return weights;
    }

    /// <summary>
    /// One pass over the vocabulary with a bounded list: once it is full it is cut to the <paramref name="count"/> best, whose worst is
    /// the bar for what follows. A later token has a higher id, so only a strictly larger logit passes the bar.
    /// </summary>
    private void CollectLikeliest(int count)
    {
        int capacity = 2 * count + 64;
        keys = storage.Keys(capacity, 0);
        int kept = 0;
        float bar = float.NegativeInfinity;
        for (int start = 0; start < dense.Length; start += Vector<float>.Count)
        {
            ReadOnlySpan<float> logits = dense[start..Math.Min(start + Vector<float>.Count, dense.Length)];
            if (logits.Length == Vector<float>.Count && !Vector.GreaterThanAny(new Vector<float>(logits), new Vector<float>(bar)))
            {
                continue;
            }
            for (int i = 0; i < logits.Length; i++)
            {
                if (logits[i] > bar)
                {
                    keys[kept++] = CandidateKey.Pack(logits[i], start + i);
                    if (kept == capacity)
                    {
                        CandidateKey.Select(keys[..kept], count);
                        kept = count;
                        bar = float.PositiveInfinity;
                        foreach (ulong key in keys[..kept])
                        {
                            bar = Math.Min(bar, CandidateKey.Value(key));
                        }
                    }
                }
            }
        }
        (Count, sorted, IsDense) = (kept, 0, false);
    }

    private void CollectAtLeast(float logit)
    {
        int kept = 0;
        keys = storage.Keys(Vector<float>.Count, 0);
        for (int start = 0; start < dense.Length; start += Vector<float>.Count)
        {
            ReadOnlySpan<float> logits = dense[start..Math.Min(start + Vector<float>.Count, dense.Length)];
            if (logits.Length == Vector<float>.Count && !Vector.GreaterThanOrEqualAny(new Vector<float>(logits), new Vector<float>(logit)))
            {
                continue;
            }
            if (kept + logits.Length > keys.Length)
            {
                keys = storage.Keys(kept + logits.Length, kept);
            }
            for (int i = 0; i < logits.Length; i++)
            {
                if (logits[i] >= logit)
                {
                    keys[kept++] = CandidateKey.Pack(logits[i], start + i);
                }
            }
        }
        (Count, sorted, IsDense) = (kept, 0, false);
    }
}
