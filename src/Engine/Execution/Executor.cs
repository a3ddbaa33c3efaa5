using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Execution;

/// <summary>Takes the logits of one row: <paramref name="index"/> counts <see cref="StepPlan.LogitRows"/>; the span [vocabulary] may be overwritten.</summary>
public delegate void LogitsConsumer(int index, Span<float> logits);

/// <summary>Says how far loading has come.</summary>
/// <param name="BytesLoaded">Packed bytes so far.</param>
/// <param name="Fraction">0 … 1, by steps of the model.</param>
public readonly record struct LoadProgress(long BytesLoaded, double Fraction);

/// <summary>
/// The forward pass. There is one: prefill and decode, one sequence and a hundred, every device and every plan go through <see cref="Step"/>.
/// Owns the packed weights and the activations; the backend does the arithmetic. Not safe for concurrent use.
/// </summary>
public sealed class Executor : IDisposable
{
    /// <summary>Logit rows computed at a time; more are done in turns.</summary>
    private const int LogitChunk = 8;

    private readonly IBackend backend;
    private readonly Stack<IDisposable> owned = new();
    private readonly Dictionary<(char Role, int Width), Activations> activations = [];
    private readonly Dictionary<RopePlan, DeviceWeights> ropes = new(ReferenceEqualityComparer.Instance);
    private readonly BlockWeights[] blocks;
    private readonly StepNorms[] steps;
    private readonly DeviceWeights embedding, finalNorm, head;
    private readonly Activations residual, normed, selected, logits;
    private readonly float[] hostLogits;

    private Executor(ModelPlan plan, Checkpoint checkpoint, IBackend backend, int maxRows, IProgress<LoadProgress>? progress)
    {
        Plan = plan;
        MaxRows = maxRows;
        this.backend = backend;
        int loaded = 0;
        int parts = plan.Layers.Blocks.Length + 1;
        void Report() => progress?.Report(new LoadProgress(WeightBytes, (double)++loaded / parts));
        try
        {
            head = Own(backend.LoadLinear(plan.Head, checkpoint));
            embedding = Own(backend.LoadEmbedding(plan.Embedding, plan.HiddenSize, checkpoint, plan.Head, head));
            finalNorm = Own(backend.LoadNorm(plan.FinalNorm, plan.HiddenSize, checkpoint));
            Report();
            blocks = new BlockWeights[plan.Layers.Blocks.Length];
            for (int i = 0; i < blocks.Length; i++)
            {
                blocks[i] = LoadBlock(plan.Layers.Blocks[i], checkpoint);
                Report();
            }
            steps = [.. plan.Layers.Steps.Select(step => new StepNorms(
                LoadNorm(step.AttentionNorm, plan.HiddenSize, checkpoint), LoadNorm(step.FeedForwardNorm, plan.HiddenSize, checkpoint)))];
            residual = Scratch('x', plan.HiddenSize);
            normed = Scratch('n', plan.HiddenSize);
            selected = Own(backend.Allocate(LogitChunk, plan.HiddenSize));
            logits = Own(backend.Allocate(LogitChunk, plan.VocabularySize));
            hostLogits = new float[LogitChunk * plan.VocabularySize];
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>What is computed.</summary>
    public ModelPlan Plan { get; }

    /// <summary>The most rows a step may have.</summary>
    public int MaxRows { get; }

    /// <summary>Bytes of packed weights on the device.</summary>
    public long WeightBytes { get; private set; }

    /// <summary>Packs all weights of a plan.</summary>
    /// <param name="plan">What to compute.</param>
    /// <param name="checkpoint">Where the plan's tensors are; not needed after the call unless the backend reads it in place.</param>
    /// <param name="backend">The device.</param>
    /// <param name="maxRows">The most rows a step may have; sizes the activations.</param>
    /// <param name="progress">Told after each block, or null.</param>
    /// <exception cref="EngineException">A tensor does not fit the plan; nothing stays allocated.</exception>
    public static Executor Load(
        ModelPlan plan, Checkpoint checkpoint, IBackend backend, int maxRows = 512, IProgress<LoadProgress>? progress = null) =>
        new(plan, checkpoint, backend, maxRows, progress);

    /// <summary>
    /// Runs one forward pass over the rows of <paramref name="step"/>: appends their keys and values to <paramref name="kv"/> and hands the logits of the
    /// rows that asked for them to <paramref name="consume"/>, in order.
    /// </summary>
    public void Step(StepPlan step, KvStorage kv, LogitsConsumer consume)
    {
        int rows = step.Rows.Length;
        ArgumentOutOfRangeException.ThrowIfGreaterThan(rows, MaxRows);
        if (rows == 0)
        {
            return;
        }
        backend.BeginStep(step, kv);
        try
        {
            residual.Rows = normed.Rows = rows;
            backend.Embed(embedding, residual);
            for (int i = 0; i < steps.Length; i++)
            {
                LayerStep layer = Plan.Layers.Steps[i];
                BlockPlan block = Plan.Layers.Blocks[layer.Block];
                BlockWeights weights = blocks[layer.Block];
                if (block.Attention is { } attention)
                {
                    Attend(attention, weights, steps[i].Attention!, layer.KvSlot, rows);
                }
                if (block.FeedForward is { } feedForward)
                {
                    FeedForward(feedForward, weights, steps[i].FeedForward!, rows);
                }
            }
            ComputeLogits(step.LogitRows, consume);
        }
        finally
        {
            backend.EndStep();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        while (owned.TryPop(out IDisposable? resource))
        {
            resource.Dispose();
        }
    }

    private void Attend(AttentionPlan attention, BlockWeights weights, DeviceWeights norm, int slot, int rows)
    {
        Activations qkv = Scratch('q', attention.Qkv.Outputs, rows);
        Activations mixed = Scratch('a', attention.Output.Inputs, rows);
        backend.Normalize(norm, residual, normed);
        backend.Multiply(weights.Qkv!, normed, qkv);
        if (weights.QueryNorm is not null || weights.KeyNorm is not null)
        {
            backend.NormalizeHeads(attention, weights.QueryNorm, weights.KeyNorm, qkv);
        }
        backend.RotateAndAppend(attention, weights.Rope, qkv, slot);
        backend.Attend(attention, qkv, slot, mixed);
        backend.Multiply(weights.AttentionOutput!, mixed, residual, accumulate: true);
    }

    private void FeedForward(FeedForwardPlan feedForward, BlockWeights weights, DeviceWeights norm, int rows)
    {
        Activations inner = Scratch('i', feedForward.In.Outputs, rows);
        Activations activated = Scratch('f', feedForward.Width, rows);
        backend.Normalize(norm, residual, normed);
        backend.Multiply(weights.In!, normed, inner);
        backend.Activate(feedForward.Activation, inner, activated);
        backend.Multiply(weights.Down!, activated, residual, accumulate: true);
    }

    /// <summary>Final norm and head, only for the rows asked for.</summary>
    private void ComputeLogits(ReadOnlySpan<int> rows, LogitsConsumer consume)
    {
        int vocabulary = Plan.VocabularySize;
        for (int first = 0; first < rows.Length; first += LogitChunk)
        {
            int count = Math.Min(LogitChunk, rows.Length - first);
            backend.Gather(residual, rows.Slice(first, count), selected);
            backend.Normalize(finalNorm, selected, selected);
            logits.Rows = count;
            backend.Multiply(head, selected, logits);
            backend.ReadRows(logits, hostLogits.AsSpan(0, count * vocabulary));
            for (int i = 0; i < count; i++)
            {
                consume(first + i, hostLogits.AsSpan(i * vocabulary, vocabulary));
            }
        }
    }

    private BlockWeights LoadBlock(BlockPlan block, Checkpoint checkpoint)
    {
        BlockWeights weights = new();
        if (block.Attention is { } attention)
        {
            weights.Qkv = Own(backend.LoadLinear(attention.Qkv, checkpoint));
            weights.AttentionOutput = Own(backend.LoadLinear(attention.Output, checkpoint));
            weights.QueryNorm = LoadNorm(attention.QueryNorm, attention.HeadDim, checkpoint);
            weights.KeyNorm = LoadNorm(attention.KeyNorm, attention.HeadDim, checkpoint);
            weights.Rope = attention.Rope is null ? null : LoadRope(attention.Rope);
            Scratch('q', attention.Qkv.Outputs);
            Scratch('a', attention.Output.Inputs);
        }
        if (block.FeedForward is { } feedForward)
        {
            weights.In = Own(backend.LoadLinear(feedForward.In, checkpoint));
            weights.Down = Own(backend.LoadLinear(feedForward.Down, checkpoint));
            Scratch('i', feedForward.In.Outputs);
            Scratch('f', feedForward.Width);
        }
        return weights;
    }

    private DeviceWeights? LoadNorm(NormPlan? plan, int width, Checkpoint checkpoint) =>
        plan is null ? null : Own(backend.LoadNorm(plan, width, checkpoint));

    /// <summary>Layers that share a rotation share its table.</summary>
    private DeviceWeights LoadRope(RopePlan plan)
    {
        if (!ropes.TryGetValue(plan, out DeviceWeights? rope))
        {
            ropes[plan] = rope = Own(backend.LoadRope(plan, Plan.ContextLength));
        }
        return rope;
    }

    /// <summary>The activations for a role and width: layers of one width share them; pruned layers of other widths get their own.</summary>
    private Activations Scratch(char role, int width, int rows = 0)
    {
        if (!activations.TryGetValue((role, width), out Activations? buffer))
        {
            buffer = backend.Allocate(MaxRows, width);
            owned.Push(buffer);
            activations[(role, width)] = buffer;
        }
        buffer.Rows = rows;
        return buffer;
    }

    private DeviceWeights Own(DeviceWeights weights)
    {
        owned.Push(weights);
        WeightBytes += weights.Bytes;
        return weights;
    }

    private Activations Own(Activations buffer)
    {
        owned.Push(buffer);
        return buffer;
    }

    /// <summary>Packed weights of a block; null where the block has no such part.</summary>
    private sealed class BlockWeights
    {
        public DeviceWeights? Qkv, AttentionOutput, QueryNorm, KeyNorm, Rope, In, Down;
    }

    private readonly record struct StepNorms(DeviceWeights? Attention, DeviceWeights? FeedForward);
}
