using Engine.Execution;

namespace Engine.Cpu;

/// <summary>A row of a step as kernels read it.</summary>
/// <param name="Track">Index of its track.</param>
/// <param name="IndexInTrack">0 for the track's first row in this step.</param>
/// <param name="Position">Position in the sequence.</param>
/// <param name="Token">Token id.</param>
internal readonly record struct StepRow(int Track, int IndexInTrack, int Position, int Token);

/// <summary>
/// The step that is running, checked and copied to native memory once, so that operations need neither check pages again nor pin arrays.
/// </summary>
internal sealed unsafe class CpuStep : IDisposable
{
    public NativeList<StepRow> Rows { get; } = new();

    public NativeList<Track> Tracks { get; } = new();

    /// <summary>[slots, tracks].</summary>
    public NativeList<KvView> Views { get; } = new();

    public NativeList<int> Pages { get; } = new();

    /// <summary>The pool, or null between steps.</summary>
    public CpuKv? Kv { get; private set; }

    /// <summary>One past the largest position of any row.</summary>
    public int PositionCount { get; private set; }

    /// <summary>Takes over a step.</summary>
    /// <exception cref="EngineException">A row, a page table or a length is impossible.</exception>
    public void Begin(StepPlan plan, CpuKv kv)
    {
        End();
        if (plan.SlotCount != kv.SlotCount)
        {
            throw new EngineException($"the step has {plan.SlotCount} KV slots, the cache {kv.SlotCount}");
        }
        Pages.Resize(plan.Pages.Length);
        plan.Pages.CopyTo(new Span<int>(Pages.Address, Pages.Count));
        foreach (int page in plan.Pages)
        {
            if ((uint)page >= (uint)kv.PageCount)
            {
                throw new EngineException($"a page table names page {page}; the pool has {kv.PageCount}");
            }
        }

        Tracks.Resize(plan.Tracks.Length);
        plan.Tracks.CopyTo(new Span<Track>(Tracks.Address, Tracks.Count));
        Views.Resize(checked(plan.SlotCount * plan.Tracks.Length));
        Rows.Clear();
        PositionCount = 0;
        for (int track = 0; track < plan.Tracks.Length; track++)
        {
            AddTrack(plan, track, kv.PageTokens);
        }
        if (Rows.Count != plan.Rows.Length)
        {
            throw new EngineException($"the tracks have {Rows.Count} rows, the step has {plan.Rows.Length}");
        }
        Kv = kv;
    }

    public void End() => Kv = null;

    public void Dispose()
    {
        Rows.Dispose();
        Tracks.Dispose();
        Views.Dispose();
        Pages.Dispose();
    }

    private void AddTrack(StepPlan plan, int track, int pageTokens)
    {
        Track shape = plan.Tracks[track];
        if (shape.FirstRow != Rows.Count || shape.RowCount > plan.Rows.Length - shape.FirstRow)
        {
            throw new EngineException($"track {track} has rows {shape.FirstRow} … +{shape.RowCount}; {Rows.Count} of {plan.Rows.Length} are taken");
        }
        for (int slot = 0; slot < plan.SlotCount; slot++)
        {
            KvView view = plan.View(track, slot);
            if (view.Length < 0 || view.FirstPage < 0 || view.PageCount < 0 || (long)view.FirstPage + view.PageCount > plan.Pages.Length
                || (long)view.Length + shape.RowCount > (long)view.PageCount * pageTokens)
            {
                throw new EngineException(
                    $"{view.Length} + {shape.RowCount} tokens do not fit {view.PageCount} pages of {pageTokens}", item: $"track {track}, slot {slot}");
            }
            Views.Address[slot * plan.Tracks.Length + track] = view;
        }
        for (int index = 0; index < shape.RowCount; index++)
        {
            Row row = plan.Rows[shape.FirstRow + index];
            if (row.Position < 0 || row.Track != track)
            {
                throw new EngineException($"row {shape.FirstRow + index} has position {row.Position} and track {row.Track}", item: $"track {track}");
            }
            Rows.Add(new StepRow(track, index, row.Position, row.Token));
            PositionCount = Math.Max(PositionCount, checked(row.Position + 1));
        }
    }
}
