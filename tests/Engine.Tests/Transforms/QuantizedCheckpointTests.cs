using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Writing;
using Engine.Execution;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Transforms;

/// <summary>Models that are quantized while they are loaded.</summary>
public sealed class QuantizedCheckpointTests
{
    private static readonly string Root = Path.Combine(AppContext.BaseDirectory, "Golden");

    // What is covered, said once more: the last word but one of the names.
    private static readonly string[] Matrices =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"];

    public static TheoryData<string> Goldens =>
    [
        .. Directory.GetFiles(Root, "config.json", SearchOption.AllDirectories).Select(static file => Path.GetDirectoryName(file)!)
            .Select(static folder => Path.GetRelativePath(Root, folder))
            .Where(static name => name.StartsWith("mor", StringComparison.Ordinal) || name.StartsWith("parscale", StringComparison.Ordinal)).Order(),
    ];

    [Theory]
    [MemberData(nameof(Goldens))]
    public void A_golden_is_that_of_a_checkpoint_quantized_beforehand(string name)
    {
        foreach (string format in (ReadOnlySpan<string>)["Q8_0", "Q4_0", "F16"])
        {
            (float[][] expected, int[] expectedDepths) = Run(Beforehand(name, format), null);
            (float[][] found, int[] depths) = Run(CheckpointFile.Open(Path.Combine(Root, name)), format);
            Assert.Equal(expectedDepths, depths);
            for (int t = 0; t < expected.Length; t++)
            {
                Cpu.TestRows.SameBits(expected[t], found[t], $"{format}, token {t}");
            }
        }
    }

    [Fact]
    public void Of_compressed_linears_the_rows_are_quantized_and_the_narrow_matrices_are_not()
    {
        TinyModel model = MoeModels.Make("mixtral", Seed.Fresh().Next(), """{"num_experts_per_tok": 6}""");
        MoeLayouts.Compress(model);
        int[] tokens = model.Tokens(9);
        double[][] expected = new MoeOracle(model).Logits(tokens);
        using MemoryCheckpoint source = model.ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(source);
        using var harness = new ModelHarness(
            new QuantizedCheckpoint(model.ToCheckpoint(), QuantizationRecipe.Named("Q8_0")), new Engine.Cpu.CpuBackend(new() { Threads = 2 }), plan: plan);
        using var quantized = new QuantizedCheckpoint(model.ToCheckpoint(), QuantizationRecipe.Named("Q8_0"));
        const string Linear = "model.layers.1.block_sparse_moe.experts.3.w3";
        Assert.Equal(DType.Q8_0, quantized[$"{Linear}.sparse.weight"].DType);
        Assert.Equal(DType.Q8_0, quantized.Outline($"{Linear}.sparse.weight").DType);
        Assert.Equal(DType.F32, quantized[$"{Linear}.left.weight"].DType);
        Assert.Equal(DType.F32, quantized[$"{Linear}.right.weight"].DType);
        float[][] actual = harness.Run(tokens, chunk: 9);
        double error = 0, power = 0;
        foreach ((double want, float found) in expected.SelectMany(static row => row).Zip(actual.SelectMany(static row => row)))
        {
            error += (want - found) * (want - found);
            power += want * want;
        }
        // All experts are chosen, so that eight bits send no token elsewhere; some random models amplify the rounding to 0.06. Logits of other weights have nothing in
        // common with these, and are off by 1 or more.
        Assert.InRange(Math.Sqrt(error / power), 1e-6, 0.2);
        Assert.Equal(actual, harness.Run(tokens, chunk: 1));
    }

    [Theory]
    [MemberData(nameof(Goldens))]
    public void Eight_bits_change_a_golden_little_and_less_than_four(string name)
    {
        (float[][] exact, int[] depths) = Run(CheckpointFile.Open(Path.Combine(Root, name)), null);
        (float[][] eight, int[] depthsOfEight) = Run(CheckpointFile.Open(Path.Combine(Root, name)), "q8_0");
        (float[][] four, int[] depthsOfFour) = Run(CheckpointFile.Open(Path.Combine(Root, name)), "q4_0");
        // A router whose output is near zero may decide otherwise; what follows in the sequence then differs for that reason.
        int same = depths.Zip(depthsOfEight).TakeWhile(static pair => pair.First == pair.Second).Count();
        int sameOfFour = depths.Zip(depthsOfFour).TakeWhile(static pair => pair.First == pair.Second).Count();
        Assert.True(same > 0, "the first token already goes to another depth");
        double difference = Difference(exact, eight, same);
        // The goldens have random weights of deviations far above a trained model's, so that rounding is far larger in them, too.
        Assert.InRange(difference, 1e-6, 0.15);
        int common = Math.Min(same, sameOfFour);
        Assert.True(common == 0 || Difference(exact, eight, common) < 0.5 * Difference(exact, four, common));
    }

    [Fact]
    public void What_is_not_a_matrix_of_the_backbone_stays_as_it_is()
    {
        string[] kept = ["mor/mor_expert_rec2_mlp_fullnames_bf16", "parscale/p8_tied_bf16"];
        foreach (string name in kept)
        {
            using Checkpoint source = CheckpointFile.Open(Path.Combine(Root, name));
            QuantizedCheckpoint quantized = new(source, QuantizationRecipe.Named("Q8_0"));
            Assert.Equal(source.TensorNames, quantized.TensorNames);
            foreach (string tensor in source.TensorNames)
            {
                bool covered = IsMatrix(tensor);
                Assert.Equal(covered, QuantizedCheckpoint.Covers(tensor));
                Assert.Equal(quantized[tensor].DType, quantized.TypeOf(tensor));
                Assert.True(covered || ReferenceEquals(source[tensor], quantized[tensor]), tensor);
                // Rows of 80 elements are not whole blocks of 32.
                Assert.True(!covered || quantized[tensor].DType == (source[tensor].Columns % 32 == 0 ? DType.Q8_0 : DType.F16), tensor);
            }
            Assert.Contains(source.TensorNames, static tensor => tensor.Contains("router", StringComparison.Ordinal)
                || tensor.Contains("aggregate_layer", StringComparison.Ordinal));
        }
    }

    [Fact]
    public void Experts_are_matrices_in_every_layout_and_routers_and_gates_are_not()
    {
        foreach (string family in ExpertModels.Families)
        {
            foreach (bool fused in new[] { false, true })
            {
                var model = ExpertModels.Make(family);
                using Checkpoint source = (fused ? ExpertModels.Fuse(model) : model).ToCheckpoint();
                using QuantizedCheckpoint quantized = new(source, QuantizationRecipe.Named("Q8_0"));
                foreach (ExpertsPlan experts in ModelPlanReader.Read(quantized).Layers.Blocks.Select(static block => block.Experts).OfType<ExpertsPlan>())
                {
                    foreach (LinearPart part in experts.Slots.SelectMany(static slot => slot.In.Parts.Concat(slot.Down.Parts)))
                    {
                        // Rows that are not whole blocks of 32 become F16.
                        TensorView tensor = quantized[part.Weight!.Tensor];
                        Assert.True(tensor.DType == (tensor.Columns % 32 == 0 ? DType.Q8_0 : DType.F16), $"{family}: {tensor.Name} is {tensor.DType}");
                    }
                    Assert.All(experts.Router.Logits.Parts, part => Assert.Equal(DType.F32, quantized.TypeOf(part.Weight!.Tensor)));
                }
            }
        }
    }

    [Fact]
    public void Recurrent_routers_stay_as_they_are_beside_experts_and_what_is_beside_them()
    {
        var model = Plans.Oracle.MoeModels.Make("llama_moe_rnn shared expert, bias, first layer dense", 1);
        using var quantized = new QuantizedCheckpoint(model.ToCheckpoint(), QuantizationRecipe.Named("Q8_0"));
        foreach (string name in quantized.TensorNames)
        {
            bool isMatrix = name.EndsWith("_proj.weight", StringComparison.Ordinal) || name.Contains(".experts.", StringComparison.Ordinal)
                || name is "model.embed_tokens.weight" or "lm_head.weight";
            DType expected = !isMatrix ? DType.F32 : quantized[name].Columns % 32 == 0 ? DType.Q8_0 : DType.F16;
            Assert.True(expected == quantized.TypeOf(name), $"{name} is {quantized.TypeOf(name)}");
        }
        ModelPlan plan = ModelPlanReader.Read(quantized);
        var sizes = new WeightBytes(quantized, tensor => quantized.TypeOf(tensor.Name));
        (long experts, long others) = sizes.Totals(plan);
        // The bias of a mixture is packed with each of its experts.
        int biases = 2 * 5 * plan.HiddenSize * sizeof(float);
        Assert.Equal(quantized.TensorNames.Sum(name => quantized[name].ByteLength) + biases, experts + others);
    }

    [Fact]
    public void Experts_that_are_stored_transposed_stay_as_they_are()
    {
        using var quantized = new QuantizedCheckpoint(
            Plans.Oracle.MoeModels.Make("gpt_oss", 1).ToCheckpoint(), QuantizationRecipe.Named("Q8_0"));
        Assert.Equal(DType.Q8_0, quantized.TypeOf("model.layers.1.self_attn.q_proj.weight"));
        Assert.All(
            quantized.TensorNames.Where(static name => name.Contains(".experts.", StringComparison.Ordinal)),
            name => Assert.Equal(DType.F32, quantized.TypeOf(name)));
    }

    [Fact]
    public void K_quants_fall_back_where_rows_do_not_fit_and_are_refused_where_none_does()
    {
        Random random = Seed.Fresh();
        using MemoryCheckpoint model = new();
        model.Add("model.layers.0.self_attn.v_proj.weight", [8, 512], Values(random, 8 * 512));
        model.Add("model.layers.1.block.0.mlp.down_proj.weight", [8, 96], Values(random, 8 * 96));
        model.Add("model.layers.1.block.0.mlp.up_proj.weight", [8, 40], Values(random, 8 * 40));
        model.Add("model.layers.1.mor_router.router.weight", [1, 512], Values(random, 512));
        QuantizedCheckpoint quantized = new(model, QuantizationRecipe.Named("Q4_K"));
        Assert.Equal([DType.Q4_K, DType.Q5_0, DType.F16, DType.F32], model.TensorNames.Select(quantized.TypeOf));
        Assert.Equal([DType.Q4_K, DType.Q5_0, DType.F16, DType.F32], model.TensorNames.Select(name => quantized[name].DType));

        using Checkpoint narrow = CheckpointFile.Open(Path.Combine(Root, "parscale", "p2_tied_f32_n48"));
        EngineException refused = Assert.Throws<EngineException>(() => new QuantizedCheckpoint(narrow, QuantizationRecipe.Named("Q6_K")));
        Assert.Contains("multiple of 256", refused.Message, StringComparison.Ordinal);
        using MemoryCheckpoint bare = new();
        bare.Add("norm.weight", [4], Values(random, 4));
        Assert.Throws<EngineException>(() => new QuantizedCheckpoint(bare, QuantizationRecipe.Named("Q8_0")));
    }

    [Fact]
    public void The_front_door_names_the_option_of_an_unknown_format()
    {
        EngineException refused = Assert.Throws<EngineException>(() => new LanguageModelOptions { Quantize = "Q3_K_XL" }.Validate());
        Assert.Equal(nameof(LanguageModelOptions.Quantize), refused.Item);
        Assert.Contains("Q8_0", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_tensor_that_was_let_go_is_encoded_again_to_the_same_bytes()
    {
        const string name = "model.layers.0.mlp.up_proj.weight";
        using MemoryCheckpoint model = new();
        model.Add(name, [64, 256], Values(Seed.Fresh(), 64 * 256));
        QuantizedCheckpoint quantized = new(model, QuantizationRecipe.Named("Q8_0"));
        byte[] first = BytesOf(quantized);
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Assert.Equal(first, BytesOf(quantized));
        TensorView held = quantized[name];
        Assert.Same(held, quantized[name]);

        static byte[] BytesOf(Checkpoint checkpoint) => checkpoint[name].Bytes.ToArray();
    }

    /// <summary>Root mean square of the differences of the first tokens' logits, relative to that of the logits.</summary>
    private static double Difference(float[][] exact, float[][] found, int tokens)
    {
        IEnumerable<(float Exact, float Found)> pairs = Enumerable.Range(0, tokens).SelectMany(t => exact[t].Zip(found[t]));
        return Math.Sqrt(pairs.Sum(static pair => Math.Pow(pair.Exact - pair.Found, 2)) / pairs.Sum(static pair => Math.Pow(pair.Exact, 2)));
    }

    private static bool IsMatrix(string tensor) => tensor.Split('.') is [.., var module, "weight"] && Matrices.Contains(module);

    private static float[] Values(Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];

    private static MemoryCheckpoint Beforehand(string name, string format)
    {
        using Checkpoint source = CheckpointFile.Open(Path.Combine(Root, name));
        MemoryCheckpoint quantized = new(source.Path, (JsonObject)source.Config.DeepClone());
        foreach (string tensor in source.TensorNames)
        {
            TensorView view = source[tensor];
            if (!IsMatrix(tensor))
            {
                quantized.Add(tensor, view.DType, view.Shape, view.Bytes);
                continue;
            }
            DType dtype = Enum.Parse<DType>(format);
            dtype = view.Columns % dtype.Info().BlockElements == 0 ? dtype : DType.F16;
            byte[] stored = new byte[view.Rows * dtype.RowBytes(view.Columns)];
            Codec.For(dtype).Encode(view.ToFloats(), stored);
            quantized.Add(tensor, dtype, view.Shape, stored);
        }
        return quantized;
    }

    private static (float[][] Logits, int[] Depths) Run(Checkpoint checkpoint, string? quantize)
    {
        using LanguageModel model = LanguageModel.Load(
            checkpoint, new LanguageModelOptions { Threads = 2, KvFormat = KvFormat.F32, ContextLength = 32, Quantize = quantize });
        Random random = new(5);
        int[] ids = [.. Enumerable.Range(0, 16).Select(_ => random.Next(model.Plan.VocabularySize))];
        using LogitsSession session = model.CreateLogitsSession();
        float[][] logits = new float[ids.Length][];
        session.Feed(ids, 0, (index, values) => logits[index] = values.ToArray());
        return (logits, [.. session.Depths]);
    }
}
