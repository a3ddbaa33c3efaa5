using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu;

public sealed class RowOperationTests
{
    public static TheoryData<InstructionSet> Sets => InstructionSets.All;

    [Theory]
    [MemberData(nameof(Sets))]
    public void Norms_agree_with_the_reference(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 3);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        foreach (NormKind kind in Enum.GetValues<NormKind>())
        {
            foreach ((int rows, int width) in new[] { (1, 1), (3, 7), (2, 16), (5, 20), (1, 64), (33, 100), (40, 896), (1, 4099) })
            {
                using MemoryCheckpoint checkpoint = Vectors(random, width);
                var plan = new NormPlan(kind, 1e-5f, new WeightRef("gain", 3), kind == NormKind.Layer ? new WeightRef("bias") : null);
                float[] values = TestRows.Normal(random, rows * width, 3);
                Compare(cpu, backend =>
                {
                    using DeviceWeights norm = backend.LoadNorm(plan, width, checkpoint);
                    using Activations rowsIn = TestRows.Make(backend, values, width), rowsOut = TestRows.Make(backend, rows, width);
                    backend.Normalize(norm, rowsIn, rowsOut);
                    backend.Normalize(norm, rowsIn, rowsIn);
                    float[] result = TestRows.Read(backend, rowsOut);
                    TestRows.SameBits(result, TestRows.Read(backend, rowsIn), "in place");
                    return result;
                }, 3e-6, $"seed {seed}: {kind} [{rows}, {width}]");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Head_norms_agree_with_the_reference_and_leave_the_rest(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 3);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        foreach (int headDim in new[] { 20, 64, 128 })
        {
            using MemoryCheckpoint checkpoint = Vectors(random, headDim);
            AttentionPlan plan = Attention(heads: 6, kvHeads: 2, headDim);
            var norm = new NormPlan(NormKind.Rms, 1e-6f, new WeightRef("gain"));
            float[] values = TestRows.Normal(random, 50 * plan.Qkv.Outputs);
            foreach ((bool query, bool key) in new[] { (true, true), (true, false), (false, true), (false, false) })
            {
                Compare(cpu, backend =>
                {
                    using DeviceWeights weights = backend.LoadNorm(norm, headDim, checkpoint);
                    using Activations qkv = TestRows.Make(backend, values, plan.Qkv.Outputs);
                    backend.NormalizeHeads(plan, query ? weights : null, key ? weights : null, qkv);
                    return TestRows.Read(backend, qkv);
                }, 3e-6, $"seed {seed}: heads of {headDim}, query {query}, key {key}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Norms_over_all_heads_and_clamped_projections_agree_with_the_reference(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 3);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using MemoryCheckpoint checkpoint = Vectors(random, 6 * 20);
        var norm = new NormPlan(NormKind.Rms, 1e-6f, new WeightRef("gain"));
        foreach ((bool whole, float? clip) in new[] { (true, (float?)null), (true, 0.7f), (false, 0.7f) })
        {
            AttentionPlan plan = Attention(heads: 6, kvHeads: 2, headDim: 20) with { NormsWholeProjection = whole, ClipQkv = clip };
            float[] values = TestRows.Normal(random, 50 * plan.Qkv.Outputs);
            float[] actual = Compare(cpu, backend =>
            {
                using DeviceWeights query = backend.LoadNorm(norm, plan.QueryNormWidth, checkpoint);
                using DeviceWeights key = backend.LoadNorm(norm, plan.KeyNormWidth, checkpoint);
                using Activations qkv = TestRows.Make(backend, values, plan.Qkv.Outputs);
                backend.NormalizeHeads(plan, whole ? query : null, whole ? key : null, qkv);
                return TestRows.Read(backend, qkv);
            }, 3e-6, $"seed {seed}: whole {whole}, clip {clip}");
            Assert.Equal(clip is not null, actual.All(value => Math.Abs(value) <= (clip ?? 0.7f)));
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Linear_maps_of_heads_agree_with_the_reference_however_rows_are_shared(InstructionSet set)
    {
        InstructionSets.Require(set);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        foreach ((int heads, int inputs, int outputs, int carried, int tail) in
            new[] { (1, 1, 1, 0, 0), (3, 12, 16, 8, 24), (4, 64, 128, 0, 3), (2, 130, 65, 5, 0), (16, 32, 100, 16, 116) })
        {
            foreach (bool transposed in new[] { false, true })
            {
                // A few rows that are not taken before, between and behind the matrices.
                (int stored, int columns) = transposed ? (inputs, outputs) : (outputs, inputs);
                var plan = new HeadLinearPlan(heads, inputs, outputs, carried, new WeightRef("w", 2, transposed), stored + 3);
                using var checkpoint = new MemoryCheckpoint();
                int rowsInFile = 2 + heads * (stored + 3);
                checkpoint.Add("w", [rowsInFile, columns], TestRows.Normal(random, rowsInFile * columns, 1 / Math.Sqrt(inputs)));
                int width = plan.OutputWidth + tail;
                float[] x = TestRows.Normal(random, 21 * plan.InputWidth), behind = TestRows.Normal(random, 21 * tail);
                string what = $"seed {seed}: {heads} heads {inputs} → {outputs}, {carried} carried, tail {tail}, transposed {transposed}";
                using CpuBackend one = InstructionSets.Backend(set, threads: 1), five = InstructionSets.Backend(set, threads: 5);
                float[] whole = Compare(five, backend => Multiply(backend, 0, 21), 3e-6 * Math.Sqrt(inputs), what);
                foreach ((int first, int rows) in new[] { (0, 1), (1, 2), (3, 3), (6, 15) })
                {
                    TestRows.SameBits(whole.AsSpan(first * width, rows * width), Multiply(one, first, rows), $"{what}, rows {first} +{rows}");
                }

                float[] Multiply(IBackend backend, int first, int rows)
                {
                    using DeviceWeights weights = backend.LoadHeads(plan, checkpoint);
                    using Activations input = TestRows.Make(backend, x.AsSpan(first * plan.InputWidth, rows * plan.InputWidth), plan.InputWidth);
                    using Activations? rest = tail == 0 ? null : TestRows.Make(backend, behind.AsSpan(first * tail, rows * tail), tail);
                    using Activations output = TestRows.Make(backend, rows, width);
                    backend.MultiplyHeads(weights, input, rest, output);
                    return TestRows.Read(backend, output);
                }
            }
        }
    }

    [Fact]
    public void Linear_maps_of_heads_that_do_not_fit_are_refused()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", [12, 4], TestRows.Normal(new Random(1), 48));
        Refused(2, 3, 5, new WeightRef("w"), 6, "columns");
        Refused(2, 4, 6, new WeightRef("w"), 7, "at least 13 rows");
        Refused(2, 4, 6, new WeightRef("w", 1), 6, "at least 13 rows");

        void Refused(int heads, int inputs, int outputs, WeightRef weight, int rowsPerHead, string reason) => Assert.Contains(
            reason,
            Assert.Throws<EngineException>(() => cpu.LoadHeads(new HeadLinearPlan(heads, inputs, outputs, 0, weight, rowsPerHead), checkpoint)).Message,
            StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Activations_agree_with_the_reference_however_rows_are_shared(InstructionSet set)
    {
        InstructionSets.Require(set);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        var clamp = new SwiGluClamp(1.3f, 1.1f);
        foreach (Activation activation in Enum.GetValues<Activation>())
        {
            foreach ((int rows, int width) in new[] { (1, 1), (3, 15), (1, 4864), (7, 1001), (2, 16) })
            {
                int inputWidth = activation.IsGated() ? 2 * width : width;
                float[] values = TestRows.Normal(random, rows * inputWidth, 4), first = [];
                foreach (int threads in new[] { 1, 2, 5 })
                {
                    using CpuBackend cpu = InstructionSets.Backend(set, threads);
                    float[] actual = Compare(cpu, backend =>
                    {
                        using Activations rowsIn = TestRows.Make(backend, values, inputWidth), rowsOut = TestRows.Make(backend, rows, width);
                        backend.Activate(activation, rowsIn, rowsOut, rows == 7 ? null : clamp);
                        return TestRows.Read(backend, rowsOut);
                    }, 2e-6, $"seed {seed}: {activation} [{rows}, {width}]");
                    first = threads == 1 ? actual : first;
                    TestRows.SameBits(first, actual, $"seed {seed}: {activation} [{rows}, {width}] on {threads} threads");
                }
            }
        }
    }

    [Fact]
    public void Rows_are_gathered_in_the_order_asked_for()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using Activations input = TestRows.Make(cpu, [1, 2, 3, 4, 5, 6], 2);
        using Activations output = cpu.Allocate(4, 2);
        cpu.Gather(input, [2, 0, 2], output);
        Assert.Equal(3, output.Rows);
        Assert.Equal([5, 6, 1, 2, 5, 6], TestRows.Read(cpu, output));
    }

    [Theory]
    [InlineData(DType.F32, false)]
    [InlineData(DType.BF16, true)]
    [InlineData(DType.Q4_0, true)]
    [InlineData(DType.Q6_K, false)]
    [InlineData(DType.Q3_K, false)]
    public void Untied_embeddings_are_read_as_they_are_stored(DType dtype, bool learnedPositions)
    {
        const int HiddenSize = 256, Vocabulary = 40;
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("tokens", [Vocabulary, HiddenSize], TestRows.Normal(random, Vocabulary * HiddenSize), dtype);
        checkpoint.Add("positions", [16, HiddenSize], TestRows.Normal(random, 16 * HiddenSize));
        checkpoint.Add("head", [Vocabulary, HiddenSize], TestRows.Normal(random, Vocabulary * HiddenSize));
        var plan = new EmbeddingPlan(new WeightRef("tokens"), learnedPositions ? new WeightRef("positions") : null);
        StepPlan step = Step(random, 10, Vocabulary);
        using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
        using var reference = new ReferenceBackend();
        TestRows.Close(Embed(reference, plan, HiddenSize, checkpoint, step, "head"), Embed(cpu, plan, HiddenSize, checkpoint, step, "head"),
            tolerance: 0, $"seed {seed}");
    }

    [Theory]
    [InlineData(DType.F32, 0)]
    [InlineData(DType.Q8_0, 0)]
    [InlineData(DType.IQ4_NL, 0)]
    public void Tied_embeddings_are_read_from_the_head(DType dtype, double tolerance)
    {
        const int HiddenSize = 64, Vocabulary = 50;
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("tokens", [Vocabulary, HiddenSize], TestRows.Normal(random, Vocabulary * HiddenSize), dtype);
        var plan = new EmbeddingPlan(new WeightRef("tokens"));
        StepPlan step = Step(random, 10, Vocabulary);
        using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
        using var reference = new ReferenceBackend();
        TestRows.Close(Embed(reference, plan, HiddenSize, checkpoint, step, "tokens"), Embed(cpu, plan, HiddenSize, checkpoint, step, "tokens"),
            tolerance, $"seed {seed}");
    }

    private static float[] Embed(IBackend backend, EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, StepPlan step, string headTensor)
    {
        var headPlan = new LinearPlan(hiddenSize, [new LinearPart((int)checkpoint[headTensor].Rows, new WeightRef(headTensor))]);
        using DeviceWeights head = backend.LoadLinear(headPlan, checkpoint);
        using DeviceWeights embedding = backend.LoadEmbedding(plan, hiddenSize, checkpoint, headPlan, head);
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 32)], KvFormat.F32, 1, 16);
        using Activations output = TestRows.Make(backend, step.Rows.Length, hiddenSize);
        TestRows.Begin(backend, step, kv);
        backend.Embed(embedding, output);
        backend.EndStep();
        return TestRows.Read(backend, output);
    }

    private static StepPlan Step(Random random, int rows, int vocabulary)
    {
        var step = new StepPlan(1);
        step.AddTrack(0, 0);
        step.SetSlot(0, [0], 0);
        for (int position = 0; position < rows; position++)
        {
            step.AddRow(position, random.Next(vocabulary), logits: false);
        }
        return step;
    }

    /// <summary>Runs an operation on both backends; returns what the CPU gives.</summary>
    private static float[] Compare(CpuBackend cpu, Func<IBackend, float[]> operation, double tolerance, string what)
    {
        using var reference = new ReferenceBackend();
        float[] actual = operation(cpu);
        TestRows.Close(operation(reference), actual, tolerance, what);
        return actual;
    }

    private static MemoryCheckpoint Vectors(Random random, int width)
    {
        var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("gain", [width + 3], TestRows.Normal(random, width + 3));
        checkpoint.Add("bias", [width], TestRows.Normal(random, width));
        return checkpoint;
    }

    private static AttentionPlan Attention(int heads, int kvHeads, int headDim) => new()
    {
        Heads = heads,
        KvHeads = kvHeads,
        HeadDim = headDim,
        Scale = 1,
        Qkv = new LinearPlan(1, [new LinearPart((heads + 2 * kvHeads) * headDim, new WeightRef("qkv"))]),
        Output = new LinearPlan(1, [new LinearPart(1, new WeightRef("output"))]),
    };
}
