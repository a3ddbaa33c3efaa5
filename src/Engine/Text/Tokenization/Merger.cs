using System.Buffers;

namespace Engine.Text.Tokenization;

/// <summary>Applies merges to the symbols of one word: always the pair of the lowest rank, the leftmost of equals.</summary>
internal static class Merger
{
    // Up to here, looking through all pairs for every merge is faster than keeping a heap of them.
    private const int ShortWord = 48;

    /// <summary>Merges in place; returns how many symbols are left.</summary>
    public static int Merge(Span<int> symbols, MergeTable merges) =>
        symbols.Length <= ShortWord ? MergeShort(symbols, merges) : MergeLong(symbols, merges);

    private static int MergeShort(Span<int> symbols, MergeTable merges)
    {
        Span<int> ranks = stackalloc int[ShortWord];
        int count = symbols.Length;
        for (int i = 0; i + 1 < count; i++)
            ranks[i] = merges.Rank(symbols[i], symbols[i + 1]);
        while (count > 1)
        {
            int best = 0;
            for (int i = 1; i + 1 < count; i++)
            {
                if (ranks[i] < ranks[best])
                    best = i;
            }
            if (ranks[best] == MergeTable.NoRank)
                break;
            symbols[best] = merges.Joined(symbols[best], symbols[best + 1]);
            symbols[(best + 2)..count].CopyTo(symbols[(best + 1)..]);
            ranks[(best + 1)..(count - 1)].CopyTo(ranks[best..]);
            count--;
            if (best > 0)
                ranks[best - 1] = merges.Rank(symbols[best - 1], symbols[best]);
            if (best + 1 < count)
                ranks[best] = merges.Rank(symbols[best], symbols[best + 1]);
        }
        return count;
    }

    /// <summary>
    /// The same in n·log n, for words without bound: symbols are a linked list, candidate pairs a binary heap of (rank, position). A
    /// candidate whose pair has since changed is recognised by its rank and dropped when it comes up.
    /// </summary>
    private static int MergeLong(Span<int> symbols, MergeTable merges)
    {
        int count = symbols.Length;
        int[] rented = ArrayPool<int>.Shared.Rent(3 * count);
        Span<int> ranks = rented.AsSpan(0, count), next = rented.AsSpan(count, count), previous = rented.AsSpan(2 * count, count);
        var heap = new CandidateHeap(count);
        for (int i = 0; i < count; i++)
        {
            next[i] = i + 1;
            previous[i] = i - 1;
            ranks[i] = i + 1 < count ? merges.Rank(symbols[i], symbols[i + 1]) : MergeTable.NoRank;
            heap.Push(ranks[i], i);
        }
        while (heap.TryPop(out int rank, out int position))
        {
            if (ranks[position] != rank)
                continue;
            int right = next[position], after = next[right];
            symbols[position] = merges.Joined(symbols[position], symbols[right]);
            ranks[right] = MergeTable.NoRank;
            next[position] = after;
            ranks[position] = after < count ? merges.Rank(symbols[position], symbols[after]) : MergeTable.NoRank;
            heap.Push(ranks[position], position);
            if (after < count)
                previous[after] = position;
            if (previous[position] is var before and >= 0)
            {
                ranks[before] = merges.Rank(symbols[before], symbols[position]);
                heap.Push(ranks[before], before);
            }
        }
        int kept = 0;
        for (int i = 0; i < count; i = next[i])
            symbols[kept++] = symbols[i];
        heap.Return();
        ArrayPool<int>.Shared.Return(rented);
        return kept;
    }

    /// <summary>A binary heap of candidates packed as rank·2³² + position, so that comparing them is comparing numbers.</summary>
    private struct CandidateHeap(int capacity)
    {
        private ulong[] items = ArrayPool<ulong>.Shared.Rent(Math.Max(capacity, 16));
        private int count;

        public void Push(int rank, int position)
        {
            if (rank == MergeTable.NoRank)
                return;
            if (count == items.Length)
                Grow();
            ulong item = (ulong)(uint)rank << 32 | (uint)position;
            int index = count++;
            while (index > 0 && items[(index - 1) / 2] > item)
            {
                items[index] = items[(index - 1) / 2];
                index = (index - 1) / 2;
            }
            items[index] = item;
        }

        public bool TryPop(out int rank, out int position)
        {
            rank = position = 0;
            if (count == 0)
                return false;
            rank = (int)(items[0] >> 32);
            position = (int)(uint)items[0];
            ulong last = items[--count];
            int index = 0;
            while (true)
            {
                int child = 2 * index + 1;
                if (child >= count)
                    break;
                if (child + 1 < count && items[child + 1] < items[child])
                    child++;
                if (items[child] >= last)
                    break;
                items[index] = items[child];
                index = child;
            }
            items[index] = last;
            return true;
        }

        public readonly void Return() => ArrayPool<ulong>.Shared.Return(items);

        private void Grow()
        {
            ulong[] larger = ArrayPool<ulong>.Shared.Rent(items.Length * 2);
            items.CopyTo(larger, 0);
            ArrayPool<ulong>.Shared.Return(items);
            items = larger;
        }
    }
}
