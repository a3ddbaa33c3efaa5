using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Pruning;

namespace Engine.Tests.Transforms;

/// <summary>Feed-forwards some of whose neurons are zero, as CAMERA-P leaves them: the same logits from fewer bytes.</summary>
public sealed class CompactedCheckpointTests
{
    private static readonly Dictionary<string, Action<TinyModel>> Layouts = new()
    {
        ["by expert"] = static _ => { },
        ["fused"] = MoeLayouts.Fuse,
        ["stacked"] = MoeLayouts.Stack,
    };

    public static TheoryData<string, string> Mixtures => [.. new[] { "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "phimoe" }
        .SelectMany(static name => Layouts.Keys.Select(layout => (name, layout)))];

    [Theory]
    [MemberData(nameof(Mixtures))]
    public void Experts_give_the_same_logits_from_fewer_bytes(string name, string layout)
    {
        int removed = 0;
        Random random = Seed.Fresh();
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, drawn => removed = Prune(drawn, random));
        Layouts[layout](model);
        using var whole = new ModelHarness(model.ToCheckpoint(), Backend(), pageTokens: 4, maxRows: 32);
        var compacted = Assert.IsType<CompactedCheckpoint>(CompactedCheckpoint.Apply(model.ToCheckpoint()));
        Assert.Equal(removed, compacted.RemovedNeurons);
        RequireConsistent(compacted);
        using var narrow = new ModelHarness(compacted, Backend(), pageTokens: 4, maxRows: 32);
        float[][] logits = narrow.Run(tokens, chunk: 8);
        FamiliesAgainstOracleTests.AssertClose(expected, logits, 1e-4, model);
        // Zeros change no sum, and what is left is summed in the order that it had.
        AssertAlike(whole.Run(tokens, chunk: 8), logits);
        Assert.InRange(narrow.Executor.Work.Experts.Bytes, 1, whole.Executor.Work.Experts.Bytes - 1);
        Assert.Equal(logits, narrow.Run(tokens, chunk: 1));
        Assert.InRange(narrow.Executor.WeightBytes, 1, whole.Executor.WeightBytes - 1);
        Assert.Contains(narrow.Plan.Experts().SelectMany(static experts => experts.Slots), static slot => slot.Width == 0);
        using var source = model.ToCheckpoint();
        long before = new WeightBytes(source).Totals(whole.Plan).Experts, after = new WeightBytes(compacted).Totals(narrow.Plan).Experts;
        int hidden = (int)model.Config["hidden_size"]!;
        Assert.Equal(3L * sizeof(float) * hidden * removed, before - after);
    }

    [Fact]
    public void Experts_that_add_a_bias_beside_a_shared_one_and_a_dense_layer_give_the_same_logits()
    {
        Random random = Seed.Fresh();
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw("llama_moe_rnn shared expert, bias, first layer dense", 13, drawn =>
        {
            Prune(drawn, random);
            Zero(drawn, "model.layers.0.mlp.", ("gate_proj", "up_proj", "down_proj"), random, 2);
            Zero(drawn, "model.layers.1.mlp_share.", ("gate_proj", "up_proj", "down_proj"), random, 1);
        });
        using var whole = new ModelHarness(model.ToCheckpoint(), Backend(), pageTokens: 4);
        using var narrow = new ModelHarness(CompactedCheckpoint.Apply(model.ToCheckpoint()), Backend(), pageTokens: 4);
        float[][] logits = narrow.Run(tokens, chunk: 8);
        FamiliesAgainstOracleTests.AssertClose(expected, logits, 1e-4, model);
        AssertAlike(whole.Run(tokens, chunk: 8), logits);
        BlockPlan dense = narrow.Plan.Layers.Blocks[0], mixed = narrow.Plan.Layers.Blocks[1];
        Assert.InRange(dense.FeedForward!.Width, 1, whole.Plan.Layers.Blocks[0].FeedForward!.Width - 1);
        Assert.InRange(mixed.Experts!.Slots[mixed.Experts.Shared[0].Slot].Width, 0, 27);
        Assert.Equal(1, mixed.Experts.Slots[1].Width);
    }

    [Theory]
    [InlineData("llama tied")]
    [InlineData("qwen3")]
    [InlineData("mistral window 8")]
    public void Layers_without_experts_have_widths_of_their_own(string name)
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make(name, random.Next());
        int removed = Zero(model, "model.layers.1.mlp.", ("gate_proj", "up_proj", "down_proj"), random, 1);
        int[] tokens = model.Tokens(9);
        using var whole = new ModelHarness(model.ToCheckpoint(), Backend(), pageTokens: 4);
        var compacted = Assert.IsType<CompactedCheckpoint>(CompactedCheckpoint.Apply(model.ToCheckpoint()));
        RequireConsistent(compacted);
        Assert.Equal(removed, compacted.RemovedNeurons);
        using var narrow = new ModelHarness(compacted, Backend(), pageTokens: 4);
        int width = (int)model.Config["intermediate_size"]!;
        Assert.Equal([width, width - removed, width], narrow.Plan.Layers.Steps.Select(step => narrow.Plan.Layers.Blocks[step.Block].FeedForward!.Width));
        AssertAlike(whole.Run(tokens, chunk: 9), narrow.Run(tokens, chunk: 9));
    }

    [Fact]
    public void A_layer_of_which_nothing_is_left_keeps_a_neuron()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        foreach (string linear in (string[])["gate_proj", "up_proj", "down_proj"])
        {
            Array.Clear(model.Tensors[$"model.layers.0.mlp.{linear}.weight"].Values);
        }
        int[] tokens = model.Tokens(5);
        using var whole = new ModelHarness(model.ToCheckpoint(), Backend());
        using var narrow = new ModelHarness(CompactedCheckpoint.Apply(model.ToCheckpoint()), Backend());
        Assert.Equal(1, narrow.Plan.Layers.Blocks[0].FeedForward!.Width);
        AssertAlike(whole.Run(tokens, chunk: 5), narrow.Run(tokens, chunk: 5));
    }

    [Fact]
    public void A_model_that_was_not_pruned_is_left_alone()
    {
        foreach (string name in (string[])["mixtral", "deepseek", "gpt_oss", "qwen3_moe"])
        {
            using MemoryCheckpoint checkpoint = MoeModels.Make(name, Random.Shared.Next()).ToCheckpoint();
            Assert.Same(checkpoint, CompactedCheckpoint.Apply(checkpoint));
        }
    }

    [Theory]
    [InlineData("model.layers.0.mlp.experts.0.down_proj.bias", 1)]
    [InlineData("model.layers.0.mlp.bias", 1)]
    [InlineData("model.layers.0.bias", 0)]
    public void An_expert_that_outputs_a_bias_keeps_a_neuron(string bias, int width)
    {
        using MemoryCheckpoint checkpoint = Expert("mixtral", new float[Width * Hidden], new float[Width * Hidden], new float[Width * Hidden]);
        checkpoint.Add(bias, [Hidden], [.. Enumerable.Repeat(1f, Hidden)]);
        using Checkpoint compacted = CompactedCheckpoint.Apply(checkpoint);
        Assert.Equal([Hidden, width], compacted["model.layers.0.mlp.experts.0.down_proj.weight"].Shape);
    }

    [Fact]
    public void What_may_contribute_is_kept()
    {
        (float[] gate, float[] up, float[] down) = Ones();
        Set(down, 0, 0);
        Set(down, 1, -0f);
        Set(down, 2, 0);
        down[2 * Width + 2] = float.Epsilon; // a column with one subnormal number
        Set(down, 3, 0);
        down[7 * Width + 3] = float.NaN;
        Array.Fill(gate, -0f, 4 * Hidden, Hidden);
        Array.Fill(up, 0, 5 * Hidden, Hidden);
        Array.Fill(up, 0, 6 * Hidden, Hidden - 1);
        Assert.Equal([2, 3, .. Enumerable.Range(6, Width - 6)], Kept("mixtral", false));
        // A bias, or an activation that adds to up, makes something of a row that is zero.
        Assert.Equal([.. Enumerable.Range(2, Width - 2)], Kept("mixtral", true));
        Assert.Equal([2, 3, -1, .. Enumerable.Range(5, Width - 5)], Kept("gpt_oss", false)); // row 4 of gate has lost its number

        int[] Kept(string family, bool bias)
        {
            using MemoryCheckpoint checkpoint = Expert(family, gate, up, new float[Width * Hidden]);
            checkpoint.Add("model.layers.0.mlp.experts.0.down_proj.weight", DType.F32, [Hidden, Width], MemoryMarshal.AsBytes<float>(down)); // NaN and all
            if (bias)
            {
                checkpoint.Add("model.layers.0.mlp.experts.0.up_proj.bias", [Width], [.. Enumerable.Range(0, Width).Select(static i => (float)i)]);
                checkpoint.Add("model.layers.0.mlp.experts.0.down_proj.bias", [Hidden], new float[Hidden]);
            }
            using Checkpoint compacted = CompactedCheckpoint.Apply(checkpoint);
            RequireConsistent(compacted);
            float[] left = compacted["model.layers.0.mlp.experts.0.gate_proj.weight"].ToFloats();
            if (bias)
            {
                float[] biases = compacted["model.layers.0.mlp.experts.0.up_proj.bias"].ToFloats();
                Assert.Equal(left.Length / Hidden, biases.Length);
                return [.. biases.Select(static value => (int)value)];
            }
            // The last element of a row of gate tells which it was.
            return [.. left.Chunk(Hidden).Select(static row => (int)row[^1] - 1)];
        }
    }

    [Theory]
    [InlineData(null, 64, 20, 20)]
    [InlineData("F16", 64, 20, 20)]
    [InlineData("Q8_0", 64, 20, 32)]
    [InlineData("Q8_0", 64, 0, 0)]
    [InlineData("Q8_0", 64, 33, 64)]
    [InlineData("Q4_K_M", 512, 100, 256)]
    [InlineData("Q4_K", 512, 257, 512)]
    [InlineData("Q6_K", 96, 40, 64)]
    [InlineData("Q4_0", 50, 40, 40)]
    public void Widths_stay_in_blocks_of_the_format_where_they_were(string? format, int width, int kept, int expected)
    {
        Random random = Seed.Fresh();
        float[] gate = Cpu.TestRows.Normal(random, width * Hidden), up = Cpu.TestRows.Normal(random, width * Hidden);
        float[] down = Cpu.TestRows.Normal(random, width * Hidden);
        int[] left = [.. Enumerable.Range(0, width).OrderBy(_ => random.Next()).Take(kept).Order()];
        foreach (int neuron in Enumerable.Range(0, width).Except(left))
        {
            for (int row = 0; row < Hidden; row++)
            {
                down[row * width + neuron] = 0;
            }
        }
        foreach (DType dtype in (DType[])[DType.F32, DType.BF16, DType.F16])
        {
            using MemoryCheckpoint checkpoint = Expert("mixtral", gate, up, down, width, dtype);
            using Checkpoint compacted = CompactedCheckpoint.Apply(checkpoint, format is null ? null : QuantizationRecipe.Named(format));
            Assert.Equal(expected < width, compacted is CompactedCheckpoint);
            Assert.Equal([Hidden, expected], compacted["model.layers.0.mlp.experts.0.down_proj.weight"].Shape);
            if (expected < width)
            {
                float[] all = checkpoint["model.layers.0.mlp.experts.0.up_proj.weight"].ToFloats();
                float[] rows = compacted["model.layers.0.mlp.experts.0.up_proj.weight"].ToFloats();
                Assert.Equal([.. left.SelectMany(row => all[(row * Hidden)..((row + 1) * Hidden)]), .. new float[(expected - kept) * Hidden]], rows);
                float[] columns = compacted["model.layers.0.mlp.experts.0.down_proj.weight"].ToFloats();
                float[] allColumns = checkpoint["model.layers.0.mlp.experts.0.down_proj.weight"].ToFloats();
                Assert.Equal([.. Enumerable.Range(0, Hidden).SelectMany(row =>
                    (float[])[.. left.Select(column => allColumns[row * width + column]), .. new float[expected - kept]])], columns);
            }
        }
    }

    [Theory]
    [InlineData("Q8_0")]
    [InlineData(null)]
    public void A_model_is_compacted_before_it_is_quantized(string? format)
    {
        Random random = Seed.Fresh();
        TinyModel model = MoeModels.Make("mixtral", random.Next(), """{"intermediate_size": 96, "num_experts_per_tok": 6}""");
        int[] tokens = model.Tokens(11);
        using LanguageModel full = Load();
        Prune(model, random);
        using LanguageModel pruned = Load();
        Assert.Equal(0, full.RemovedNeurons);
        Assert.InRange(pruned.RemovedNeurons, 1, int.MaxValue);
        Assert.InRange(pruned.WeightBytes, 1, full.WeightBytes - 1);
        double[][] expected = new MoeOracle(model).Logits(tokens);
        using LogitsSession session = pruned.CreateLogitsSession();
        double error = 0, power = 0;
        session.Feed(tokens, 0, (index, logits) =>
        {
            for (int i = 0; i < logits.Length; i++)
            {
                error += Math.Pow(logits[i] - expected[index][i], 2);
                power += Math.Pow(expected[index][i], 2);
            }
        });
        // All experts are chosen, so that eight bits can send no token elsewhere; see the test of MXFP4 on the CPU.
        Assert.InRange(Math.Sqrt(error / power), 0, format is null ? 1e-4 : 0.05);

        LanguageModel Load() => LanguageModel.Load(
            model.ToCheckpoint(), new LanguageModelOptions { Threads = 2, Quantize = format, KvFormat = Engine.Execution.KvFormat.F32 });
    }

    private const int Hidden = 8, Width = 12;

    private static CpuBackend Backend() => new(new CpuOptions { Threads = 2 });

    /// <summary>Expert 0 keeps all, expert 1 nothing, others lose from a few to most of their neurons, each in one of four ways. Says how many.</summary>
    private static int Prune(TinyModel model, Random random)
    {
        int removed = 0;
        foreach (string prefix in MoeLayouts.Mixtures(model))
        {
            for (int expert = 1; expert < MoeModels.Experts(model.Config); expert++)
            {
                removed += Zero(model, $"{prefix}experts.{expert}.", MoeModels.Projections(model.Config), random, expert == 1 ? 0 : 1 + expert % 4);
            }
        }
        return removed;
    }

    /// <summary>Leaves about one of <paramref name="of"/> neurons; none where it is 0.</summary>
    private static int Zero(TinyModel model, string prefix, (string Gate, string Up, string Down) names, Random random, int of)
    {
        (long[] shape, float[] down) = model.Tensors[$"{prefix}{names.Down}.weight"];
        int hidden = (int)shape[0], width = (int)shape[1], removed = 0;
        for (int neuron = 0; neuron < width; neuron++)
        {
            // The first goes in the way that authors' code does it, whole.
            if (neuron > 0 && of > 0 && random.Next(of + 1) == 0)
            {
                continue;
            }
            removed++;
            int way = neuron == 0 ? 0 : random.Next(4);
            if (way is 0 or 1)
            {
                Array.Fill(model.Tensors[$"{prefix}{names.Gate}.weight"].Values, random.Next(2) == 0 ? 0f : -0f, neuron * hidden, hidden);
            }
            if (way is 0 or 2)
            {
                Array.Clear(model.Tensors[$"{prefix}{names.Up}.weight"].Values, neuron * hidden, hidden);
            }
            for (int row = 0; row < hidden && way is 0 or 3; row++)
            {
                down[row * width + neuron] = 0;
            }
        }
        return removed;
    }

    /// <summary>One expert whose matrices are ones, but for the last column of gate, which numbers its rows from 1.</summary>
    private static (float[] Gate, float[] Up, float[] Down) Ones()
    {
        float[] gate = [.. Enumerable.Range(0, Width * Hidden).Select(static i => i % Hidden == Hidden - 1 ? i / Hidden + 1 : 1f)];
        return (gate, [.. Enumerable.Repeat(1f, Width * Hidden)], [.. Enumerable.Repeat(1f, Width * Hidden)]);
    }

    private static void Set(float[] down, int column, float value)
    {
        for (int row = 0; row < Hidden; row++)
        {
            down[row * Width + column] = value;
        }
    }

    private static MemoryCheckpoint Expert(string family, float[] gate, float[] up, float[] down, int width = Width, DType dtype = DType.F32)
    {
        var checkpoint = new MemoryCheckpoint("model", new JsonObject { ["model_type"] = family });
        const string Name = "model.layers.0.mlp.experts.0.";
        checkpoint.Add(Name + "gate_proj.weight", [width, Hidden], gate, dtype);
        checkpoint.Add(Name + "up_proj.weight", [width, Hidden], up, dtype);
        checkpoint.Add(Name + "down_proj.weight", [Hidden, width], down, dtype);
        return checkpoint;
    }

    /// <summary>Names are there once, and what is said of a tensor is what it is.</summary>
    private static void RequireConsistent(Checkpoint checkpoint)
    {
        Assert.Equal(checkpoint.TensorNames.Count, checkpoint.TensorNames.Distinct().Count());
        foreach (string name in checkpoint.TensorNames)
        {
            TensorView outline = checkpoint.Outline(name), tensor = checkpoint[name];
            Assert.Equal((outline.Name, outline.DType, outline.ByteLength), (tensor.Name, tensor.DType, tensor.ByteLength));
            Assert.Equal(outline.Shape, tensor.Shape);
            Assert.Equal(name, tensor.Name);
            Assert.False(tensor.IsOutline);
            Assert.Equal(tensor.ByteLength, tensor.Bytes.Length);
            if (outline.IsOutline)
            {
                Assert.Throws<InvalidOperationException>(() => { _ = outline.Bytes.Length; });
            }
        }
        Assert.False(checkpoint.TryGetTensor("nothing", out _));
    }

    /// <summary>
    /// What is left out contributes exactly nothing; but a neuron may now be computed in another lane of a vector or behind the last whole one, where the exponential
    /// of the activation is rounded otherwise.
    /// </summary>
    private static void AssertAlike(float[][] expected, float[][] actual) =>
        FamiliesAgainstOracleTests.AssertClose([.. expected.Select(static logits => Array.ConvertAll(logits, static value => (double)value))], actual, 1e-4, "compacted");
}
