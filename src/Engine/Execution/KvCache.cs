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
    private readonly KvSlotPlan[] slots;
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
        this.slots = [.. slots];
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
    public int SlotCount => slots.Length;

    /// <summary>Tokens per page.</summary>
    public int PageTokens { get; }

    /// <summary>Pages in all.</summary>
    public int PageCount { get; }

    /// <summary>Pages nobody holds.</summary>
    public int FreePages => freeCount;

    /// <summary>Pages that a sequence of this many tokens and streams holds over all slots, if every token reaches every slot.</summary>
    public long PagesFor(int tokens, int streams = 1)
    {
        int shared = slots.Count(static slot => slot.SharedByStreams);
        return (shared + (long)(SlotCount - shared) * streams) * PagesForSlot(tokens);
    }

    /// <summary>Empty tracks for the streams of a sequence.</summary>
    public KvTrack[] NewTracks(int streams)
    {
        var tracks = new KvTrack[streams];
        for (int stream = 0; stream < streams; stream++)
        {
            tracks[stream] = new KvTrack(SlotCount, stream == 0 ? null : tracks[0]);
        }
        return tracks;
    }

    /// <summary>Makes sure that a track has room for more tokens in every slot: all of it, or nothing and false.</summary>
    public bool TryReserve(KvTrack track, int tokens) => TryReserve(new ReadOnlySpan<KvTrack>(in track), tokens);

    /// <summary>Makes sure that the tracks of a sequence have room for more tokens in every slot: all of it, or nothing and false.</summary>
    public bool TryReserve(ReadOnlySpan<KvTrack> tracks, int tokens)
    {
        long needed = 0;
        foreach (KvTrack track in tracks)
        {
            for (int slot = 0; slot < SlotCount; slot++)
            {
                needed += Math.Max(0, Missing(track, slot, tokens));
            }
        }
        if (needed > freeCount)
        {
            return false;
        }
        foreach (KvTrack track in tracks)
        {
            for (int slot = 0; slot < SlotCount; slot++)
            {
                for (int missing = Missing(track, slot, tokens); missing > 0; missing--)
                {
                    int page = free[--freeCount];
                    references[page] = 1;
                    track.AddPage(slot, page);
                }
            }
        }
        return true;
    }

    /// <summary>Gives back the pages that a track reserved and did not fill: tokens that left early never reached them.</summary>
    public void Trim(KvTrack track)
    {
        for (int slot = 0; slot < SlotCount; slot++)
        {
            int needed = PagesForSlot(track.Length(slot));
            foreach (int page in track.Pages(slot)[Math.Min(needed, track.Pages(slot).Length)..])
            {
                Free(page);
            }
            track.Truncate(slot, needed);
        }
    }

    /// <summary>Gives an empty track the first <paramref name="tokens"/> tokens of another, without copying: whole pages only.</summary>
    /// <returns>The tokens shared: <paramref name="tokens"/> rounded down to whole pages.</returns>
    public int SharePrefix(KvTrack source, KvTrack target, int tokens)
    {
        int pages = tokens / PageTokens;
        for (int slot = 0; slot < SlotCount; slot++)
        {
            if (Holds(source, slot) && source.Length(slot) < pages * PageTokens)
            {
                throw new ArgumentOutOfRangeException(nameof(tokens), tokens, "the source holds fewer tokens");
            }
        }
        for (int slot = 0; slot < SlotCount; slot++)
        {
            if (!Holds(source, slot))
            {
                continue;
            }
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
    /// <param name="rows">How many rows the step may append to a slot.</param>
    /// <param name="sequence">The sequence's identity.</param>
    /// <param name="stream">The stream.</param>
    /// <param name="streamSet">The set of streams.</param>
    public void AddTrack(StepPlan plan, KvTrack track, int rows, int sequence, int stream = 0, int streamSet = 0)
    {
        plan.AddTrack(sequence, stream, streamSet);
        for (int slot = 0; slot < SlotCount; slot++)
        {
            KvTrack owner = slots[slot].SharedByStreams ? track.Leader ?? track : track;
            int length = owner.Length(slot);
            ReadOnlySpan<int> pages = owner.Pages(slot);
            plan.SetSlot(slot, pages[..Math.Min(pages.Length, PagesForSlot(length + rows))], length);
        }
    }

    /// <summary>Records what a step appended to a track of its plan.</summary>
    public void Advance(KvTrack track, StepPlan plan, int trackInPlan)
    {
        for (int slot = 0; slot < SlotCount; slot++)
        {
            if (Holds(track, slot))
            {
                track.SetLength(slot, track.Length(slot) + plan.Appended(trackInPlan, slot));
            }
        }
    }

    /// <summary>Lets go of all pages of a track; it is empty afterwards and may be used again.</summary>
    public void Release(KvTrack track)
    {
        for (int slot = 0; slot < SlotCount; slot++)
        {
            foreach (int page in track.Pages(slot))
            {
                Free(page);
            }
        }
        track.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Storage.Dispose();

    /// <summary>The slot is the track's own: not one that the first stream holds for all.</summary>
    private bool Holds(KvTrack track, int slot) => track.Leader is null || !slots[slot].SharedByStreams;

    private int Missing(KvTrack track, int slot, int tokens) =>
        Holds(track, slot) ? PagesForSlot(track.Length(slot) + tokens) - track.Pages(slot).Length : 0;

    private void Free(int page)
    {
        if (--references[page] == 0)
        {
            free[freeCount++] = page;
        }
    }

    private int PagesForSlot(int tokens) => (tokens + PageTokens - 1) / PageTokens;
}

/// <summary>One track's page tables and lengths, per slot.</summary>
public sealed class KvTrack
{
    private readonly int[][] pages;
    private readonly int[] pageCounts;
    private readonly int[] lengths;

    /// <summary>An empty track for a model with this many slots.</summary>
    /// <param name="slotCount">Slots of the model.</param>
    /// <param name="leader">The first stream's track of the same sequence, or null where this is it.</param>
    public KvTrack(int slotCount, KvTrack? leader = null)
    {
        Leader = leader;
        pages = new int[slotCount][];
        Array.Fill(pages, []);
        pageCounts = new int[slotCount];
        lengths = new int[slotCount];
    }

    /// <summary>The track that holds what all streams of the sequence share, or null where this is it.</summary>
    public KvTrack? Leader { get; }

    /// <summary>Tokens held in a slot.</summary>
    public int Length(int slot) => lengths[slot];

    /// <summary>The page table of a slot.</summary>
    public ReadOnlySpan<int> Pages(int slot) => pages[slot].AsSpan(0, pageCounts[slot]);

    internal void AddPage(int slot, int page)
    {
        if (pageCounts[slot] == pages[slot].Length)
        {
            Array.Resize(ref pages[slot], Math.Max(8, pages[slot].Length * 2));
        }
        pages[slot][pageCounts[slot]++] = page;
    }

    internal void Truncate(int slot, int pageCount) => pageCounts[slot] = Math.Min(pageCounts[slot], pageCount);

    internal void SetLength(int slot, int length) => lengths[slot] = length;

    internal void Clear()
    {
        Array.Clear(pageCounts);
        Array.Clear(lengths);
    }
}
