using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Cpu;
using Xunit;

namespace Engine.Tests.Reference;

/// <summary>The oracle itself, against numbers that were worked out by hand or are printed in tables.</summary>
public sealed class ReferenceBackendTests
{
    [Theory]
    [InlineData(0.0, 1.0)]
    [InlineData(0.5, 0.4795001221869535)]
    [InlineData(1.0, 0.15729920705028513)]
    [InlineData(-1.0, 1.8427007929497148)]
    [InlineData(2.5, 4.069520174449589e-4)]
    [InlineData(5.0, 1.5374597944280349e-12)]
    public void Erfc_has_the_values_of_the_tables(double x, double expected) =>
        Assert.Equal(1, SpecialFunctions.Erfc(x) / expected, 1e-11);

    [Fact]
    public void Activations_have_their_known_values()
    {
        Assert.Equal(0.7310585786300049, SpecialFunctions.Silu(1), 1e-15);
        Assert.Equal(0.8413447460685429, SpecialFunctions.Gelu(1), 1e-14);
        Assert.Equal(0.8411919906082768, SpecialFunctions.GeluTanh(1), 1e-14);
        Assert.Equal(-0.15865525393145707, SpecialFunctions.Gelu(-1), 1e-14);
    }

    [Fact]
    public void A_quarter_turn_exchanges_the_elements_of_a_pair()
    {
        // One pair of each kind at position 1 with a frequency of π/2: (a, b) → (−b, a). A single token attends to itself alone, so v comes back.
        foreach ((RopePairing pairing, double[] expected) in new (RopePairing, double[])[]
        {
            (RopePairing.Halves, [-3, -4, 1, 2]),
            (RopePairing.Adjacent, [-2, 1, -4, 3]),
        })
        {
            using var backend = new ReferenceBackend();
            AttentionPlan plan = Plan(heads: 1, kvHeads: 1, headDim: 4, scale: 1);
            using Activations qkv = TestRows.Make(backend, [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8], 12), output = TestRows.Make(backend, 1, 4);
            using DeviceWeights rope = backend.LoadRope(new RopePlan(pairing, [Math.PI / 2, Math.PI / 2]), 2);
            using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 4)], KvFormat.F32, 1, 2);
            var step = new StepPlan(1);
            step.AddTrack(0, 0);
            step.SetSlot(0, [0], 0);
            step.AddRow(1, 0, logits: false);
            TestRows.Begin(backend, step, kv);
            backend.RotateAndAppend(plan, rope, qkv, 0);
            backend.Attend(plan, qkv, 0, null, output);
            for (int i = 0; i < 4; i++)
            {
                Assert.Equal(expected[i], ((ReferenceActivations)qkv).Row(0)[i], 1e-12);
            }
            Assert.Equal([5, 6, 7, 8], TestRows.Read(backend, output));
        }
    }

    [Theory]
    [InlineData(null, 0.25, 0.75)]
    [InlineData(1, 0.0, 1.0)]
    public void Attention_weighs_values_by_the_softmax_of_scaled_scores(int? window, double first, double second)
    {
        // Two tokens with keys 0 and ln 3, query 1, scale 2 on a query of ½: weights 1/4 and 3/4. Two query heads share the key head.
        float key = MathF.Log(3);
        using var backend = new ReferenceBackend();
        AttentionPlan plan = Plan(heads: 2, kvHeads: 1, headDim: 1, scale: 2) with { SlidingWindow = window };
        using Activations qkv = TestRows.Make(backend, [9, 9, 0, 10, 0.5f, 0, key, 20], 4), output = TestRows.Make(backend, 2, 2);
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 1)], KvFormat.F32, 3, 1);
        var step = new StepPlan(1);
        step.AddTrack(0, 0);
        step.SetSlot(0, [2, 0], 0);
        step.AddRow(0, 0, logits: false);
        step.AddRow(1, 0, logits: false);
        TestRows.Begin(backend, step, kv);
        backend.RotateAndAppend(plan, null, qkv, 0);
        backend.Attend(plan, qkv, 0, null, output);
        float[] result = TestRows.Read(backend, output);
        double even = window is null ? 15 : 20;
        TestRows.Close([10, 10, (float)(10 * first + 20 * second), (float)even], result, 1e-6, "attention");
    }

    [Fact]
    public void Stored_keys_and_values_are_rounded_as_their_format_says()
    {
        // A single token attends to itself, so the output is the stored value.
        var values = new float[96];
        values[64] = 12.7f;
        values[65] = 0.26f;
        values[66] = -1e9f;
        Assert.Equal(12.7f, Stored(KvFormat.F32, values)[0]);
        Assert.Equal([(float)(Half)12.7f, (float)(Half)0.26f, -65504f], Stored(KvFormat.F16, values).AsSpan(0, 3).ToArray());
        values[66] = 0;
        float scale = (float)(Half)(12.7f / 127);
        Assert.Equal([127 * scale, 3 * scale, 0], Stored(KvFormat.Q8_0, values).AsSpan(0, 3).ToArray());
    }

    [Fact]
    public void Norms_and_linear_maps_follow_their_definitions()
    {
        using var backend = new ReferenceBackend();
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("gain", [2], [2, 3]);
        checkpoint.Add("bias", [2], [10, 20]);
        checkpoint.Add("w", [2, 2], [1, 2, 3, 4]);
        using Activations x = TestRows.Make(backend, [3, 5], 2), y = TestRows.Make(backend, 1, 2);
        using DeviceWeights layer = backend.LoadNorm(new NormPlan(NormKind.Layer, 0, new WeightRef("gain"), new WeightRef("bias")), 2, checkpoint);
        backend.Normalize(layer, x, y);
        Assert.Equal([8, 23], TestRows.Read(backend, y));
        using DeviceWeights rms = backend.LoadNorm(new NormPlan(NormKind.Rms, 8, new WeightRef("gain")), 2, checkpoint);
        backend.Normalize(rms, x, y);
        Assert.Equal([6 / 5f, 15 / 5f], TestRows.Read(backend, y));

        // The second row of W, then W transposed, its second row too.
        var plan = new LinearPlan(2, [
            new LinearPart(1, new WeightRef("w", FirstRow: 1), new WeightRef("bias", FirstRow: 1)),
            new LinearPart(1, new WeightRef("w", FirstRow: 1, Transposed: true))]);
        using DeviceWeights linear = backend.LoadLinear(plan, checkpoint);
        backend.Multiply(linear, x, y, accumulate: false);
        Assert.Equal([49, 26], TestRows.Read(backend, y));
        backend.Multiply(linear, x, y, accumulate: true);
        Assert.Equal([98, 52], TestRows.Read(backend, y));
    }

    private static float[] Stored(KvFormat format, float[] qkvValues)
    {
        using var backend = new ReferenceBackend();
        AttentionPlan plan = Plan(heads: 1, kvHeads: 1, headDim: 32, scale: 1);
        using Activations qkv = TestRows.Make(backend, qkvValues, 96), output = TestRows.Make(backend, 1, 32);
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 32)], format, 1, 4);
        var step = new StepPlan(1);
        step.AddTrack(0, 0);
        step.SetSlot(0, [0], 0);
        step.AddRow(0, 0, logits: false);
        TestRows.Begin(backend, step, kv);
        backend.RotateAndAppend(plan, null, qkv, 0);
        backend.Attend(plan, qkv, 0, null, output);
        return TestRows.Read(backend, output);
    }

    private static AttentionPlan Plan(int heads, int kvHeads, int headDim, float scale) => new()
    {
        Heads = heads,
        KvHeads = kvHeads,
        HeadDim = headDim,
        Scale = scale,
        Qkv = new LinearPlan(1, [new LinearPart((heads + 2 * kvHeads) * headDim, new WeightRef("qkv"))]),
        Output = new LinearPlan(1, [new LinearPart(1, new WeightRef("output"))]),
    };
}
