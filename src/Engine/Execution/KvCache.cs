using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// The pool of KV pages of a device and who holds them. The numbers live here, the bytes in <see cref="KvStorage"/>.
/// <para>Invariants: a page is free or has at least one holder; a page is written by the only track that holds it, and a page with several
/// holders is full and read-only; a track's page table in a slot covers its length there; nothing is allocated after construction but growth
/// of page tables.</para>
/// Not safe for concurrent use.
/// </summary>
public sealed class KvCache : IDisposable
{
    private readonly int[] references;
    private readonly int[] free;
    private int freeCount;

    /// <summary>Makes a pool for a model's slots.</summary>
    /// <param name="backend">The device.</param>
    /// <param name="slots">The shape of every slot.</param>
    /// <param name="format">How keys and values are stored.</param>
    /// <param name="pageCount">Pages in all.</param>
    /// <param name="pageTokens">Tokens per page.</param>
    public KvCache(IBackend backend, IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(pageCount, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(pageTokens, 1);
        SlotCount = slots.Count;
        PageTokens = pageTokens;
        PageCount = pageCount;
        Storage = backend.AllocateKv(slots, format, pageCount, pageTokens);
        references = new int[pageCount];
        free = new int[pageCount];
        // Low pages are handed out first, so that a mostly idle pool touches little memory.
        for (int i = 0; i < pageCount; i++)
        {
            free[i] = pageCount - 1 - i;
        }
        freeCount = pageCount;
    }

    /// <summary>The pages' bytes.</summary>
    public KvStorage Storage { get; }

    /// <summary>KV slots of the model.</summary>
    public int SlotCount { get; }

    /// <summary>Tokens per page.</summary>
    public int PageTokens { get; }

    /// <summary>Pages in all.</summary>
    public int PageCount { get; }

    /// <summary>Pages nobody holds.</summary>
    public int FreePages => freeCount;

    /// <summary>Pages that a track of this many tokens holds over all slots.</summary>
    public long PagesFor(int tokens) => (long)SlotCount * ((tokens + PageTokens - 1) / PageTokens);

    /// <summary>Makes sure that a track has room for more tokens in every slot: all of it, or nothing and false.</summary>
    public bool TryReserve(KvTrack track, int tokens)
    {
        int needed = 0;
        for (int slot = 0; slot < SlotCount; slot++)
        {
            needed += Math.Max(0, PagesForSlot(track.Length(slot) + tokens) - track.Pages(slot).Length);
        }
        if (needed > freeCount)
        {
            return false;
        }
        for (int slot = 0; slot < SlotCount; slot++)
        {
            int missing = PagesForSlot(track.Length(slot) + tokens) - track.Pages(slot).Length;
            for (; missing > 0; missing--)
            {
                int page = free[--freeCount];
                references[page] = 1;
                track.AddPage(slot, page);
            }
        }
        return true;
    }

    /// <summary>Gives an empty track the first <paramref name="tokens"/> tokens of another, without copying: whole pages only.</summary>
    /// <returns>The tokens shared: <paramref name="tokens"/> rounded down to whole pages.</returns>
    public int SharePrefix(KvTrack source, KvTrack target, int tokens)
    {
        int pages = tokens / PageTokens;
        for (int slot = 0; slot < SlotCount; slot++)
        {
            if (source.Length(slot) < pages * PageTokens)
            {
                throw new ArgumentOutOfRangeException(nameof(tokens), tokens, "the source holds fewer tokens");
            }
        }
        for (int slot = 0; slot < SlotCount; slot++)
        {
            foreach (int page in source.Pages(slot)[..pages])
            {
                references[page]++;
                target.AddPage(slot, page);
            }
            target.SetLength(slot, pages * PageTokens);
        }
        return pages * PageTokens;
    }

    /// <summary>Starts a track in a step plan: its page tables, as far as the step needs them, and its lengths.</summary>
    /// <param name="plan">The plan; the track's rows are to be added next.</param>
    /// <param name="track">The track; room for the rows is already reserved.</param>
    /// <param name="rows">How many rows will be added.</param>
    /// <param name="sequence">The sequence's identity, for tracing.</param>
    /// <param name="stream">The stream.</param>
    public void AddTrack(StepPlan plan, KvTrack track, int rows, int sequence, int stream = 0)
    {
        plan.AddTrack(sequence, stream);
        for (int slot = 0; slot < SlotCount; slot++)
        {
            int length = track.Length(slot);
            plan.SetSlot(slot, track.Pages(slot)[..PagesForSlot(length + rows)], length);
        }
    }

    /// <summary>Lets go of all pages of a track; it is empty afterwards and may be used again.</summary>
    public void Release(KvTrack track)
    {
        for (int slot = 0; slot < SlotCount; slot++)
        {
            foreach (int page in track.Pages(slot))
            {
                if (--references[page] == 0)
                {
                    free[freeCount++] = page;
                }
            }
        }
        track.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Storage.Dispose();

    private int PagesForSlot(int tokens) => (tokens + PageTokens - 1) / PageTokens;
}

/// <summary>One track's page tables and lengths, per slot.</summary>
public sealed class KvTrack
{
    private readonly int[][] pages;
    private readonly int[] pageCounts;
    private readonly int[] lengths;

    /// <summary>An empty track for a model with this many slots.</summary>
    public KvTrack(int slotCount)
    {
        pages = new int[slotCount][];
        Array.Fill(pages, []);
        pageCounts = new int[slotCount];
        lengths = new int[slotCount];
    }

    /// <summary>Tokens held in a slot.</summary>
    public int Length(int slot) => lengths[slot];

    /// <summary>The page table of a slot.</summary>
    public ReadOnlySpan<int> Pages(int slot) => pages[slot].AsSpan(0, pageCounts[slot]);

    /// <summary>Records that a step has appended tokens to every slot.</summary>
    public void Advance(int tokens)
    {
        for (int slot = 0; slot < lengths.Length; slot++)
        {
            lengths[slot] += tokens;
        }
    }

    internal void AddPage(int slot, int page)
    {
        if (pageCounts[slot] == pages[slot].Length)
        {
            Array.Resize(ref pages[slot], Math.Max(8, pages[slot].Length * 2));
        }
        pages[slot][pageCounts[slot]++] = page;
    }

    internal void SetLength(int slot, int length) => lengths[slot] = length;

    internal void Clear()
    {
        Array.Clear(pageCounts);
        Array.Clear(lengths);
    }
}
