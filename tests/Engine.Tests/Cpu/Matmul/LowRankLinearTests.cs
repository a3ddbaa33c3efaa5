using System.Collections.Immutable;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Linear maps of which a part is a low-rank product, some rows of a matrix, both, or nothing: against plain sums, and whatever surrounds a token.</summary>
public sealed class LowRankLinearTests
{
    private const int Inputs = 96;

    /// <summary>Outputs, rank (0: none), which rows of W there are, and whether there is a bias.</summary>
    private static readonly (int Outputs, int Rank, Func<int, bool>? Rows, bool Bias)[] Kinds =
    [
        (40, 5, static row => row % 7 == 3, true),
        (17, 3, static _ => true, true),
        (33, 1, null, false),
        (50, 0, static row => row is 0 or 49, true),
        (9, 0, null, true),
        (20, 0, static _ => true, false),
        (64, 32, static row => row < 20, false),
        (12, 0, static _ => false, false),
    ];

    public static TheoryData<DType> Formats => [DType.F32, DType.BF16, DType.Q8_0];

    [Theory]
    [MemberData(nameof(Formats))]
    public void Products_are_sums_in_double_precision(DType format)
    {
        Random random = Seed.Fresh();
        using var model = new Model(format, random);
        foreach (int threads in new[] { 1, 3 })
        {
            using var team = new ThreadTeam(threads);
            using PackedLinear linear = PackedLinear.Load(model.Plan, model.Checkpoint, team);
            foreach (int tokens in new[] { 1, 2, 19 })
            {
                float[] input = TestRows.Normal(random, tokens * Inputs), before = TestRows.Normal(random, tokens * model.Plan.Outputs);
                float[] set = MatmulData.Multiply(linear, team, input, tokens), added = MatmulData.Multiply(linear, team, input, tokens, before);
                for (int token = 0; token < tokens; token++)
                {
                    double[] expected = model.Multiply(input.AsSpan(token * Inputs, Inputs).ToArray());
                    for (int output = 0; output < expected.Length; output++)
                    {
                        int at = token * expected.Length + output;
                        // Q8_0 rounds each input by up to half a 127th of the largest of 32, which weights of that size turn into a few percent.
                        double tolerance = format == DType.Q8_0 ? 0.1 : 2e-5;
                        Assert.Equal(expected[output], set[at], tolerance);
                        Assert.Equal(expected[output] + before[at], added[at], tolerance);
                    }
                }
            }
        }
    }

    [Fact]
    public void The_reference_computes_the_same()
    {
        Random random = Seed.Fresh();
        using var model = new Model(DType.F32, random);
        using var reference = new ReferenceBackend();
        float[] input = TestRows.Normal(random, 2 * Inputs), before = TestRows.Normal(random, 2 * model.Plan.Outputs);
        using DeviceWeights weights = reference.LoadLinear(model.Plan, model.Checkpoint);
        foreach (bool accumulate in new[] { false, true })
        {
            using Activations x = TestRows.Make(reference, input, Inputs), y = TestRows.Make(reference, before, model.Plan.Outputs);
            reference.Multiply(weights, x, y, accumulate);
            float[] actual = TestRows.Read(reference, y);
            double[] expected = [.. model.Multiply(input[..Inputs]), .. model.Multiply(input[Inputs..])];
            for (int i = 0; i < expected.Length; i++)
            {
                Assert.Equal(expected[i] + (accumulate ? before[i] : 0), actual[i], 1e-6);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Bits_depend_on_nothing_but_the_tokens_row(DType format)
    {
        const int Tokens = 37;
        Random random = Seed.Fresh();
        using var model = new Model(format, random);
        using var one = new ThreadTeam(1);
        using PackedLinear linear = PackedLinear.Load(model.Plan, model.Checkpoint, one);
        float[] input = TestRows.Normal(random, Tokens * Inputs);
        float[] alone = [.. Enumerable.Range(0, Tokens).SelectMany(token => MatmulData.Multiply(linear, one, input[(token * Inputs)..], 1))];
        foreach (int threads in new[] { 1, 2, 3 })
        {
            using var team = new ThreadTeam(threads);
            MatmulData.AssertBits(alone, MatmulData.Multiply(linear, team, input, Tokens), $"{threads} threads");
        }
    }

    [Fact]
    public void Rows_that_are_zero_take_no_memory()
    {
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", [1600, Inputs], new float[1600 * Inputs]);
        using var team = new ThreadTeam(1);
        LinearPart whole = new(1600, new WeightRef("w"));
        using PackedLinear all = PackedLinear.Load(new LinearPlan(Inputs, [whole]), checkpoint, team);
        using PackedLinear some = PackedLinear.Load(new LinearPlan(Inputs, [whole with { Rows = [.. Enumerable.Range(7, 16)] }]), checkpoint, team);
        Assert.Equal(1600 * Inputs * 4, all.Bytes);
        Assert.Equal(16 * Inputs * 4 + 16 * 4, some.Bytes);
        var sizes = new WeightBytes(checkpoint);
        Assert.Equal(16 * Inputs * 4, sizes.Of(some.Plan));
    }

    [Fact]
    public void Multiplying_allocates_nothing()
    {
        using var model = new Model(DType.F32, new Random(1));
        using var team = new ThreadTeam(2);
        using PackedLinear linear = PackedLinear.Load(model.Plan, model.Checkpoint, team);
        Assert.Equal(0, Allocated(linear, team, new float[5 * Inputs], new float[5 * model.Plan.Outputs]));

        static unsafe long Allocated(PackedLinear linear, ThreadTeam team, float[] input, float[] output)
        {
            fixed (float* from = input, to = output)
            {
                float* source = from, destination = to;
                linear.Multiply(team, source, 5, destination, false);
                return Allocation.Of(() => linear.Multiply(team, source, 5, destination, false));
            }
        }
    }

    [Fact]
    public void A_plan_that_does_not_fit_is_refused()
    {
        using var checkpoint = new MemoryCheckpoint("model");
        checkpoint.Add("w", [8, Inputs], new float[8 * Inputs]);
        checkpoint.Add("a", [2, Inputs], new float[2 * Inputs]);
        checkpoint.Add("b", [8, 2], new float[16]);
        checkpoint.Add("nan", DType.F32, [8, 2], MemoryMarshal.AsBytes<float>([.. Enumerable.Repeat(float.NaN, 16)]));
        LinearPart part = new(8, new WeightRef("w"));
        Refused(part with { Rows = [3, 3] }, "w", "found 3");
        Refused(part with { Rows = [3, 8] }, "w", "found 8");
        Refused(part with { Rows = [-1] }, "w", "found -1");
        Refused(new LinearPart(Inputs, new WeightRef("w", Transposed: true)) { Rows = [1] }, "w", "expected the shape");
        Refused(part with { LowRank = new LowRankTerm(0, new WeightRef("a"), new WeightRef("b")) }, "a", "found 0");
        Refused(part with { LowRank = new LowRankTerm(3, new WeightRef("a"), new WeightRef("b")) }, "a", "expected the shape");
        Refused(part with { LowRank = new LowRankTerm(2, new WeightRef("a"), new WeightRef("a")) }, "a", "expected the shape");
        Refused(part with { LowRank = new LowRankTerm(2, new WeightRef("a"), new WeightRef("nan")) }, "nan", "NaN");

        void Refused(LinearPart bad, string item, string reason)
        {
            using var team = new ThreadTeam(1);
            EngineException error = Assert.Throws<EngineException>(() => PackedLinear.Load(new LinearPlan(Inputs, [bad]), checkpoint, team));
            Assert.Equal(item, error.Item);
            Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        }
    }

    /// <summary>A part of each kind, one behind the other.</summary>
    private sealed class Model : IDisposable
    {
        private readonly List<Func<float[], double[]>> parts = [];

        public Model(DType format, Random random)
        {
            var plan = ImmutableArray.CreateBuilder<LinearPart>();
            foreach ((int kind, (int outputs, int rank, Func<int, bool>? kept, bool bias)) in Kinds.Index())
            {
                float[] b = bias ? Add($"bias{kind}", DType.F32, [outputs], outputs, 1) : new float[outputs];
                int[] rows = [.. Enumerable.Range(0, outputs).Where(row => kept?.Invoke(row) == true)];
                // What the plan says is zero is not read: here it is not zero.
                float[] w = kept is null ? [] : Add($"w{kind}", format, [outputs, Inputs], outputs * Inputs, 0.1);
                float[] right = rank == 0 ? [] : Add($"a{kind}", format, [rank, Inputs], rank * Inputs, 0.1);
                float[] left = rank == 0 ? [] : Add($"b{kind}", rank % 32 == 0 ? format : DType.F32, [outputs, rank], outputs * rank, 0.3);
                plan.Add(new LinearPart(outputs, kept is null ? null : new WeightRef($"w{kind}"), bias ? new WeightRef($"bias{kind}") : null)
                {
                    Rows = rows.Length == outputs ? null : [.. rows],
                    LowRank = rank == 0 ? null : new LowRankTerm(rank, new WeightRef($"a{kind}"), new WeightRef($"b{kind}")),
                });
                parts.Add(x =>
                {
                    double[] narrow = [.. Enumerable.Range(0, rank).Select(row => Dot(right, row, x.Select(static value => (double)value)))];
                    return [.. Enumerable.Range(0, outputs).Select(row => b[row]
                        + (rows.Contains(row) ? Dot(w, row, x.Select(static value => (double)value)) : 0) + Dot(left, row, narrow))];
                });
            }
            Plan = new LinearPlan(Inputs, plan.ToImmutable());

            float[] Add(string name, DType type, long[] shape, int count, double scale) =>
                Checkpoint.Add(name, shape, TestRows.Normal(random, count, scale), type).ToFloats();

            static double Dot(float[] matrix, int row, IEnumerable<double> x)
            {
                double[] values = [.. x];
                return values.Select((value, i) => matrix[row * values.Length + i] * value).Sum();
            }
        }

        public MemoryCheckpoint Checkpoint { get; } = new("model");

        public LinearPlan Plan { get; }

        public double[] Multiply(float[] x) => [.. parts.SelectMany(part => part(x))];

        public void Dispose() => Checkpoint.Dispose();
    }
}
