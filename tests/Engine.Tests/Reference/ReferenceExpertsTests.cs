using System.Collections.Immutable;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Cpu;
using Xunit;

namespace Engine.Tests.Reference;

/// <summary>Mixtures of experts of the reference against loops over the same weights.</summary>
public sealed class ReferenceExpertsTests : IDisposable
{
    private const int Hidden = 5, Rows = 7;

    private readonly Random random = Seed.Fresh();
    private readonly MemoryCheckpoint checkpoint = new();
    private readonly ReferenceBackend backend = new();
    private int tensors;

    public void Dispose()
    {
        checkpoint.Dispose();
        backend.Dispose();
    }

    [Theory]
    [InlineData(Activation.SwiGlu)]
    [InlineData(Activation.GeluTanh)]
    public void Outputs_of_the_chosen_are_added_with_their_weights(Activation activation)
    {
        // Widths differ and one is 0; experts 1 and 4 share a slot, expert 2 was dropped; one shared expert has a gate, one a constant.
        FeedForwardPlan[] slots = [.. new[] { 4, 0, 1, 6, 3, 2 }.Select(width => FeedForward(activation, width))];
        ExpertsPlan plan = Plan(slots, [0, 2, -1, 1, 2, 3], gates: 1) with
        {
            Shared = [new SharedExpert(4, Gate: 6), new SharedExpert(5, Weight: 0.5f)],
        };
        float[] x = TestRows.Normal(random, Rows * Hidden), before = TestRows.Normal(random, Rows * Hidden);
        float[] logits = TestRows.Normal(random, Rows * 7, scale: 2);
        float[] expected = [.. before];
        for (int r = 0; r < Rows; r++)
        {
            float[] z = logits[(r * 7)..(r * 7 + 7)];
            int[] top = [.. new[] { 0, 1, 3, 4, 5 }.OrderByDescending(i => z[i]).Take(3)];
            double sum = top.Sum(i => Math.Exp(z[i]));
            foreach (int expert in top)
            {
                AddTo(expected, r, x, slots[plan.Map[expert]], Math.Exp(z[expert]) / sum);
            }
            AddTo(expected, r, x, slots[4], 1 / (1 + Math.Exp(-z[6])));
            AddTo(expected, r, x, slots[5], 0.5);
        }
        (float[] actual, int[][] selected) = Run(plan, logits, x, before, perToken: 3);
        TestRows.Close(expected, actual, 1e-5, "output");
        Assert.All(selected, static row => Assert.Equal(row.Distinct(), row));
    }

    [Fact]
    public void A_bank_with_a_map_equals_one_with_copies()
    {
        FeedForwardPlan[] distinct = [FeedForward(Activation.SwiGlu, 4), FeedForward(Activation.SwiGlu, 3)];
        float[] x = TestRows.Normal(random, Rows * Hidden), logits = TestRows.Normal(random, Rows * 4), before = new float[x.Length];
        ExpertsPlan mapped = Plan(distinct, [0, 1, 1, 0]), copies = Plan([distinct[0], distinct[1], distinct[1], distinct[0]], [0, 1, 2, 3]);
        (float[] expected, _) = Run(copies, logits, x, before, perToken: 3);
        (float[] actual, int[][] selected) = Run(mapped, logits, x, before, perToken: 3);
        TestRows.Close(expected, actual, 1e-6, "output");
        Assert.All(selected, static row => Assert.Equal(2, row.Length));
    }

    [Fact]
    public void What_was_dropped_leaves_its_weight_to_the_others()
    {
        FeedForwardPlan[] slots = [.. Enumerable.Range(0, 3).Select(_ => FeedForward(Activation.SwiGlu, 4))];
        float[] x = TestRows.Normal(random, Rows * Hidden), before = new float[x.Length];
        float[] logits = [.. Enumerable.Range(0, Rows).SelectMany(_ => new[] { 1f, 9, 1 })];
        var expected = new float[x.Length];
        for (int r = 0; r < Rows; r++)
        {
            AddTo(expected, r, x, slots[0], 0.5);
            AddTo(expected, r, x, slots[2], 0.5);
        }
        TestRows.Close(expected, Run(Plan(slots, [0, -1, 2]), logits, x, before, perToken: 2).Output, 1e-5, "output");
    }

    [Fact]
    public void Experts_that_nobody_goes_to_and_those_of_width_0_do_nothing()
    {
        FeedForwardPlan empty = FeedForward(Activation.SwiGlu, 0), other = FeedForward(Activation.SwiGlu, 4);
        float[] x = TestRows.Normal(random, Rows * Hidden), before = TestRows.Normal(random, x.Length);
        float[] logits = [.. Enumerable.Range(0, Rows).SelectMany(static r => r == 3 ? new[] { 0f, 1 } : [1, 0])];
        float[] expected = [.. before];
        AddTo(expected, 3, x, other, 1);
        (float[] actual, int[][] selected) = Run(Plan([empty, other], [0, 1]), logits, x, before, perToken: 1);
        TestRows.Close(expected, actual, 1e-5, "output");
        Assert.Equal([0, 0, 0, 1, 0, 0, 0], selected.Select(static row => Assert.Single(row)));
    }

    [Fact]
    public void A_selection_without_room_is_refused()
    {
        ExpertsPlan plan = Plan([FeedForward(Activation.SwiGlu, 1)], [0, 0, -1]);
        float[] x = new float[Rows * Hidden];
        Assert.Throws<EngineException>(() => Run(plan, new float[Rows * 3], x, x, perToken: 3));
        Assert.Throws<EngineException>(() => Run(plan, new float[Rows * 3], x, x, perToken: 0));
    }

    /// <summary>before + mixture(x), and the slots of each row.</summary>
    private (float[] Output, int[][] Slots) Run(ExpertsPlan plan, float[] logits, float[] x, float[] before, int perToken)
    {
        int most = perToken + plan.Shared.Length;
        using Activations z = TestRows.Make(backend, logits, logits.Length / Rows);
        using Activations input = TestRows.Make(backend, x, Hidden), output = TestRows.Make(backend, before, Hidden);
        using ExpertSelection selection = backend.AllocateSelection(Rows + 1, most);
        using DeviceWeights experts = backend.LoadExperts(plan, checkpoint);
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 1)], KvFormat.F32, 1, Rows);
        var step = new StepPlan(1);
        step.AddTrack(0, 0);
        step.SetSlot(0, [0], 0);
        for (int r = 0; r < Rows; r++)
        {
            step.AddRow(r, 0, logits: false);
        }
        TestRows.Begin(backend, step, kv);
        backend.SelectExperts(plan, z, perToken, selection);
        backend.ApplyExperts(experts, input, selection, output);
        backend.EndStep();
        var slots = new int[Rows * most];
        var weights = new float[Rows * most];
        backend.ReadSelection(selection, slots, weights);
        Assert.All(slots.Zip(weights), static pair => Assert.True(pair.First >= 0 || pair.Second == 0));
        return (TestRows.Read(backend, output), [.. slots.Chunk(most).Select(static row => row.TakeWhile(static slot => slot >= 0).ToArray())]);
    }

    /// <summary>output[row] += weight · (W₂ · act(W₁ · x[row]) + b).</summary>
    private void AddTo(float[] output, int row, float[] x, FeedForwardPlan plan, double weight)
    {
        if (plan.Width == 0)
        {
            return;
        }
        float[] inWeights = Read(plan.In.Parts[0].Weight!), down = Read(plan.Down.Parts[0].Weight!), bias = Read(plan.Down.Parts[0].Bias!);
        for (int o = 0; o < Hidden; o++)
        {
            double y = bias[o];
            for (int i = 0; i < plan.Width; i++)
            {
                double first = Dot(inWeights, i, x, row);
                double inner = plan.Activation == Activation.SwiGlu
                    ? SpecialFunctions.Silu(first) * Dot(inWeights, plan.Width + i, x, row)
                    : SpecialFunctions.GeluTanh(first);
                y += down[o * plan.Width + i] * inner;
            }
            output[row * Hidden + o] += (float)(weight * y);
        }
    }

    private static double Dot(float[] matrix, int matrixRow, float[] x, int row) =>
        Enumerable.Range(0, Hidden).Sum(i => (double)matrix[matrixRow * Hidden + i] * x[row * Hidden + i]);

    private float[] Read(WeightRef weight)
    {
        TensorView view = checkpoint[weight.Tensor];
        var values = new float[view.ElementCount];
        for (int row = 0; row < view.Rows; row++)
        {
            Codec.For(view.DType).Decode(view.Row(row), values.AsSpan((int)(row * view.Columns), (int)view.Columns));
        }
        return values;
    }

    /// <summary>A feed-forward with fresh weights; one of width 0 names tensors that do not exist.</summary>
    private FeedForwardPlan FeedForward(Activation activation, int width)
    {
        int inner = activation == Activation.SwiGlu ? 2 * width : width;
        string name = $"expert{tensors++}.";
        if (width > 0)
        {
            checkpoint.Add(name + "in", [inner, Hidden], TestRows.Normal(random, inner * Hidden));
            checkpoint.Add(name + "down", [Hidden, width], TestRows.Normal(random, Hidden * width));
            checkpoint.Add(name + "bias", [Hidden], TestRows.Normal(random, Hidden));
        }
        return new FeedForwardPlan(
            activation, width,
            new LinearPlan(Hidden, [new LinearPart(inner, new WeightRef(name + "in"))]),
            new LinearPlan(width, [new LinearPart(Hidden, new WeightRef(name + "down"), new WeightRef(name + "bias"))]));
    }

    private static ExpertsPlan Plan(FeedForwardPlan[] slots, ImmutableArray<int> map, int gates = 0) => new()
    {
        Router = new RouterPlan
        {
            Logits = new LinearPlan(Hidden, [new LinearPart(map.Length + gates, new WeightRef("router"))]),
            Experts = map.Length,
            PerToken = 1,
            Normalize = true,
        },
        Slots = [.. slots],
        Map = map,
    };
}
