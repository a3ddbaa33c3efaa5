using Engine.Execution;

namespace Engine.Cpu;

/// <summary>A selected row as kernels read it.</summary>
/// <param name="Run">Index of its run.</param>
/// <param name="Position">Position in the sequence.</param>
/// <param name="Token">Token id.</param>
internal readonly record struct StepRow(int Run, int Position, int Token);

/// <summary>
/// The step that is running and the rows selected of it, checked and copied to native memory, so that operations need neither check pages again nor pin
/// arrays.
/// </summary>
internal sealed unsafe class CpuStep : IDisposable
{
    private readonly NativeList<int> pages = new();
    private readonly NativeList<KvView> views = new();
    private readonly NativeList<int> indices = new();
    private StepPlan? plan;

    /// <summary>The selected rows.</summary>
    public NativeList<StepRow> Rows { get; } = new();

    /// <summary>Their runs.</summary>
    public NativeList<RowRun> Runs { get; } = new();

    /// <summary>All page tables of the step.</summary>
    public int* Pages => pages.Address;

    /// <summary>Of the slot located last, per run; see <see cref="Locate"/>.</summary>
    public KvView* Views => views.Address;

    /// <summary>Of the slot located last, per row: its own token's index there, which is the last that it sees.</summary>
    public int* Indices => indices.Address;

    /// <summary>The pool, or null between steps.</summary>
    public CpuKv? Kv { get; private set; }

    /// <summary>The tracks of the step.</summary>
    public ReadOnlySpan<Track> Tracks => Plan.Tracks;

    /// <summary>One past the largest position of any selected row.</summary>
    public int PositionCount { get; private set; }

    private StepPlan Plan => plan ?? throw new EngineException("no step has begun");

    /// <summary>Takes over a step.</summary>
    /// <exception cref="EngineException">A page table is impossible.</exception>
    public void Begin(StepPlan step, CpuKv kv)
    {
        End();
        if (step.SlotCount != kv.SlotCount)
        {
            throw new EngineException($"the step has {step.SlotCount} KV slots, the cache {kv.SlotCount}");
        }
        pages.Resize(step.Pages.Length);
        step.Pages.CopyTo(new Span<int>(pages.Address, pages.Count));
        foreach (int page in step.Pages)
        {
            if ((uint)page >= (uint)kv.PageCount)
            {
                throw new EngineException($"a page table names page {page}; the pool has {kv.PageCount}");
            }
        }
        for (int track = 0; track < step.Tracks.Length; track++)
        {
            for (int slot = 0; slot < step.SlotCount; slot++)
            {
                KvView view = step.View(track, slot);
                if (view.Length < 0 || view.FirstPage < 0 || view.PageCount < 0 || (long)view.FirstPage + view.PageCount > step.Pages.Length
                    || view.Length > (long)view.PageCount * kv.PageTokens)
                {
                    throw new EngineException($"{view.Length} tokens do not fit {view.PageCount} pages of {kv.PageTokens}",
                        item: $"track {track}, slot {slot}");
                }
            }
        }
        (plan, Kv) = (step, kv);
    }

    /// <summary>Takes over the rows to work on.</summary>
    /// <exception cref="EngineException">A run or a row is impossible.</exception>
    public void Select(RowSet rows)
    {
        Runs.Resize(rows.Runs.Length);
        rows.Runs.CopyTo(new Span<RowRun>(Runs.Address, Runs.Count));
        Rows.Clear();
        PositionCount = 0;
        for (int r = 0; r < rows.Runs.Length; r++)
        {
            RowRun run = rows.Runs[r];
            if (run.FirstRow != Rows.Count || run.RowCount > rows.Rows.Length - run.FirstRow || (uint)run.Track >= (uint)Plan.Tracks.Length)
            {
                throw new EngineException(
                    $"run {r} has rows {run.FirstRow} … +{run.RowCount} of track {run.Track}; {Rows.Count} of {rows.Rows.Length} are taken");
            }
            int before = -1;
            foreach (Row row in rows.Rows.Slice(run.FirstRow, run.RowCount))
            {
                if (row.Position <= before || row.Track != run.Track)
                {
                    throw new EngineException($"row {Rows.Count} has position {row.Position} and track {row.Track}", item: $"track {run.Track}");
                }
                before = row.Position;
                Rows.Add(new StepRow(r, row.Position, row.Token));
                PositionCount = Math.Max(PositionCount, checked(row.Position + 1));
            }
        }
        if (Rows.Count != rows.Rows.Length)
        {
            throw new EngineException($"the runs have {Rows.Count} rows, the set has {rows.Rows.Length}");
        }
    }

    /// <summary>Finds where every selected row is, or will be, in a slot that is shifted by its run: fills <see cref="Views"/> and <see cref="Indices"/>.</summary>
    /// <exception cref="EngineException">There is no such slot, or its pages do not hold the rows.</exception>
    public void Locate(int slot)
    {
        int pageTokens = Kv!.PageTokens;
        views.Resize(Runs.Count);
        indices.Resize(Rows.Count);
        for (int r = 0; r < Runs.Count; r++)
        {
            RowRun run = Runs.Address[r];
            int shifted = slot + run.SlotShift;
            if ((uint)shifted >= (uint)Plan.SlotCount)
            {
                throw new EngineException($"slot {slot} shifted by {run.SlotShift} is none of {Plan.SlotCount}", item: $"track {run.Track}");
            }
            KvView view = Plan.View(run.Track, shifted);
            int length = view.Length + Plan.Appended(run.Track, shifted);
            views.Address[r] = view;
            long last = -1;
            for (int i = 0; i < run.RowCount; i++)
            {
                last = run.WritesKv ? (long)length + i : Rows.Address[run.FirstRow + i].Position;
                indices.Address[run.FirstRow + i] = (int)last;
            }
            if (last >= (run.WritesKv ? (long)view.PageCount * pageTokens : length))
            {
                throw new EngineException(
                    $"token {last} is not among {length} in {view.PageCount} pages of {pageTokens}", item: $"track {run.Track}, slot {shifted}");
            }
        }
    }

    public void End()
    {
        plan = null;
        Kv = null;
        Runs.Clear();
        Rows.Clear();
    }

    public void Dispose()
    {
        Rows.Dispose();
        Runs.Dispose();
        views.Dispose();
        indices.Dispose();
        pages.Dispose();
    }
}
