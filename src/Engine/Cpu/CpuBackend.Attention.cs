using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>The operations on queries, keys and values.</summary>
internal sealed unsafe partial class CpuBackend
{
    /// <summary>Multiply-adds below which one thread is faster than waking the team.</summary>
    private const long SerialProducts = 64 * 1024;

    private readonly AttentionBuffers attention = new();

    /// <inheritdoc/>
    public DeviceWeights LoadHeads(HeadLinearPlan plan, Checkpoint checkpoint)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        return new CpuHeads(plan, checkpoint, ForEach);
    }

    /// <inheritdoc/>
    public void MultiplyHeads(DeviceWeights heads, Activations input, Activations? tail, Activations output)
    {
        var weights = Mine<CpuHeads>(heads);
        HeadLinearPlan plan = weights.Plan;
        int tailWidth = tail?.Width ?? 0;
        var work = new HeadProductWork
        {
            Input = Rows(input, plan.InputWidth, input.Rows),
            Tail = tail is null ? null : Rows(tail, tailWidth, input.Rows),
            Output = Rows(output, (long)plan.OutputWidth + tailWidth, input.Rows),
            Weights = weights.Address,
            Rows = input.Rows,
            Heads = plan.Heads,
            Inputs = plan.Inputs,
            Outputs = plan.Outputs,
            Carried = plan.Carried,
            TailWidth = tailWidth,
            Panels = weights.Panels,
        };
        if (ReferenceEquals(input, output) || ReferenceEquals(tail, output))
        {
            throw new EngineException("linear maps of heads cannot write over their input");
        }
        Run(kernels.MultiplyHeads, &work, (long)work.Rows * work.Heads * work.Inputs * work.Outputs > SerialProducts);
    }

    /// <inheritdoc/>
    public void NormalizeHeads(AttentionPlan attention, DeviceWeights? queryNorm, DeviceWeights? keyNorm, Activations qkv)
    {
        float* rows = Qkv(attention, qkv, qkv.Rows);
        NormalizeHeads(queryNorm, rows, attention.Heads * attention.HeadDim, attention.QueryNormWidth, qkv);
        NormalizeHeads(keyNorm, rows + attention.Heads * attention.HeadDim, attention.KvHeads * attention.ValueDim, attention.KeyNormWidth, qkv);
        if (attention.ClipQkv is { } limit)
        {
            for (int i = 0; i < qkv.Rows; i++)
            {
                Span<float> row = Row(rows, i, qkv);
                TensorPrimitives.Clamp(row, -limit, limit, row);
            }
        }
    }

    /// <inheritdoc/>
    public void RotateAndAppend(AttentionPlan attention, DeviceWeights? rope, Activations qkv, int slot)
    {
        var work = new RotateWork
        {
            Qkv = Qkv(attention, qkv, step.Rows.Count),
            QkvWidth = qkv.Width,
            Heads = attention.Heads,
            RopeStart = attention.RopeStart,
            Kv = Access(attention, slot),
            Rows = step.Rows.Address,
            Runs = step.Runs.Address,
            RowCount = step.Rows.Count,
        };
        if (rope is not null)
        {
            var rotation = Mine<CpuRope>(rope);
            if (rotation.Dimensions > attention.HeadDim - attention.RopeStart)
            {
                throw new EngineException($"cannot rotate {rotation.Dimensions} elements of heads of {attention.HeadDim} from {attention.RopeStart} on");
            }
            work.Rope = rotation.Table(step.PositionCount);
        }
        Run(kernels.Rotate, &work, (long)work.RowCount * work.QkvWidth > SerialElements);
    }

    /// <inheritdoc/>
    public void Attend(AttentionPlan attention, Activations qkv, int slot, DeviceWeights? prefixes, Activations output)
    {
        float* rows = Qkv(attention, qkv, step.Rows.Count);
        int heads = attention.Heads / attention.KvHeads;
        int group = QueryGroups.Together(heads, (long)step.Rows.Count * attention.KvHeads, team.Threads);
        var work = new AttentionWork
        {
            Qkv = rows,
            QkvWidth = qkv.Width,
            Output = Rows(output, (long)attention.Heads * attention.ValueDim, step.Rows.Count),
            Heads = attention.Heads,
            Group = group,
            GroupsPerKvHead = heads / group,
            PaddedGroup = QueryGroups.Pad(group),
            Scale = attention.Scale,
            Window = attention.SlidingWindow ?? int.MaxValue,
            Kv = Access(attention, slot),
        };
        if (work.Window < 1)
        {
            throw new EngineException($"a sliding window needs at least one token, found {work.Window}");
        }
        if (step.Rows.Count == 0)
        {
            return;
        }
        if (prefixes is not null)
        {
            if (attention.Latent is not null)
            {
                throw new EngineException("latent attention has no prefixes");
            }
            work.Prefixes = this.attention.LocatePrefixes(Mine<CpuPrefixes>(prefixes), attention, step);
        }
        if (!attention.Sinks.IsEmpty)
        {
            work.Sinks = this.attention.CopySinks(attention);
        }
        bool split = this.attention.Plan(ref work, step, team.Threads, out long products);
        bool shared = products > SerialProducts && work.TaskCount > 1;
        Run(kernels.Attend(work.Kv.Layout.Format), &work, shared);
        if (split)
        {
            Run(kernels.MergeAttention, &work, shared);
        }
    }

    private void NormalizeHeads(DeviceWeights? norm, float* heads, int elements, int width, Activations qkv)
    {
        if (norm is null)
        {
            return;
        }
        var weights = Mine<CpuNorm>(norm);
        if (weights.Width != width)
        {
            throw new EngineException($"expected a norm over heads of {width}, found one over {weights.Width}");
        }
        NormWork work = Norm(weights, heads, heads);
        work.Groups = qkv.Rows;
        work.PerGroup = elements / width;
        work.Stride = qkv.Width;
        Run(kernels.Normalize, &work, (long)qkv.Rows * elements > SerialElements);
    }

    private static float* Qkv(AttentionPlan plan, Activations qkv, int rows)
    {
        if (plan.KvHeads < 1 || plan.HeadDim < 1 || plan.Heads < plan.KvHeads || plan.Heads % plan.KvHeads != 0)
        {
            throw new EngineException($"{plan.Heads} query heads over {plan.KvHeads} key heads of {plan.HeadDim} is no grouped attention");
        }
        if (plan.Latent is not null && (plan.KvHeads != 1 || plan.ValueDim < 1 || plan.ValueDim > plan.HeadDim))
        {
            throw new EngineException($"a latent of {plan.ValueDim} in {plan.KvHeads} key heads of {plan.HeadDim} is no latent attention");
        }
        return Rows(qkv, (plan.Heads + (plan.Latent is null ? 2L : 1L) * plan.KvHeads) * plan.HeadDim, rows);
    }

    private KvAccess Access(AttentionPlan plan, int slot)
    {
        CpuKv kv = step.Kv ?? throw new EngineException("no step has begun");
        if ((uint)slot >= (uint)kv.SlotCount || kv.Layout(slot).KvHeads != plan.KvHeads || kv.Layout(slot).HeadDim != plan.HeadDim
            || kv.Layout(slot).ValueDim != plan.ValueDim || kv.Layout(slot).HasValues != plan.Latent is null)
        {
            throw new EngineException($"slot {slot} of {kv.SlotCount} does not hold {plan.KvHeads} heads of {plan.HeadDim}");
        }
        step.Locate(slot);
        return new KvAccess
        {
            Pool = kv.Address,
            PageBytes = kv.PageBytes,
            Layout = kv.Layout(slot),
            Pages = step.Pages,
            Views = step.Views,
            Indices = step.Indices,
        };
    }
}

/// <summary>Cuts attention into tasks, and owns the memory they need; all of it is kept between steps.</summary>
internal sealed unsafe class AttentionBuffers : IDisposable
{
    /// <summary>From so many tasks per thread on, taking them one by one balances the threads well enough.</summary>
    private const int TasksPerThread = 4;

    private readonly NativeList<RowBlock> blocks = new();
    private readonly NativeList<PrefixTile> prefixTiles = new();
    private readonly NativeList<AttentionTask> tasks = new();
    private readonly NativeList<float> partials = new();
    private readonly NativeList<CacheLine> scratch = new();
    private readonly NativeList<float> sinks = new();

    /// <summary>Fills in blocks, tasks and memory; true where tasks leave partial results to be merged.</summary>
    /// <param name="work">The work, complete but for these.</param>
    /// <param name="step">The step.</param>
    /// <param name="threads">Threads there are.</param>
    /// <param name="products">Multiply-adds in all.</param>
    public bool Plan(ref AttentionWork work, CpuStep step, int threads, out long products)
    {
        int rowsPerBlock = Math.Max(1, AttentionWork.BlockQueries / work.PaddedGroup);
        blocks.Clear();
        products = 0;
        for (int r = 0; r < step.Runs.Count; r++)
        {
            RowRun run = step.Runs.Address[r];
            for (int row = 0; row < run.RowCount; row += rowsPerBlock)
            {
                var block = new RowBlock(r, run.FirstRow + row, Math.Min(rowsPerBlock, run.RowCount - row));
                blocks.Add(block);
                products += (long)block.RowCount * Math.Min(work.LastIndex(block) + 1L, work.Window);
            }
        }
        products *= (long)work.Heads * (work.Kv.Layout.HeadDim + work.Kv.Layout.ValueDim);
        work.Blocks = blocks.Address;

        int whole = blocks.Count * work.Kv.Layout.KvHeads * work.GroupsPerKvHead;
        bool split = whole < TasksPerThread * threads && whole % threads != 0;
        long floats = Cut(work, split);
        partials.Resize(checked((int)floats));
        work.Partials = partials.Address;
        work.Tasks = tasks.Address;
        work.TaskCount = tasks.Count;

        work.ScoreColumns = work.Kv.Layout.TileTokens;
        for (int r = 0; work.Prefixes is not null && r < step.Runs.Count; r++)
        {
            work.ScoreColumns = Math.Max(work.ScoreColumns, work.Prefixes[r].Columns);
        }
        work.ScratchStride = work.ScratchBytes(rowsPerBlock);
        scratch.Resize(checked((int)(work.ScratchStride / NativeBuffer.Alignment * threads)));
        work.Scratch = (byte*)scratch.Address;
        return floats > 0;
    }

    /// <summary>Finds the prefix of every run's stream.</summary>
    public PrefixTile* LocatePrefixes(CpuPrefixes prefixes, AttentionPlan plan, CpuStep step)
    {
        if (prefixes.KvHeads != plan.KvHeads || prefixes.HeadDim != plan.HeadDim)
        {
            throw new EngineException($"prefixes of {prefixes.KvHeads} heads of {prefixes.HeadDim} do not fit {plan.KvHeads} of {plan.HeadDim}");
        }
        prefixTiles.Resize(step.Runs.Count);
        for (int r = 0; r < step.Runs.Count; r++)
        {
            Track track = step.Tracks[step.Runs.Address[r].Track];
            prefixTiles.Address[r] = prefixes.Tile(track.StreamSet, track.Stream);
        }
        return prefixTiles.Address;
    }

    /// <summary>The plan's sinks where kernels can read them.</summary>
    public float* CopySinks(AttentionPlan plan)
    {
        if (plan.Sinks.Length != plan.Heads)
        {
            throw new EngineException($"{plan.Sinks.Length} sinks do not fit {plan.Heads} heads");
        }
        sinks.Resize(plan.Heads);
        plan.Sinks.CopyTo(new Span<float>(sinks.Address, plan.Heads));
        return sinks.Address;
    }

    public void Dispose()
    {
        sinks.Dispose();
        prefixTiles.Dispose();
        blocks.Dispose();
        tasks.Dispose();
        partials.Dispose();
        scratch.Dispose();
    }

    /// <summary>Lists the tasks, the longest (a track's last rows) first; returns the floats of all partial results.</summary>
    private long Cut(in AttentionWork work, bool split)
    {
        tasks.Clear();
        long partial = 0;
        for (int b = blocks.Count - 1; b >= 0; b--)
        {
            RowBlock block = blocks.Address[b];
            int firstIndex = work.FirstIndex(block);
            long segmentTokens = (long)work.SegmentPages * work.Kv.Layout.PageTokens;
            int first = (int)(Math.Max(0, (long)firstIndex + 1 - work.Window) / segmentTokens);
            int end = (int)(work.LastIndex(block) / segmentTokens) + 1;
            for (int group = 0; group < work.Kv.Layout.KvHeads * work.GroupsPerKvHead; group++)
            {
                if (!split || end - first == 1)
                {
                    tasks.Add(new AttentionTask(b, group, first, end, Partial: -1, Parts: 1));
                    continue;
                }
                for (int segment = first; segment < end; segment++)
                {
                    tasks.Add(new AttentionTask(b, group, segment, segment + 1, partial, segment == first ? end - first : 0));
                    partial += (work.StateFloats(block.RowCount) + 15) & -16L;
                }
            }
        }
        return partial;
    }

    /// <summary>The unit of scratch memory, so that threads never share a line.</summary>
    [StructLayout(LayoutKind.Sequential, Size = NativeBuffer.Alignment)]
    private readonly struct CacheLine;
}
