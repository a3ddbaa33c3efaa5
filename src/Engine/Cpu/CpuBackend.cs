using System.Numerics.Tensors;
using System.Runtime.CompilerServices;
using Engine.Checkpoints;
using Engine.Cpu.Kernels;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// The host's processor as a device. Every operation checks its operands, describes its work as plain data, and runs one kernel on the thread team;
/// work too small to be worth waking the team runs on the caller. Nothing is allocated once buffers have grown. A row's result has the same bits
/// whatever rows, threads and pages surround it.
/// </summary>
internal sealed unsafe partial class CpuBackend : IBackend
{
    /// <summary>Elements of an elementwise operation below which one thread is faster than waking the team.</summary>
    private const long SerialElements = 16 * 1024;

    /// <summary>The same for operations with an exponential per element.</summary>
    private const long SerialExponentials = 2 * 1024;

    private readonly ThreadTeam team;
    private readonly KernelTable kernels;
    private readonly MatmulInstructions? matmulLimit;
    private readonly ActivationPrecision activationPrecision;
    private readonly string device;
    private readonly CpuStep step = new();
    private ActivationForms forms;
    private bool disposed;

    /// <exception cref="EngineException">An option is out of range.</exception>
    public CpuBackend(CpuOptions? options = null)
    {
        options ??= new CpuOptions();
        int threads = options.Threads ?? Math.Min(Environment.ProcessorCount, CpuOptions.LargestTeam);
        if (threads is < 1 or > CpuOptions.LargestTeam)
        {
            throw new EngineException($"expected 1 to {CpuOptions.LargestTeam} threads, found {threads}", item: nameof(CpuOptions.Threads));
        }
        if (!Enum.IsDefined(options.ActivationPrecision))
        {
            throw new EngineException(
                $"expected Float32 or BFloat16, found {options.ActivationPrecision}", item: nameof(CpuOptions.ActivationPrecision));
        }
        activationPrecision = options.ActivationPrecision;
        InstructionSet set = options.InstructionSet;
        kernels = KernelTable.For(set);
        matmulLimit = options.Limit is null ? null : Widest(set);
        team = new ThreadTeam(threads);
        expertMemory = new ExpertMemory(options.ExpertBytes);
        experts = new ExpertRun(team, kernels);
        device = $"CPU, {set}, {threads} {(threads == 1 ? "thread" : "threads")}";
    }

    /// <summary>Device, instruction set, threads; and, once such weights are loaded, that activations are rounded for them.</summary>
    public string Description =>
        (forms & ActivationForms.Pairs) != 0 ? $"{device}, bfloat16 activations for BF16 weights"
        : (forms & ActivationForms.RoundedFloats) != 0 ? $"{device}, bfloat16 activations for BF16 weights, multiplied in float32"
        : device;

    /// <inheritdoc/>
    public DeviceWeights LoadLinear(LinearPlan plan, Checkpoint checkpoint)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        return Pack(plan, checkpoint);
    }

    private PackedLinear Pack(LinearPlan plan, Checkpoint checkpoint)
    {
        PackedLinear packed = PackedLinear.Load(plan, checkpoint, team, activationPrecision);
        if (matmulLimit is { } limit)
        {
            packed.Instructions = limit;
        }
        forms |= packed.AllReads;
        return packed;
    }

    /// <inheritdoc/>
    public DeviceWeights LoadEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, LinearPlan headPlan, DeviceWeights head) =>
        new CpuEmbedding(plan, hiddenSize, checkpoint, headPlan, Mine<PackedLinear>(head));

    /// <inheritdoc/>
    public DeviceWeights LoadNorm(NormPlan plan, int width, Checkpoint checkpoint) => new CpuNorm(plan, width, checkpoint);

    /// <inheritdoc/>
    public DeviceWeights LoadRope(RopePlan plan, int contextLength) => new CpuRope(plan, contextLength);

    /// <inheritdoc/>
    public DeviceWeights LoadPrefixes(
        IReadOnlyList<(StreamPrefixPlan Plan, int Streams, int Tokens)?> prefixes, KvSlotPlan shape, Checkpoint checkpoint) =>
        new CpuPrefixes(prefixes, shape, checkpoint);

    /// <inheritdoc/>
    public Activations Allocate(int capacity, int width)
    {
        if (capacity < 0 || width < 1 || (long)capacity * width > long.MaxValue / sizeof(float))
        {
            throw new EngineException($"cannot make activations [{capacity}, {width}]");
        }
        return new CpuActivations(capacity, width);
    }

    /// <inheritdoc/>
    public KvStorage AllocateKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens) =>
        new CpuKv(slots, format, pageCount, pageTokens);

    /// <inheritdoc/>
    public void BeginStep(StepPlan step, KvStorage kv)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        this.step.Begin(step, Mine<CpuKv>(kv));
    }

    /// <inheritdoc/>
    public void SelectRows(RowSet rows) => step.Select(rows);

    /// <inheritdoc/>
    public void EndStep()
    {
        step.End();
        team.Rest();
    }

    /// <inheritdoc/>
    public void Embed(DeviceWeights embedding, Activations output)
    {
        var table = Mine<CpuEmbedding>(embedding);
        float* destination = Rows(output, table.HiddenSize, step.Rows.Count);
        for (int r = 0; r < step.Rows.Count; r++)
        {
            StepRow row = step.Rows.Address[r];
            table.Read(row.Token, row.Position, new Span<float>(destination + (long)r * table.HiddenSize, table.HiddenSize));
        }
    }

    /// <inheritdoc/>
    public void Normalize(DeviceWeights norm, Activations input, Activations output)
    {
        var weights = Mine<CpuNorm>(norm);
        float* source = Rows(input, weights.Width, input.Rows);
        NormWork work = Norm(weights, source, Rows(output, weights.Width, input.Rows));
        work.Groups = input.Rows;
        work.PerGroup = 1;
        work.Stride = weights.Width;
        Run(kernels.Normalize, &work, (long)input.Rows * weights.Width > SerialElements);
    }

    /// <inheritdoc/>
    public void Multiply(DeviceWeights linear, Activations input, Activations output, bool accumulate = false)
    {
        var weights = Mine<PackedLinear>(linear);
        float* source = Rows(input, weights.Plan.Inputs, input.Rows);
        float* destination = Rows(output, weights.Plan.Outputs, input.Rows);
        if (ReferenceEquals(input, output))
        {
            throw new EngineException("a linear map cannot write over its input");
        }
        weights.Multiply(team, source, input.Rows, destination, accumulate);
    }

    /// <inheritdoc/>
    public void Activate(Activation activation, Activations input, Activations output, SwiGluClamp? clamp = null)
    {
        if (!kernels.Has(activation))
        {
            throw new EngineException($"unknown activation {activation}");
        }
        bool gated = activation.IsGated();
        clamp ??= SwiGluClamp.Default;
        var work = new ActivationWork
        {
            Input = Rows(input, gated ? 2L * output.Width : output.Width, input.Rows),
            Output = Rows(output, output.Width, input.Rows),
            Rows = input.Rows,
            Width = output.Width,
            Limit = clamp.Limit,
            Alpha = clamp.Alpha,
        };
        if (gated && ReferenceEquals(input, output))
        {
            throw new EngineException("a gated activation cannot write over its input");
        }
        Run(kernels.Activate(activation), &work, (long)work.Rows * work.Width > SerialExponentials);
    }

    /// <inheritdoc/>
    public void Gather(Activations input, ReadOnlySpan<int> rows, Activations output)
    {
        CheckCapacity(rows.Length, input, output, output.Capacity);
        output.Rows = rows.Length;
        float* source = Rows(input, output.Width, input.Rows);
        float* destination = Rows(output, input.Width, rows.Length);
        for (int i = 0; i < rows.Length; i++)
        {
            Row(source, rows[i], input).CopyTo(Row(destination, i, output));
        }
    }

    /// <inheritdoc/>
    public void Scatter(Activations input, ReadOnlySpan<int> rows, Activations output)
    {
        CheckCapacity(rows.Length, input, output, output.Rows);
        float* source = Rows(input, output.Width, rows.Length);
        float* destination = Rows(output, input.Width, output.Rows);
        for (int i = 0; i < rows.Length; i++)
        {
            Row(source, i, input).CopyTo(Row(destination, rows[i], output));
        }
    }

    /// <inheritdoc/>
    public void ScatterAdd(Activations input, ReadOnlySpan<float> weights, ReadOnlySpan<int> rows, Activations output)
    {
        CheckCapacity(rows.Length, input, output, output.Rows);
        if (weights.Length != rows.Length)
        {
            throw new EngineException($"{weights.Length} weights for {rows.Length} rows");
        }
        float* source = Rows(input, output.Width, rows.Length);
        float* destination = Rows(output, input.Width, output.Rows);
        for (int i = 0; i < rows.Length; i++)
        {
            Span<float> sum = Row(destination, rows[i], output);
            TensorPrimitives.FusedMultiplyAdd(Row(source, i, input), weights[i], sum, sum);
        }
    }

    /// <inheritdoc/>
    public void Clear(Activations activations)
    {
        float* rows = Rows(activations, activations.Width, activations.Rows);
        for (int i = 0; i < activations.Rows; i++)
        {
            Row(rows, i, activations).Clear();
        }
    }

    /// <inheritdoc/>
    public void Scale(Activations activations, float factor)
    {
        float* rows = Rows(activations, activations.Width, activations.Rows);
        for (int i = 0; i < activations.Rows; i++)
        {
            Span<float> row = Row(rows, i, activations);
            TensorPrimitives.Multiply(row, factor, row);
        }
    }

    /// <inheritdoc/>
    public void Interleave(Activations input, int streams, Activations output)
    {
        CheckStreams(input, streams, output.Rows);
        float* source = Rows(input, input.Width, output.Rows * streams);
        float* destination = Rows(output, (long)input.Width * streams, output.Rows);
        for (int row = 0; row < output.Rows; row++)
        {
            Span<float> side = Row(destination, row, output);
            for (int stream = 0; stream < streams; stream++)
            {
                Span<float> state = Row(source, row * streams + stream, input);
                for (int i = 0; i < state.Length; i++)
                {
                    side[i * streams + stream] = state[i];
                }
            }
        }
    }

    /// <inheritdoc/>
    public void MixStreams(Activations gate, Activations input, float smoothing, Activations output)
    {
        int streams = gate.Width;
        CheckStreams(input, streams, output.Rows);
        float* logits = Rows(gate, streams, output.Rows);
        float* source = Rows(input, output.Width, output.Rows * streams);
        float* destination = Rows(output, input.Width, output.Rows);
        for (int row = 0; row < output.Rows; row++)
        {
            Span<float> weights = Row(logits, row, gate);
            TensorPrimitives.SoftMax(weights, weights);
            Span<float> mixed = Row(destination, row, output);
            mixed.Clear();
            for (int stream = 0; stream < streams; stream++)
            {
                weights[stream] = weights[stream] * (1 - smoothing) + smoothing / streams;
                TensorPrimitives.FusedMultiplyAdd(Row(source, row * streams + stream, input), weights[stream], mixed, mixed);
            }
        }
    }

    /// <inheritdoc/>
    public void ReadRows(Activations source, Span<float> destination)
    {
        float* rows = Rows(source, source.Width, source.Rows);
        long elements = (long)source.Rows * source.Width;
        if (destination.Length < elements)
        {
            throw new EngineException($"{elements} numbers do not fit {destination.Length}");
        }
        fixed (float* target = destination)
        {
            CopyWork work = new() { Source = rows, Target = target, Elements = elements };
            Run(&Copy, &work, shared: elements > SerialElements);
        }
        GC.KeepAlive(source);
    }

    /// <inheritdoc/>
    public void ForEach(int count, Action<int> body)
    {
        HostWork work = new() { Body = body, Count = count };
        Run(&CallEach, Unsafe.AsPointer(ref work), shared: count > 1);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!disposed)
        {
            disposed = true;
            team.Dispose();
            step.Dispose();
            attention.Dispose();
            experts.Dispose();
        }
    }

    /// <summary>The widest kernels for linear maps within an instruction set.</summary>
    private static MatmulInstructions Widest(InstructionSet set)
    {
        MatmulInstructions[] permitted = set switch
        {
            InstructionSet.Avx512 => [MatmulInstructions.Avx512Bf16, MatmulInstructions.Avx512Vnni, MatmulInstructions.Avx512],
            InstructionSet.Avx2 => [MatmulInstructions.AvxVnni, MatmulInstructions.Avx2],
            InstructionSet.AdvSimd => [MatmulInstructions.ArmDot, MatmulInstructions.Portable],
            _ => [MatmulInstructions.Portable],
        };
        return permitted.First(static instructions => instructions.IsSupported());
    }

    private static NormWork Norm(CpuNorm weights, float* input, float* output) => new()
    {
        Input = input,
        Output = output,
        Gain = weights.Gain,
        Bias = weights.Bias,
        Width = weights.Width,
        Epsilon = weights.Epsilon,
        Centred = weights.Plan.Kind == NormKind.Layer,
    };

    private static void Copy(void* state, int thread, int threads)
    {
        var work = (CopyWork*)state;
        long first = work->Elements * thread / threads, end = work->Elements * (thread + 1) / threads;
        Buffer.MemoryCopy(work->Source + first, work->Target + first, (end - first) * sizeof(float), (end - first) * sizeof(float));
    }

    private static void CallEach(void* state, int thread, int threads)
    {
        ref HostWork work = ref Unsafe.AsRef<HostWork>(state);
        for (int i = Interlocked.Increment(ref work.Next); i <= work.Count; i = Interlocked.Increment(ref work.Next))
        {
            work.Body(i - 1);
        }
    }

    private void Run(delegate*<void*, int, int, void> body, void* state, bool shared)
    {
        if (shared)
        {
            team.Run(body, state);
        }
        else
        {
            body(state, 0, 1);
        }
    }

    /// <summary>The memory of activations of this backend, after checking their shape.</summary>
    private static float* Rows(Activations activations, long width, int rows)
    {
        if (activations.Width != width || activations.Rows != rows || rows < 0 || rows > activations.Capacity)
        {
            throw new EngineException($"expected activations [{rows}, {width}], found [{activations.Rows}, {activations.Width}] "
                + $"with room for {activations.Capacity}");
        }
        return Mine<CpuActivations>(activations).Address;
    }

    private static Span<float> Row(float* rows, int row, Activations activations) =>
        (uint)row < (uint)activations.Rows
            ? new Span<float>(rows + (long)row * activations.Width, activations.Width)
            : throw new EngineException($"row {row} was asked for, there are {activations.Rows}");

    private static void CheckCapacity(int rows, Activations input, Activations output, int capacity)
    {
        if (rows > capacity || ReferenceEquals(input, output))
        {
            throw new EngineException($"{rows} rows cannot be brought into {capacity}, nor into the same activations");
        }
    }

    private static void CheckStreams(Activations input, int streams, int tokens)
    {
        if (streams < 1 || input.Rows != (long)tokens * streams)
        {
            throw new EngineException($"expected {streams} streams of {tokens} tokens, found {input.Rows} rows");
        }
    }

    private static T Mine<T>(object value)
        where T : class =>
        value as T ?? throw new EngineException($"expected a {typeof(T).Name} of the CPU backend, found a {value.GetType().Name}");

    private struct CopyWork
    {
        public float* Source, Target;
        public long Elements;
    }

    private struct HostWork
    {
        public Action<int> Body;
        public int Count, Next;
    }
}
