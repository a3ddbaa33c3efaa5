namespace Engine.Execution;

/// <summary>One token of one track: the unit of work of a forward pass. There is no batch dimension and no padding.</summary>
/// <param name="Track">Index into <see cref="StepPlan.Tracks"/>.</param>
/// <param name="Position">Position in the sequence, from 0; rotates q and k.</param>
/// <param name="Token">Token id.</param>
public readonly record struct Row(int Track, int Position, int Token);

/// <summary>
/// One stream of one sequence: what owns keys and values. Its rows in a step are contiguous and in position order.
/// Plain models have one stream; ParScale has P, in tracks that follow one another with the same positions and tokens.
/// </summary>
/// <param name="Sequence">The sequence's identity, for tracing.</param>
/// <param name="Stream">0 … P − 1.</param>
/// <param name="FirstRow">First row of the track in this step.</param>
/// <param name="RowCount">Rows of the track in this step; 0 where all its rows entered in earlier steps and are still inside a recursion.</param>
/// <param name="StreamSet">Index into <see cref="Plans.StreamsPlan.Sets"/>; 0 for plain models.</param>
public readonly record struct Track(int Sequence, int Stream, int FirstRow, int RowCount, int StreamSet = 0);

/// <summary>What a track has in one KV slot.</summary>
/// <param name="FirstPage">Index into <see cref="StepPlan.Pages"/> of the track's page table for the slot.</param>
/// <param name="PageCount">Entries of that page table; enough for <paramref name="Length"/> plus the rows that this step may append.</param>
/// <param name="Length">Tokens in the slot before this step.</param>
public readonly record struct KvView(int FirstPage, int PageCount, int Length);

/// <summary>
/// A forward pass as plain data: which rows enter, where keys and values of their tracks lie, and whose logits are wanted. The scheduler builds it, the
/// executor runs it and notes what it appended, a backend reads it. Reused between steps; nothing is allocated once its buffers have grown.
/// </summary>
public sealed class StepPlan
{
    private readonly int slotCount;
    private Row[] rows = new Row[16];
    private Track[] tracks = new Track[4];
    private KvView[] views = new KvView[16];
    private int[] appended = new int[16];
    private int[] pages = new int[64];
    private int[] logitRows = new int[4];
    private int rowCount, trackCount, pageCount, logitCount;

    /// <summary>Creates an empty plan for a model with this many KV slots.</summary>
    public StepPlan(int slotCount) => this.slotCount = slotCount;

    /// <summary>KV slots per track.</summary>
    public int SlotCount => slotCount;

    /// <summary>All rows, grouped by track.</summary>
    public ReadOnlySpan<Row> Rows => rows.AsSpan(0, rowCount);

    /// <summary>All tracks.</summary>
    public ReadOnlySpan<Track> Tracks => tracks.AsSpan(0, trackCount);

    /// <summary>Page tables of all tracks and slots, one after another; entries are page numbers in the pool.</summary>
    public ReadOnlySpan<int> Pages => pages.AsSpan(0, pageCount);

    /// <summary>Indices of the rows whose logits are wanted, ascending.</summary>
    public ReadOnlySpan<int> LogitRows => logitRows.AsSpan(0, logitCount);

    /// <summary>What a track has in a slot.</summary>
    public KvView View(int track, int slot) => views[track * slotCount + slot];

    /// <summary>Rows that the step has appended so far to a slot of a track: the outcome that only the executor knows.</summary>
    public int Appended(int track, int slot) => appended[track * slotCount + slot];

    /// <summary>Records that rows were appended to a slot of a track.</summary>
    public void CountAppended(int track, int slot, int count) => appended[track * slotCount + slot] += count;

    /// <summary>Empties the plan.</summary>
    public void Clear() => rowCount = trackCount = pageCount = logitCount = 0;

    /// <summary>Starts a track; its slots and rows follow.</summary>
    public int AddTrack(int sequence, int stream, int streamSet = 0)
    {
        Grow(ref tracks, trackCount + 1);
        Grow(ref views, (trackCount + 1) * slotCount);
        Grow(ref appended, (trackCount + 1) * slotCount);
        Array.Clear(appended, trackCount * slotCount, slotCount);
        tracks[trackCount] = new Track(sequence, stream, rowCount, 0, streamSet);
        return trackCount++;
    }

    /// <summary>Gives the newest track its page table and length in a slot.</summary>
    public void SetSlot(int slot, ReadOnlySpan<int> pageTable, int length)
    {
        Grow(ref pages, pageCount + pageTable.Length);
        pageTable.CopyTo(pages.AsSpan(pageCount));
        views[(trackCount - 1) * slotCount + slot] = new KvView(pageCount, pageTable.Length, length);
        pageCount += pageTable.Length;
    }

    /// <summary>Appends a row to the newest track.</summary>
    public void AddRow(int position, int token, bool logits)
    {
        Grow(ref rows, rowCount + 1);
        if (logits)
        {
            Grow(ref logitRows, logitCount + 1);
            logitRows[logitCount++] = rowCount;
        }
        rows[rowCount++] = new Row(trackCount - 1, position, token);
        Track track = tracks[trackCount - 1];
        tracks[trackCount - 1] = track with { RowCount = track.RowCount + 1 };
    }

    private static void Grow<T>(ref T[] array, int needed)
    {
        if (needed > array.Length)
        {
            Array.Resize(ref array, Math.Max(needed, array.Length * 2));
        }
    }
}
