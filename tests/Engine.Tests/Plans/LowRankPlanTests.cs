using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Linears of feed-forwards that are stored as <c>left</c>, <c>right</c> and <c>sparse</c>.</summary>
public sealed class LowRankPlanTests
{
    private const string Linear = "model.layers.1.block_sparse_moe.experts.3.w1";

    [Fact]
    public void A_plan_names_the_factors_and_the_rows_that_are_not_zero()
    {
        TinyModel model = Compressed();
        float[] sparse = model.Tensors[$"{Linear}.sparse.weight"].Values;
        Array.Clear(sparse);
        (sparse[3 * 32 + 31], sparse[7 * 32], sparse[7 * 32 + 1], sparse[9 * 32]) = (float.Epsilon, 2, -2, -0f);
        LinearPart part = Read(model).In.Parts[0];
        Assert.Equal(new WeightRef($"{Linear}.sparse.weight"), part.Weight);
        Assert.Equal([3, 7], part.Rows!.Value);
        Assert.Equal(new LowRankTerm(part.LowRank!.Rank, new WeightRef($"{Linear}.right.weight"), new WeightRef($"{Linear}.left.weight")), part.LowRank);
        Assert.Equal((2, false), (part.KeptRows, part.IsPlain));
        Array.Clear(sparse);
        part = Read(model).In.Parts[0];
        Assert.Equal((null, null, 0), (part.Weight, part.Rows, part.KeptRows));
        Array.Fill(sparse, 1);
        part = Read(model).In.Parts[0];
        Assert.Equal((null, 20), (part.Rows, part.KeptRows));
    }

    [Fact]
    public void Mixtures_whose_compressed_experts_are_copies_share_slots()
    {
        TinyModel model = Compressed();
        foreach (string name in model.Tensors.Keys.Where(static name => name.Contains("experts.3.", StringComparison.Ordinal)).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[name];
            model.Tensors[name.Replace("experts.3.", "experts.5.", StringComparison.Ordinal)] = (shape, [.. values]);
        }
        RemoveOthers(model, 3, 5);
        Assert.Equal([0, 1, 2, 3, 4, 3], Experts(model).Map);
        model.Tensors[$"{Linear.Replace("experts.3", "experts.5", StringComparison.Ordinal)}.right.weight"].Values[0] += 1;
        Assert.Equal([0, 1, 2, 3, 4, 5], Experts(model).Map);
    }

    [Theory]
    [InlineData(".left.weight", "missing")]
    [InlineData(".right.weight", "missing")]
    public void A_factor_that_is_missing_is_named(string tensor, string reason)
    {
        TinyModel model = Compressed();
        model.Tensors.Remove(Linear + tensor);
        EngineException error = Assert.Throws<EngineException>(() => Read(model));
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        Assert.Contains(Linear + tensor, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Shapes_that_do_not_fit_are_refused()
    {
        Refused(".left.weight", [20, 4], "expected shape [20, 5]; found [20, 4]", 5);
        Refused(".right.weight", [5, 31], "expected shape [5, 32]; found [5, 31]", 5);
        Refused(".sparse.weight", [20, 33], "expected shape [20, 32]", 5);
        Refused(".left.weight", [20, 0], "expected shape [20, 5]", 5);
        Refused(".right.weight", [0, 32], "expected a rank from 1", 5);
        Refused(".left.weight", [100], "expected shape [20, 5]; found [100]", 5);
        Refused(".bias", [21], "expected shape [20]; found [21]", 5);

        static void Refused(string tensor, long[] shape, string reason, int rank)
        {
            TinyModel model = Compressed();
            model.Tensors[$"{Linear}.left.weight"] = ([20, rank], new float[20 * rank]);
            model.Tensors[$"{Linear}.right.weight"] = ([rank, 32], new float[rank * 32]);
            model.Tensors[Linear + tensor] = (shape, new float[shape.Aggregate(1L, static (a, b) => a * b)]);
            EngineException error = Assert.Throws<EngineException>(() => Read(model));
            Assert.Equal(Linear + tensor, error.Item);
            Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_linear_has_one_form()
    {
        TinyModel model = Compressed();
        model.AddMatrix($"{Linear}.weight", 20, 32, 32);
        Assert.Contains($"not known in a mixtral model: {Linear}.weight", Assert.Throws<EngineException>(() => Read(model)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Layers_without_experts_may_be_compressed_too()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        int[] tokens = model.Tokens(9);
        MemoryCheckpoint whole = model.ToCheckpoint();
        foreach (string linear in (string[])["gate_proj", "up_proj", "down_proj"])
        {
            string name = $"model.layers.1.mlp.{linear}";
            (long[] shape, float[] sparse) = model.Tensors[$"{name}.weight"];
            model.Tensors.Remove($"{name}.weight");
            (int outputs, int inputs) = ((int)shape[0], (int)shape[1]);
            model.AddMatrix($"{name}.left.weight", outputs, 3, 3);
            model.AddMatrix($"{name}.right.weight", 3, inputs, inputs);
            Array.Clear(sparse, inputs, sparse.Length - 5 * inputs);
            model.Tensors.Add($"{name}.sparse.weight", (shape, sparse));
            float[] left = model.Tensors[$"{name}.left.weight"].Values, right = model.Tensors[$"{name}.right.weight"].Values;
            whole.Add($"{name}.weight", shape, [.. sparse.Select((value, at) =>
                (float)(value + Enumerable.Range(0, 3).Sum(r => (double)left[at / inputs * 3 + r] * right[r * inputs + at % inputs])))]);
        }
        using var expected = new ModelHarness(whole, new CpuBackend(new CpuOptions { Threads = 2 }));
        using var actual = new ModelHarness(model.ToCheckpoint(), new CpuBackend(new CpuOptions { Threads = 2 }));
        double[][] logits = [.. expected.Run(tokens, chunk: 9).Select(static row => row.Select(static value => (double)value).ToArray())];
        FamiliesAgainstOracleTests.AssertClose(logits, actual.Run(tokens, chunk: 9), 1e-4, model);
        Assert.InRange(actual.Executor.WeightBytes, 1, expected.Executor.WeightBytes - 1);
    }

    private static TinyModel Compressed()
    {
        TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
        MoeLayouts.Compress(model);
        return model;
    }

    private static FeedForwardPlan Read(TinyModel model)
    {
        ExpertsPlan experts = Experts(model);
        return experts.Slots[experts.Map[3]];
    }

    private static ExpertsPlan Experts(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint).Experts().ElementAt(1);
    }

    /// <summary>Takes away what an expert has and its copy has not.</summary>
    private static void RemoveOthers(TinyModel model, int expert, int copy)
    {
        foreach (string name in model.Tensors.Keys.Where(name => name.Contains($"experts.{copy}.", StringComparison.Ordinal)
            && !model.Tensors.ContainsKey(name.Replace($"experts.{copy}.", $"experts.{expert}.", StringComparison.Ordinal))).ToArray())
        {
            model.Tensors.Remove(name);
        }
    }
}
