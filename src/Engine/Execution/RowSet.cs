namespace Engine.Execution;

/// <summary>Neighbouring rows of one track that are at the same depth.</summary>
/// <param name="Track">Index into <see cref="StepPlan.Tracks"/>.</param>
/// <param name="FirstRow">First row, in the set.</param>
/// <param name="RowCount">Rows, in position order.</param>
/// <param name="SlotShift">What is added to a step's KV slot for these rows: where the slots of their depth begin, counted from depth 0.</param>
/// <param name="WritesKv">
/// The rows append their keys and values and see the slot up to themselves. Otherwise the slot holds every token of the sequence already: the rows
/// only read, up to their own positions.
/// </param>
public readonly record struct RowRun(int Track, int FirstRow, int RowCount, int SlotShift, bool WritesKv);

/// <summary>
/// The rows that operations work on, as plain data: compacted, so that a row which left costs nothing. Row i of every activation buffer is row i of the
/// set. Reused; nothing is allocated once its buffers have grown.
/// </summary>
public sealed class RowSet
{
    private Row[] rows = new Row[16];
    private RowRun[] runs = new RowRun[4];
    private int rowCount, runCount;

    /// <summary>All rows, grouped by run.</summary>
    public ReadOnlySpan<Row> Rows => rows.AsSpan(0, rowCount);

    /// <summary>All runs. Two runs do not append to the same slot of a track.</summary>
    public ReadOnlySpan<RowRun> Runs => runs.AsSpan(0, runCount);

    /// <summary>Empties the set.</summary>
    public void Clear() => rowCount = runCount = 0;

    /// <summary>Starts a run; its rows follow.</summary>
    public void AddRun(int track, int slotShift = 0, bool writesKv = true)
    {
        if (runCount == runs.Length)
        {
            Array.Resize(ref runs, runCount * 2);
        }
        runs[runCount++] = new RowRun(track, rowCount, 0, slotShift, writesKv);
    }

    /// <summary>Appends a row to the newest run.</summary>
    public void AddRow(Row row)
    {
        if (rowCount == rows.Length)
        {
            Array.Resize(ref rows, rowCount * 2);
        }
        rows[rowCount++] = row;
        ref RowRun run = ref runs[runCount - 1];
        run = run with { RowCount = run.RowCount + 1 };
    }

    /// <summary>Lets all runs write, or none.</summary>
    /// <returns>True where that changed the set.</returns>
    public bool SetWritesKv(bool writes)
    {
        bool changed = false;
        foreach (ref RowRun run in runs.AsSpan(0, runCount))
        {
            changed |= run.WritesKv != writes;
            run = run with { WritesKv = writes };
        }
        return changed;
    }

    /// <summary>Fills the set with the rows that enter in a step: all of them, or those of first streams only.</summary>
    public void TakeEntering(StepPlan step, bool firstStreamsOnly = false)
    {
        Clear();
        for (int track = 0; track < step.Tracks.Length; track++)
        {
            Track shape = step.Tracks[track];
            if (shape.RowCount == 0 || (firstStreamsOnly && shape.Stream != 0))
            {
                continue;
            }
            AddRun(track);
            foreach (Row row in step.Rows.Slice(shape.FirstRow, shape.RowCount))
            {
                AddRow(row);
            }
        }
    }
}
