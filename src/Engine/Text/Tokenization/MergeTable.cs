using System.Runtime.CompilerServices;

namespace Engine.Text.Tokenization;

/// <summary>
/// The merges of a byte-pair encoding: (left symbol, right symbol) → (rank, joined symbol), an open-addressed hash table that a lookup
/// usually answers from one cache line.
/// </summary>
internal sealed class MergeTable
{
    /// <summary>The rank of a pair that does not merge: above every other.</summary>
    public const int NoRank = int.MaxValue;

    // Symbols are 32-bit; no pair of them has this key, because symbol -1 never merges.
    private const ulong Free = ulong.MaxValue;

    private readonly Slot[] slots;
    private readonly int shift;

    /// <summary>Makes room for a number of merges.</summary>
    public MergeTable(int count)
    {
        int bits = 4;
        while (1L << bits < count + count / 2L)
            bits++;
        slots = new Slot[1 << bits];
        Array.Fill(slots, new Slot { Key = Free });
        shift = 64 - bits;
    }

    /// <summary>The number of pairs that merge.</summary>
    public int Count { get; private set; }

    /// <summary>Adds a merge. One that is already there is replaced where <paramref name="replace"/> says so and kept otherwise.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Add(int left, int right, int rank, int joined, bool replace)
    {
        ulong key = Key(left, right);
        ref Slot slot = ref slots[Find(key)];
        if (slot.Key == key && !replace)
            return;
        if (slot.Key != key && ++Count == slots.Length)
            throw new InvalidOperationException("the merge table is full");
        slot = new Slot { Key = key, Rank = rank, Joined = joined };
    }

    /// <summary>The rank of a pair, lowest first, or <see cref="NoRank"/>.</summary>
    public int Rank(int left, int right)
    {
        ulong key = Key(left, right);
        ref Slot slot = ref slots[Find(key)];
        return slot.Key == key ? slot.Rank : NoRank;
    }

    /// <summary>The symbol that a pair merges into; the pair must have a rank.</summary>
    public int Joined(int left, int right) => slots[Find(Key(left, right))].Joined;

    private static ulong Key(int left, int right) => (ulong)(uint)left << 32 | (uint)right;

    // Loading calls this a million times before the run time would think of optimizing it; so it is with the others that are marked.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int Find(ulong key)
    {
        // Fibonacci hashing: the high bits of the product depend on all bits of the key.
        int index = (int)((key ^ key >> 32) * 0x9E3779B97F4A7C15UL >> shift);
        while (slots[index].Key != key && slots[index].Key != Free)
            index = (index + 1) & (slots.Length - 1);
        return index;
    }

    private struct Slot
    {
        public ulong Key;
        public int Rank;
        public int Joined;
    }
}
