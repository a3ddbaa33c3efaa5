using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu;

/// <summary>What the backend refuses, what it does not allocate, and linear maps end to end.</summary>
public sealed class CpuBackendTests
{
    private static readonly AttentionPlan attention = new()
    {
        Heads = 4,
        KvHeads = 2,
        HeadDim = 32,
        Scale = 0.2f,
        Qkv = new LinearPlan(48, [new LinearPart(256, new WeightRef("qkv"), new WeightRef("bias"))]),
        Output = new LinearPlan(128, [new LinearPart(48, new WeightRef("output"))]),
    };

    public static TheoryData<InstructionSet> Sets => InstructionSets.All;

    [Theory]
    [MemberData(nameof(Sets))]
    public void Linear_maps_agree_with_the_reference(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set);
        using var reference = new ReferenceBackend();
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using MemoryCheckpoint checkpoint = Weights(random);
        float[] values = TestRows.Normal(random, 7 * 48), residual = TestRows.Normal(random, 7 * 256);
        foreach (bool accumulate in new[] { false, true })
        {
            float[][] results = new float[2][];
            foreach ((int i, IBackend backend) in new (int, IBackend)[] { (0, reference), (1, cpu) })
            {
                using DeviceWeights linear = backend.LoadLinear(attention.Qkv, checkpoint);
                using Activations input = TestRows.Make(backend, values, 48), output = TestRows.Make(backend, residual, 256);
                backend.Multiply(linear, input, output, accumulate);
                results[i] = TestRows.Read(backend, output);
            }
            TestRows.Close(results[0], results[1], 1e-5, $"seed {seed}, accumulate {accumulate}");
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Host_work_is_called_once_for_every_index_on_whichever_thread(int threads)
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = threads });
        foreach (int count in new[] { 0, 1, 2, 100 })
        {
            int[] calls = new int[count];
            cpu.ForEach(count, i => Interlocked.Increment(ref calls[i]));
            Assert.All(calls, static times => Assert.Equal(1, times));
        }
    }

    [Fact]
    public void What_host_work_throws_reaches_the_caller_and_the_backend_goes_on()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
        EngineException thrown = Assert.Throws<EngineException>(() => cpu.ForEach(50, static i => throw new EngineException("no")));
        Assert.Equal("no", thrown.Message);
        int calls = 0;
        cpu.ForEach(50, i => Interlocked.Increment(ref calls));
        Assert.Equal(50, calls);
    }

    [Fact]
    public void A_warm_step_allocates_nothing()
    {
        // On one thread, because the counter is the caller's; other threads run the same bodies.
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using MemoryCheckpoint checkpoint = Weights(new Random(1));
        using DeviceWeights qkvLinear = cpu.LoadLinear(attention.Qkv, checkpoint);
        using DeviceWeights norm = cpu.LoadNorm(new NormPlan(NormKind.Rms, 1e-6f, new WeightRef("bias")), 48, checkpoint);
        using DeviceWeights embedding = cpu.LoadEmbedding(new EmbeddingPlan(new WeightRef("qkv")), 48, checkpoint, attention.Output, qkvLinear);
        using DeviceWeights rope = cpu.LoadRope(AttentionScenario.Rope(RopePairing.Halves, 32), 100);
        using KvStorage kv = cpu.AllocateKv([new KvSlotPlan(2, 32)], KvFormat.F16, 8, 16);
        using Activations hidden = TestRows.Make(cpu, 2, 48), qkv = TestRows.Make(cpu, 2, 256);
        using Activations mixed = TestRows.Make(cpu, 2, 128), gated = TestRows.Make(cpu, 2, 64), last = cpu.Allocate(1, 64);
        var step = new StepPlan(1);
        var selected = new RowSet();
        var logits = new float[64];
        int[] pages = [3, 1, 4, 5];
        Steps();
        Assert.Equal(0, Allocation.Of(Steps));

        void Steps()
        {
            for (int round = 0; round < 20; round++)
            {
                Step(round);
            }
        }

        void Step(int round)
        {
            step.Clear();
            step.AddTrack(0, 0);
            step.SetSlot(0, pages, 2 * round);
            step.AddRow(2 * round, 1, logits: false);
            step.AddRow(2 * round + 1, 2, logits: true);
            selected.TakeEntering(step);
            cpu.BeginStep(step, kv);
            cpu.SelectRows(selected);
            cpu.Embed(embedding, hidden);
            cpu.Normalize(norm, hidden, hidden);
            cpu.Multiply(qkvLinear, hidden, qkv);
            cpu.RotateAndAppend(attention, rope, qkv, 0);
            cpu.Attend(attention, qkv, 0, null, mixed);
            cpu.Activate(Activation.SwiGlu, mixed, gated);
            cpu.Gather(gated, step.LogitRows, last);
            cpu.ReadRows(last, logits);
            cpu.EndStep();
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(100_000)]
    public void A_senseless_number_of_threads_is_refused(int threads)
    {
        Assert.Contains("threads", Refused(() => new CpuBackend(new CpuOptions { Threads = threads })), StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Rounded_activations_are_part_of_the_description_once_they_are_in_force(InstructionSet set)
    {
        InstructionSets.Require(set);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("plain", [2, 32], new float[64], DType.F16);
        checkpoint.Add("brain", [2, 32], new float[64], DType.BF16);
        LinearPlan plain = new(32, [new(2, new("plain"))]), brain = new(32, [new(2, new("brain"))]);
        using var exact = new CpuBackend(new CpuOptions { Limit = set, Threads = 1 });
        using var rounding = new CpuBackend(new CpuOptions { Limit = set, Threads = 1, ActivationPrecision = ActivationPrecision.BFloat16 });
        using DeviceWeights a = exact.LoadLinear(brain, checkpoint), b = rounding.LoadLinear(plain, checkpoint);
        string device = exact.Description;
        Assert.Equal(device, rounding.Description);
        using DeviceWeights c = rounding.LoadLinear(brain, checkpoint);
        Assert.StartsWith($"{device}, bfloat16 activations for BF16 weights", rounding.Description, StringComparison.Ordinal);
        bool dots = set == InstructionSet.Avx512 && MatmulInstructions.Avx512Bf16.IsSupported();
        Assert.Equal(!dots, rounding.Description.EndsWith("multiplied in float32", StringComparison.Ordinal));
        Refused(() => new CpuBackend(new CpuOptions { ActivationPrecision = (ActivationPrecision)2 }));
    }

    [Fact]
    public void A_cache_that_cannot_be_is_refused()
    {
        using IBackend cpu = new CpuOptions { Threads = 1 }.CreateBackend();
        KvSlotPlan fine = new(2, 32);
        Assert.Contains("multiple of 32", Refused(() => cpu.AllocateKv([fine, new(2, 48)], KvFormat.Q8_0, 4, 16)), StringComparison.Ordinal);
        Refused(() => cpu.AllocateKv([], KvFormat.F16, 4, 16));
        Refused(() => cpu.AllocateKv([fine], KvFormat.F16, 0, 16));
        Refused(() => cpu.AllocateKv([fine], KvFormat.F16, 4, 0));
        Refused(() => cpu.AllocateKv([fine], (KvFormat)17, 4, 16));
        Refused(() => cpu.AllocateKv([new(0, 32)], KvFormat.F16, 4, 16));
        Refused(() => cpu.AllocateKv([new(2, int.MaxValue)], KvFormat.F16, 4, 16));
        Refused(() => cpu.AllocateKv([new(1 << 16, 1 << 16)], KvFormat.F32, int.MaxValue, 1 << 16));
        Refused(() => cpu.Allocate(-1, 8));
        Refused(() => cpu.Allocate(8, 0));
        Refused(() => cpu.Allocate(int.MaxValue, int.MaxValue));
        Refused(() => cpu.Allocate(1 << 30, 1 << 30));
    }

    [Fact]
    public void A_step_that_does_not_fit_its_cache_is_refused()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using KvStorage kv = cpu.AllocateKv([new KvSlotPlan(2, 32)], KvFormat.F16, 4, 16);
        Refused(() => Enter(Step(pages: [4], length: 0), kv));
        Refused(() => Enter(Step(pages: [-1], length: 0), kv));
        Refused(() => Enter(Step(pages: [0], length: 16), kv));
        Refused(() => Enter(Step(pages: [], length: 0), kv));
        Refused(() => Enter(Step(pages: [0], length: -1), kv));
        Refused(() => Enter(Step(pages: [0], length: 0, position: -1), kv));
        Refused(() => Enter(Step(pages: [0], length: 0, slots: 2), kv));
        using var reference = new ReferenceBackend();
        Refused(() => Enter(Step(pages: [0], length: 0), reference.AllocateKv([new KvSlotPlan(2, 32)], KvFormat.F16, 4, 16)));

        void Enter(StepPlan step, KvStorage storage)
        {
            using Activations qkv = TestRows.Make(cpu, step.Rows.Length, attention.Qkv.Outputs);
            TestRows.Begin(cpu, step, storage);
            cpu.RotateAndAppend(attention, null, qkv, 0);
        }
    }

    [Fact]
    public void Operands_that_do_not_fit_are_refused()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using var reference = new ReferenceBackend();
        using MemoryCheckpoint checkpoint = Weights(new Random(1));
        using DeviceWeights linear = cpu.LoadLinear(attention.Qkv, checkpoint);
        using DeviceWeights norm = cpu.LoadNorm(new NormPlan(NormKind.Rms, 1e-6f, new WeightRef("bias")), 48, checkpoint);
        using DeviceWeights rope = cpu.LoadRope(AttentionScenario.Rope(RopePairing.Halves, 64), 100);
        using DeviceWeights shortRope = cpu.LoadRope(AttentionScenario.Rope(RopePairing.Halves, 32), 5);
        using DeviceWeights embedding = cpu.LoadEmbedding(
            new EmbeddingPlan(new WeightRef("qkv"), new WeightRef("qkv", FirstRow: 250)), 48, checkpoint, attention.Output, linear);
        using KvStorage kv = cpu.AllocateKv([new KvSlotPlan(2, 32)], KvFormat.F16, 4, 16);
        using Activations hidden = TestRows.Make(cpu, 1, 48), qkv = TestRows.Make(cpu, 1, 256), two = TestRows.Make(cpu, 2, 48);
        using Activations foreign = TestRows.Make(reference, 1, 48), mixed = TestRows.Make(cpu, 1, 128);

        Refused(() => cpu.Attend(attention, qkv, 0, null, mixed));
        TestRows.Begin(cpu, Step(pages: [0], length: 0, position: 7), kv);
        Refused(() => cpu.Multiply(linear, qkv, hidden));
        Refused(() => cpu.Multiply(linear, two, qkv));
        Refused(() => cpu.Multiply(norm, hidden, qkv));
        Refused(() => cpu.Multiply(linear, foreign, qkv));
        Refused(() => cpu.Normalize(norm, qkv, qkv));
        Refused(() => cpu.Normalize(norm, two, hidden));
        Refused(() => cpu.NormalizeHeads(attention, norm, null, qkv));
        Refused(() => cpu.NormalizeHeads(attention, null, null, hidden));
        Refused(() => cpu.RotateAndAppend(attention, rope, qkv, 0));
        Refused(() => cpu.RotateAndAppend(attention, shortRope, qkv, 0));
        Refused(() => cpu.RotateAndAppend(attention, null, qkv, 1));
        Refused(() => cpu.RotateAndAppend(attention with { KvHeads = 3 }, null, qkv, 0));
        Refused(() => cpu.Attend(attention with { KvHeads = 0 }, qkv, 0, null, mixed));
        Refused(() => cpu.Attend(attention with { SlidingWindow = 0 }, qkv, 0, null, mixed));
        Refused(() => cpu.Attend(attention, qkv, -1, null, mixed));
        Refused(() => cpu.Attend(attention, qkv, 0, null, hidden));
        Refused(() => cpu.Activate((Activation)99, hidden, two));
        Refused(() => cpu.Activate(Activation.SwiGlu, hidden, hidden));
        Refused(() => cpu.Gather(two, [2], hidden));
        Refused(() => cpu.Gather(two, [0, 1], hidden));
        Refused(() => cpu.ReadRows(hidden, new float[47]));
        Refused(() => cpu.Embed(embedding, hidden));
        Refused(() => cpu.Embed(embedding, two));
        hidden.Rows = 2;
        Refused(() => cpu.Normalize(norm, hidden, hidden));
        Refused(() => cpu.LoadRope(AttentionScenario.Rope(RopePairing.Halves, 64), 0));
    }

    [Fact]
    public void Weights_that_do_not_fit_are_refused_by_name()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using MemoryCheckpoint checkpoint = Weights(new Random(1));
        checkpoint.Add("bad", DType.F32, [4], MemoryMarshal.AsBytes<float>([1, float.NaN, 3, 4]));
        using DeviceWeights head = cpu.LoadLinear(attention.Output, checkpoint);
        Assert.Contains("bad", Refused(() => cpu.LoadNorm(Norm("bad"), 4, checkpoint)), StringComparison.Ordinal);
        Assert.Contains("bias", Refused(() => cpu.LoadNorm(Norm("bias"), 257, checkpoint)), StringComparison.Ordinal);
        Assert.Contains("qkv", Refused(() => cpu.LoadNorm(Norm("qkv"), 48, checkpoint)), StringComparison.Ordinal);
        Assert.Contains("absent", Refused(() => cpu.LoadNorm(Norm("absent"), 48, checkpoint)), StringComparison.Ordinal);
        foreach (WeightRef tokens in new WeightRef[] { new("bias"), new("qkv", FirstRow: 256), new("qkv", FirstRow: -1), new("qkv", Transposed: true) })
        {
            Assert.Contains(tokens.Tensor, Refused(() => cpu.LoadEmbedding(new EmbeddingPlan(tokens), 48, checkpoint, attention.Output, head)),
                StringComparison.Ordinal);
        }
    }

    private static NormPlan Norm(string gain) => new(NormKind.Rms, 1e-6f, new WeightRef(gain));

    private static string Refused(Action action) => Assert.Throws<EngineException>(action).Message;

    [SuppressMessage("Reliability", "CA2000", Justification = "it is never made")]
    private static string Refused(Func<object> action) => Assert.Throws<EngineException>(() => { action(); }).Message;

    private static MemoryCheckpoint Weights(Random random)
    {
        var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("qkv", [256, 48], TestRows.Normal(random, 256 * 48, 0.2));
        checkpoint.Add("bias", [256], TestRows.Normal(random, 256));
        checkpoint.Add("output", [48, 128], TestRows.Normal(random, 48 * 128, 0.1));
        return checkpoint;
    }

    private static StepPlan Step(int[] pages, int length, int position = 0, int slots = 1)
    {
        var step = new StepPlan(slots);
        step.AddTrack(0, 0);
        for (int slot = 0; slot < slots; slot++)
        {
            step.SetSlot(slot, pages, length);
        }
        step.AddRow(position, 0, logits: false);
        return step;
    }
}
