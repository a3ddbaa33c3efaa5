using System.Numerics.Tensors;
using System.Runtime.CompilerServices;
using Engine.Cpu.Kernels;
using Engine.Cpu.Matmul;

namespace Engine.Cpu;

/// <summary>
/// Runs chosen experts over rows. Rows are grouped by slot, so that a slot's weights are read once however many rows go to it, and every group is multiplied by
/// the kernels for its number of rows: one row streams the codes, a prompt's many unpack tiles of them. One run of the threads does it all: first linears of all
/// groups, activation, second linears, and the sum of each row in the order of its slots, so that a row's result does not depend on the rows beside it.
/// </summary>
internal sealed unsafe class ExpertRun : IDisposable
{
    private readonly ThreadTeam team;
    private readonly KernelTable kernels;
    private readonly MultiplyGroup into, down;

    // Per slot: how many rows go to it, then where the next of its entries goes.
    private int[] counts = [];
    private Group[] groups = [];
    private int groupCount;

    // Per entry, a row that goes to a slot, ordered by slot and row: the row; and per row and place in the selection: its entry, or −1.
    private readonly NativeList<int> entryRows = new();
    private readonly NativeList<int> entries = new();
    private NativeBuffer memory = new(0, "experts");
    private long now;

    public ExpertRun(ThreadTeam team, KernelTable kernels)
    {
        this.team = team;
        this.kernels = kernels;
        into = new MultiplyGroup(team);
        down = new MultiplyGroup(team);
    }

    /// <summary>Bytes of experts that were read so far: each step counts the slots that any of its rows goes to once.</summary>
    public long BytesRead { get; private set; }

    /// <summary>How many slots these were.</summary>
    public long SlotsRead { get; private set; }

    /// <summary>output[r] += Σ weight · slot(input[r]).</summary>
    /// <param name="experts">The slots.</param>
    /// <param name="input">[rows, hidden].</param>
    /// <param name="selection">Slots and weights of every row.</param>
    /// <param name="output">[rows, hidden]; does not overlap the input.</param>
    /// <param name="hidden">Width of a row.</param>
    public void Apply(CpuExperts experts, float* input, CpuSelection selection, float* output, int hidden)
    {
        GroupRows(experts, selection);
        if (groupCount == 0)
        {
            return;
        }
        Place(input, hidden);
        var work = new Work { Run = this, Selection = selection, Output = output, Hidden = hidden };
        team.Run(&Execute, Unsafe.AsPointer(ref work));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        into.Dispose();
        down.Dispose();
        entryRows.Dispose();
        entries.Dispose();
        memory.Dispose();
    }

    /// <summary>Histogram over the slots, and a stable permutation of the rows.</summary>
    private void GroupRows(CpuExperts experts, CpuSelection selection)
    {
        int slots = experts.Plan.Slots.Length, places = selection.Rows * selection.Most;
        if (counts.Length < slots)
        {
            counts = new int[slots];
            groups = new Group[slots];
        }
        Array.Clear(counts, 0, slots);
        for (int place = 0; place < places; place++)
        {
            if (selection.Slots[place] >= 0)
            {
                counts[selection.Slots[place]]++;
            }
        }
        now++;
        groupCount = 0;
        int total = 0;
        for (int slot = 0; slot < slots; slot++)
        {
            int rows = counts[slot];
            counts[slot] = -1;
            if (rows > 0 && experts.Require(slot, now) is { } expert)
            {
                groups[groupCount++] = new Group { Expert = expert, First = total, Rows = rows };
                BytesRead += expert.Bytes;
                SlotsRead++;
                counts[slot] = total;
                total += rows;
            }
        }
        entryRows.Resize(total);
        entries.Resize(places);
        for (int place = 0; place < places; place++)
        {
            int slot = selection.Slots[place];
            int entry = slot < 0 || counts[slot] < 0 ? -1 : counts[slot]++;
            entries.Address[place] = entry;
            if (entry >= 0)
            {
                entryRows.Address[entry] = place / selection.Most;
            }
        }
    }

    /// <summary>Says where everything between input and output goes.</summary>
    private void Place(float* input, int hidden)
    {
        long floats = (long)entryRows.Count * hidden;
        foreach (ref readonly Group group in groups.AsSpan(0, groupCount))
        {
            floats += group.Rows * ((long)group.Expert.Plan.In.Outputs + group.Expert.Plan.Width);
        }
        if (floats * sizeof(float) > memory.Bytes)
        {
            memory.Dispose();
            memory = new NativeBuffer(floats * sizeof(float), "experts");
        }
        into.Clear();
        down.Clear();
        float* results = (float*)memory.Address, free = results + (long)entryRows.Count * hidden;
        foreach (ref Group group in groups.AsSpan(0, groupCount))
        {
            CpuExpert expert = group.Expert;
            group.Activation = new ActivationWork
            {
                Input = free,
                Output = free + group.Rows * (long)expert.Plan.In.Outputs,
                Rows = group.Rows,
                Width = expert.Plan.Width,
                Limit = expert.Plan.Clamp.Limit,
                Alpha = expert.Plan.Clamp.Alpha,
            };
            free = group.Activation.Output + group.Rows * (long)expert.Plan.Width;
            into.Add(expert.In, input, entryRows.Address + group.First, group.Rows, group.Activation.Input);
            down.Add(expert.Down, group.Activation.Output, null, group.Rows, results + group.First * (long)hidden);
        }
        into.Place();
        down.Place();
    }

    private static void Execute(void* state, int thread, int threads)
    {
        ref Work work = ref Unsafe.AsRef<Work>(state);
        work.Run.Execute(work, thread, threads);
    }

    private void Execute(in Work work, int thread, int threads)
    {
        into.Run(thread, threads);
        team.Barrier(thread);
        foreach (ref Group group in groups.AsSpan(0, groupCount))
        {
            kernels.Activate(group.Expert.Plan.Activation)(Unsafe.AsPointer(ref group.Activation), thread, threads);
        }
        team.Barrier(thread);
        down.Run(thread, threads);
        team.Barrier(thread);
        Sum(work, thread, threads);
    }

    /// <summary>A thread's share of the columns of every row's sum.</summary>
    private void Sum(in Work work, int thread, int threads)
    {
        CpuSelection selection = work.Selection;
        (long first, long end) = Share.Of((work.Hidden + 15) / 16, thread, threads);
        int from = (int)(first * 16), count = (int)Math.Min(end * 16, work.Hidden) - from;
        float* results = (float*)memory.Address + from;
        for (int row = 0; row < selection.Rows && count > 0; row++)
        {
            var sum = new Span<float>(work.Output + row * (long)work.Hidden + from, count);
            for (int place = row * selection.Most; place < (row + 1) * selection.Most; place++)
            {
                if (entries.Address[place] >= 0)
                {
                    var result = new ReadOnlySpan<float>(results + entries.Address[place] * (long)work.Hidden, count);
                    TensorPrimitives.FusedMultiplyAdd(result, selection.Weights[place], sum, sum);
                }
            }
        }
    }

    /// <summary>The rows of one slot.</summary>
    private struct Group
    {
        public CpuExpert Expert;
        public int First, Rows;
        public ActivationWork Activation;
    }

    private struct Work
    {
        public ExpertRun Run;
        public CpuSelection Selection;
        public float* Output;
        public int Hidden;
    }
}
