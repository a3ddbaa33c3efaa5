using Engine.Checkpoints;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>Which slots rows go to, in host memory: [capacity, most] each, −1 past a row's last slot.</summary>
internal sealed unsafe class CpuSelection(int capacity, int most) : ExpertSelection(capacity, most)
{
    private readonly NativeBuffer memory = new((long)capacity * most * (sizeof(int) + sizeof(float)), "choices of experts");

    /// <summary>Slots.</summary>
    public int* Slots => (int*)memory.Address;

    /// <summary>What each counts.</summary>
    public float* Weights => (float*)(Slots + (long)Capacity * Most);

    public override void Dispose() => memory.Dispose();
}

/// <summary>
/// The slots of a mixture of experts. A slot is packed when a token first goes to it, so that experts which no token visits are never read; where the memory
/// for experts is bounded, those that were not used for longest are let go.
/// </summary>
internal sealed class CpuExperts : DeviceWeights
{
    private readonly Checkpoint checkpoint;
    private readonly ExpertMemory memory;
    private readonly Func<LinearPlan, Checkpoint, PackedLinear> pack;
    private readonly CpuExpert?[] slots;

    public CpuExperts(ExpertsPlan plan, Checkpoint checkpoint, ExpertMemory memory, Func<LinearPlan, Checkpoint, PackedLinear> pack)
    {
        Plan = plan;
        this.checkpoint = checkpoint;
        this.memory = memory;
        this.pack = pack;
        slots = new CpuExpert?[plan.Slots.Length];
    }

    /// <summary>Router, map and shapes.</summary>
    public ExpertsPlan Plan { get; }

    /// <summary>Bytes of the slots that are packed.</summary>
    public override long Bytes => slots.Sum(static slot => slot?.Bytes ?? 0);

    /// <summary>The weights of a slot, packed if they were not; null where its width is 0 and it contributes nothing.</summary>
    /// <param name="slot">0 … slots − 1.</param>
    /// <param name="now">Counts up from step to step; what was used in the newest step is not let go.</param>
    /// <exception cref="EngineException">A tensor is missing, does not fit, or holds a scale that is not finite.</exception>
    public CpuExpert? Require(int slot, long now)
    {
        FeedForwardPlan plan = Plan.Slots[slot];
        if (plan.Width == 0)
        {
            return null;
        }
        CpuExpert expert = slots[slot] ?? Load(slot, now);
        expert.LastUse = now;
        return expert;
    }

    /// <summary>Packs all slots.</summary>
    public void RequireAll()
    {
        for (int slot = 0; slot < slots.Length; slot++)
        {
            Require(slot, 0);
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        foreach (CpuExpert expert in slots.OfType<CpuExpert>())
        {
            memory.Remove(expert);
            expert.Dispose();
        }
        Array.Clear(slots);
    }

    // A method of its own: the closure would be allocated wherever it could be needed.
    private CpuExpert Load(int slot, long now)
    {
        FeedForwardPlan plan = Plan.Slots[slot];
        PackedLinear into = pack(plan.In, checkpoint);
        CpuExpert expert;
        try
        {
            expert = new CpuExpert(plan, into, pack(plan.Down, checkpoint));
        }
        catch
        {
            into.Dispose();
            throw;
        }
        slots[slot] = expert;
        memory.Add(expert, () => slots[slot] = null, now);
        return expert;
    }
}

/// <summary>A packed feed-forward.</summary>
internal sealed class CpuExpert(FeedForwardPlan plan, PackedLinear into, PackedLinear down) : IDisposable
{
    public FeedForwardPlan Plan => plan;

    /// <summary>hidden → [gate | up].</summary>
    public PackedLinear In => into;

    /// <summary>width → hidden.</summary>
    public PackedLinear Down => down;

    public long Bytes { get; } = into.Bytes + down.Bytes;

    /// <summary>The step that used it last.</summary>
    public long LastUse { get; set; }

    public void Dispose()
    {
        into.Dispose();
        down.Dispose();
    }
}

/// <summary>What the packed experts of a model may take together.</summary>
/// <param name="limit">Bytes; null for no bound. One step's experts may exceed it.</param>
internal sealed class ExpertMemory(long? limit)
{
    private readonly List<(CpuExpert Expert, Action Forget)> resident = [];

    /// <summary>Experts are packed when they are needed, not before.</summary>
    public bool IsBounded => limit is not null;

    /// <summary>Bytes of packed experts.</summary>
    public long Bytes { get; private set; }

    /// <summary>Gives back the room of an expert that its mixture lets go itself.</summary>
    public void Remove(CpuExpert expert)
    {
        int at = resident.FindIndex(entry => ReferenceEquals(entry.Expert, expert));
        resident.RemoveAt(at);
        Bytes -= expert.Bytes;
    }

    /// <summary>Notes an expert, and lets others go until all fit.</summary>
    public void Add(CpuExpert expert, Action forget, long now)
    {
        resident.Add((expert, forget));
        Bytes += expert.Bytes;
        while (Bytes > limit)
        {
            int oldest = -1;
            for (int i = 0; i < resident.Count - 1; i++)
            {
                long use = resident[i].Expert.LastUse;
                oldest = use < now && (oldest < 0 || use < resident[oldest].Expert.LastUse) ? i : oldest;
            }
            if (oldest < 0)
            {
                return;
            }
            (CpuExpert let, Action forgetIt) = resident[oldest];
            resident.RemoveAt(oldest);
            Bytes -= let.Bytes;
            forgetIt();
            let.Dispose();
        }
    }
}
