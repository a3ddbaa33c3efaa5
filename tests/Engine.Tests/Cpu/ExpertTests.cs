using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Cpu.Matmul;
using Xunit;

namespace Engine.Tests.Cpu;

/// <summary>Mixtures of experts on the CPU: against the reference, and whatever surrounds a row.</summary>
public sealed class ExpertTests
{
    private const int Hidden = 256, Experts = 7, PerToken = 3;

    public static TheoryData<DType> Formats => [DType.F32, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q6_K, DType.Q2_K, DType.IQ4_XS];

    [Theory]
    [MemberData(nameof(Formats))]
    public void Experts_agree_with_the_reference(DType format)
    {
        Random random = Seed.Fresh();
        using MemoryCheckpoint checkpoint = Weights(format, random);
        ExpertsPlan plan = Plan(random);
        using var reference = new ReferenceBackend();
        foreach (int threads in new[] { 1, 3 })
        {
            using var cpu = new CpuBackend(new CpuOptions { Threads = threads });
            foreach (int rows in new[] { 1, 2, 9, 40 })
            {
                float[] input = format.IsFloat() ? TestRows.Normal(random, rows * Hidden) : MatmulData.ExactInput(rows * Hidden, random);
                (float[] expected, _) = Run(reference, plan, checkpoint, input);
                (float[] actual, _) = Run(cpu, plan, checkpoint, input);
                // Between the two linears a block format rounds activations to 8 bits, which the reference does not.
                double scale = expected.Max(Math.Abs), tolerance = format.IsFloat() ? 2e-6 : 0.02;
                for (int i = 0; i < expected.Length; i++)
                {
                    Assert.True(Math.Abs(expected[i] - actual[i]) <= tolerance * scale,
                        $"{format}, {rows} rows, {threads} threads: element {i} is {actual[i]}, not {expected[i]} ± {tolerance * scale}");
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_row_has_the_same_bits_alone_and_among_others_and_with_any_threads(DType format)
    {
        const int Rows = 60;
        Random random = Seed.Fresh();
        using MemoryCheckpoint checkpoint = Weights(format, random);
        ExpertsPlan plan = Plan(random);
        using var one = new CpuBackend(new CpuOptions { Threads = 1 });
        float[] input = TestRows.Normal(random, Rows * Hidden);
        float[] alone = [.. Enumerable.Range(0, Rows).SelectMany(row => Run(one, plan, checkpoint, input[(row * Hidden)..((row + 1) * Hidden)], row).Output)];
        foreach (int threads in new[] { 1, 2, 3 })
        {
            using var cpu = new CpuBackend(new CpuOptions { Threads = threads });
            TestRows.SameBits(alone, Run(cpu, plan, checkpoint, input).Output, $"{format}, {threads} threads");
        }
    }

    [Fact]
    public void Experts_that_share_a_slot_are_as_experts_with_equal_weights()
    {
        Random random = Seed.Fresh();
        using MemoryCheckpoint checkpoint = Weights(DType.F32, random);
        ExpertsPlan merged = Plan(random) with { Map = [0, 1, 2, 0, 1, 2, 3], Shared = [] };
        ExpertsPlan copied = merged with { Map = [0, 1, 2, 3, 4, 5, 6], Slots = [.. merged.Map.Select(slot => merged.Slots[slot])] };
        using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
        float[] input = TestRows.Normal(random, 20 * Hidden);
        TestRows.Close(Run(cpu, copied, checkpoint, input).Output, Run(cpu, merged, checkpoint, input).Output, 1e-5, "merged");
    }

    [Fact]
    public void Experts_that_no_row_goes_to_are_not_read_and_few_that_fit_give_the_same_bits()
    {
        Random random = Seed.Fresh();
        using MemoryCheckpoint checkpoint = Weights(DType.Q8_0, random);
        ExpertsPlan plan = Plan(random) with { Map = [0, -1, 2, -1, 2, 3, 0], Shared = [] };
        float[] input = TestRows.Normal(random, 30 * Hidden);
        using var all = new CpuBackend(new CpuOptions { Threads = 2 });
        (float[] expected, long everything) = Run(all, plan, checkpoint, input);
        using var lazy = new CpuBackend(new CpuOptions { Threads = 2, ExpertBytes = long.MaxValue });
        (float[] visited, long some) = Run(lazy, plan, checkpoint, input);
        TestRows.SameBits(expected, visited, "packed when visited");
        Assert.InRange(some, 1, everything - 1);
        using var tight = new CpuBackend(new CpuOptions { Threads = 2, ExpertBytes = 1 });
        for (int row = 0; row < 30; row++)
        {
            (float[] output, long held) = Run(tight, plan, checkpoint, input[(row * Hidden)..((row + 1) * Hidden)], row);
            TestRows.SameBits(expected.AsSpan(row * Hidden, Hidden), output, $"row {row}, room for one");
            Assert.InRange(held, 1, everything - 1);
        }
    }

    [Fact]
    public void A_mixture_that_is_disposed_gives_its_room_back()
    {
        Random random = Seed.Fresh();
        using MemoryCheckpoint checkpoint = Weights(DType.Q8_0, random);
        using var team = new ThreadTeam(1);
        var memory = new ExpertMemory(null);
        for (int i = 0; i < 2; i++)
        {
            using (var experts = new CpuExperts(Plan(random), checkpoint, memory, (plan, from) => PackedLinear.Load(plan, from, team)))
            {
                experts.RequireAll();
                Assert.Equal(experts.Bytes, memory.Bytes);
                Assert.NotEqual(0, memory.Bytes);
            }
            Assert.Equal(0, memory.Bytes);
        }
    }

    [Fact]
    public void A_warm_mixture_allocates_nothing()
    {
        using MemoryCheckpoint checkpoint = Weights(DType.Q8_0, new Random(1));
        ExpertsPlan plan = Plan(new Random(1));
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using var mixture = new Mixture(cpu, plan, checkpoint, TestRows.Normal(new Random(2), 5 * Hidden), 0);
        mixture.Run();
        Assert.Equal(0, Allocation.Of(mixture.Run));
    }

    internal static (float[] Output, long Bytes) Run(IBackend backend, ExpertsPlan plan, Checkpoint checkpoint, float[] input, int position = 0)
    {
        using var mixture = new Mixture(backend, plan, checkpoint, input, position);
        mixture.Run();
        return (TestRows.Read(backend, mixture.Output), mixture.Experts.Bytes);
    }

    /// <summary>Slots of widths 0 to 96, two experts of one slot, a dropped one, and two shared slots.</summary>
    internal static ExpertsPlan Plan(Random random)
    {
        int[] widths = [64, 256, 0, 512, 256, 256];
        FeedForwardPlan[] slots = [.. widths.Select(static (width, slot) => new FeedForwardPlan(
            Activation.SwiGlu, width,
            new LinearPlan(Hidden, [new LinearPart(width, new WeightRef("in", slot * 7)), new LinearPart(width, new WeightRef("in", 500 + slot))]),
            new LinearPlan(width, [new LinearPart(Hidden, new WeightRef($"down{width}"))])))];
        return new ExpertsPlan
        {
            Router = new RouterPlan
            {
                Logits = new LinearPlan(Hidden, [new LinearPart(Experts + 1, new WeightRef("router"))]),
                Experts = Experts,
                PerToken = PerToken,
                Normalize = random.Next(2) == 0,
                Scale = 1.5f,
            },
            Slots = [.. slots],
            Map = [3, 1, 2, 0, -1, 1, 4],
            Shared = [new SharedExpert(5, Gate: Experts), new SharedExpert(0, Weight: 0.5f)],
        };
    }

    private static MemoryCheckpoint Weights(DType format, Random random)
    {
        var checkpoint = new MemoryCheckpoint();
        Add("router", DType.F32, Experts + 1, Hidden);
        Add("in", format, 1100, Hidden);
        foreach (int width in new[] { 64, 256, 512 })
        {
            Add($"down{width}", width % format.Info().BlockElements == 0 ? format : DType.Q8_0, Hidden, width);
        }
        return checkpoint;

        void Add(string name, DType type, int rows, int columns)
        {
            float[] values = TestRows.Normal(random, rows * columns, 1 / Math.Sqrt(columns));
            var bytes = new byte[rows * type.RowBytes(columns)];
            for (int row = 0; row < rows; row++)
            {
                Engine.Checkpoints.Codecs.Codec.For(type).Encode(
                    values.AsSpan(row * columns, columns), bytes.AsSpan(checked((int)(row * type.RowBytes(columns))), (int)type.RowBytes(columns)));
            }
            checkpoint.Add(name, type, [rows, columns], bytes);
        }
    }

    /// <summary>A mixture of experts over some rows of one sequence, ready to be run.</summary>
    private sealed class Mixture : IDisposable
    {
        private readonly IBackend backend;
        private readonly ExpertsPlan plan;
        private readonly DeviceWeights router;
        private readonly Activations input, logits;
        private readonly ExpertSelection selection;
        private readonly KvStorage kv;

        public Mixture(IBackend backend, ExpertsPlan plan, Checkpoint checkpoint, float[] values, int position)
        {
            this.backend = backend;
            this.plan = plan;
            int rows = values.Length / Hidden;
            router = backend.LoadLinear(plan.Router.Logits, checkpoint);
            Experts = backend.LoadExperts(plan, checkpoint);
            input = TestRows.Make(backend, values, Hidden);
            Output = TestRows.Make(backend, values, Hidden);
            logits = TestRows.Make(backend, rows, plan.Router.Logits.Outputs);
            selection = backend.AllocateSelection(rows, PerToken + plan.Shared.Length);
            kv = backend.AllocateKv([new KvSlotPlan(1, 32)], KvFormat.F32, 1 + (position + rows) / 16, 16);
            var step = new StepPlan(1);
            step.AddTrack(0, 0);
            step.SetSlot(0, [.. Enumerable.Range(0, 1 + (position + rows) / 16)], position);
            for (int row = 0; row < rows; row++)
            {
                step.AddRow(position + row, row, logits: false);
            }
            TestRows.Begin(backend, step, kv);
        }

        public DeviceWeights Experts { get; }

        public Activations Output { get; }

        public void Run()
        {
            backend.Multiply(router, input, logits);
            backend.SelectExperts(plan, logits, PerToken, selection);
            backend.ApplyExperts(Experts, input, selection, Output);
        }

        public void Dispose()
        {
            backend.EndStep();
            foreach (IDisposable owned in new IDisposable[] { kv, selection, logits, Output, input, Experts, router })
            {
                owned.Dispose();
            }
        }
    }
}
