using System.Runtime.CompilerServices;
using Engine.Checkpoints;
using Engine.Cpu.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>Mixtures of experts.</summary>
internal sealed unsafe partial class CpuBackend
{
    /// <summary>Rows times experts whose choice is worth a second thread.</summary>
    private const long SerialChoices = 1024;

    private readonly ExpertMemory expertMemory;
    private readonly ExpertRun experts;

    /// <inheritdoc/>
    public ExpertTraffic ExpertTraffic => new(experts.SlotsRead, experts.BytesRead);

    /// <inheritdoc/>
    public DeviceWeights LoadExperts(ExpertsPlan plan, Checkpoint checkpoint)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        var loaded = new CpuExperts(plan, checkpoint, expertMemory, Pack);
        try
        {
            if (!expertMemory.IsBounded)
            {
                loaded.RequireAll();
            }
            return loaded;
        }
        catch
        {
            loaded.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public ExpertSelection AllocateSelection(int capacity, int most) => new CpuSelection(capacity, most);

    /// <inheritdoc/>
    public void Recur(RecurrentCell cell, Activations input, Activations hidden, Activations state)
    {
        if (!kernels.Has(cell))
        {
            throw new EngineException($"unknown recurrent cell {cell}");
        }
        int rows = state.Rows;
        long gates = (long)cell.Gates() * state.Width;
        var work = new RecurrenceWork
        {
            Input = Rows(input, gates, rows),
            Hidden = Rows(hidden, gates, rows),
            State = Rows(state, state.Width, rows),
            Rows = rows,
            Width = state.Width,
        };
        Run(kernels.Recur(cell), &work, (long)rows * state.Width > SerialExponentials);
    }

    /// <inheritdoc/>
    public void SelectExperts(ExpertsPlan plan, Activations logits, int perToken, ExpertSelection selection)
    {
        CpuSelection chosen = Mine<CpuSelection>(selection);
        int rows = step.Rows.Count;
        float* z = Rows(logits, plan.Router.Outputs, rows);
        if (rows > chosen.Capacity || perToken < 1 || perToken + plan.Shared.Length > chosen.Most)
        {
            throw new EngineException($"{perToken} experts for {rows} rows do not fit a selection [{chosen.Capacity}, {chosen.Most}]");
        }
        chosen.Rows = rows;
        var work = new SelectionWork { Plan = plan, Rows = step.Rows.Address, Logits = z, Width = logits.Width, PerToken = perToken, Selection = chosen };
        Run(&SelectRows, Unsafe.AsPointer(ref work), rows * (long)plan.Router.Experts > SerialChoices);
    }

    /// <inheritdoc/>
    public void ApplyExperts(DeviceWeights experts, Activations input, ExpertSelection selection, Activations output)
    {
        CpuExperts weights = Mine<CpuExperts>(experts);
        CpuSelection chosen = Mine<CpuSelection>(selection);
        float* x = Rows(input, output.Width, chosen.Rows), y = Rows(output, input.Width, chosen.Rows);
        this.experts.Apply(weights, x, chosen, y, input.Width);
    }

    /// <inheritdoc/>
    public void ReadSelection(ExpertSelection selection, Span<int> slots, Span<float> weights)
    {
        CpuSelection chosen = Mine<CpuSelection>(selection);
        int count = chosen.Rows * chosen.Most;
        new ReadOnlySpan<int>(chosen.Slots, count).CopyTo(slots);
        new ReadOnlySpan<float>(chosen.Weights, count).CopyTo(weights);
        GC.KeepAlive(chosen);
    }

    private static void SelectRows(void* state, int thread, int threads)
    {
        ref SelectionWork work = ref Unsafe.AsRef<SelectionWork>(state);
        CpuSelection chosen = work.Selection;
        (long first, long end) = Share.Of(chosen.Rows, thread, threads);
        for (long row = first; row < end; row++)
        {
            var slots = new Span<int>(chosen.Slots + row * chosen.Most, chosen.Most);
            var weights = new Span<float>(chosen.Weights + row * chosen.Most, chosen.Most);
            var logits = new Span<float>(work.Logits + row * work.Width, work.Width);
            var token = new Row(0, work.Rows[row].Position, work.Rows[row].Token);
            int count = ExpertRouting.Select(work.Plan, logits, work.PerToken, ExpertRouting.Seed(work.Plan.Router, token), slots, weights);
            slots[count..].Fill(-1);
            weights[count..].Clear();
        }
    }

    private struct SelectionWork
    {
        public ExpertsPlan Plan;
        public StepRow* Rows;
        public float* Logits;
        public int Width, PerToken;
        public CpuSelection Selection;
    }
}
