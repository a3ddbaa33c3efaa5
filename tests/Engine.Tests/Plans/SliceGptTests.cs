using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.FamiliesAgainstOracleTests;

namespace Engine.Tests.Plans;

/// <summary>Folders that SliceGPT cut give the logits of the authors' forward pass in doubles.</summary>
public sealed class SliceGptTests
{
    private const int Original = 32, Vocabulary = 40;

    /// <summary>Width of the embedding, then behind attention and feed-forward of each layer: what the authors' schedulers make.</summary>
    public static TheoryData<string, int[]> Slicings => new()
    {
        { "all alike, whole head", [20, 20, 20, 20, 20, 20, 32] },
        { "all alike, head too", [24, 24, 24, 24, 24, 24, 24] },
        { "by explained variance", [17, 21, 8, 32, 30, 5, 32] },
        { "one to one", [32, 32, 32] },
    };

    [Theory]
    [MemberData(nameof(Slicings))]
    public void A_sliced_model_gives_the_logits_of_the_forward_pass(string name, int[] widths)
    {
        Random random = Seed.Fresh();
        TinyModel model = Make(name, widths, random.Next());
        int[] tokens = model.Tokens(14), others = model.Tokens(5);
        double[][] expected = new SliceOracle(model, Original).Logits(tokens);
        using var folder = new TemporaryFolder();
        Write(model, widths, folder);
        foreach ((bool reference, double tolerance) in ((bool, double)[])[(true, ReferenceTolerance), (false, 1e-4)])
        {
            using var harness = new ModelHarness(
                CheckpointFile.Open(folder.Path), reference ? new ReferenceBackend() : new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4);
            AssertClose(expected, harness.Run(tokens, chunk: 5), tolerance, model);
            float[][][] both = harness.Step((harness.NewTrack(), others), (harness.NewTrack(), tokens));
            AssertClose(expected, both[1], tolerance, model);
        }
    }

    /// <summary>Rotations without slicing change nothing (Ashkboos et al. 2024, theorem 1): another way to the same logits, that of the dense model.</summary>
    [Fact]
    public void A_rotated_model_is_the_dense_one()
    {
        Random random = Seed.Fresh();
        TinyModel dense = TinyModels.Make("llama linear rope, head_dim", random.Next());
        int[] tokens = dense.Tokens(12);
        double[][] expected = OracleLogits(dense, tokens);
        TinyModel rotated = Rotated(dense, random);
        using var folder = new TemporaryFolder();
        using var harness = new ModelHarness(CheckpointFile.Open(LayerSurgery.Write(rotated, folder)), new ReferenceBackend(), pageTokens: 4);
        // Rotated matrices are rounded to float32, four in a row.
        AssertClose(expected, harness.Run(tokens, chunk: 5), 5e-5, dense);
    }

    [Fact]
    public void Numbers_that_are_saved_for_norms_do_not_matter()
    {
        int[] widths = [20, 20, 32];
        TinyModel model = Make("norms", widths, Seed.Fresh().Next());
        int[] tokens = model.Tokens(4);
        double[][] expected = new SliceOracle(model, Original).Logits(tokens);
        foreach (string norm in (string[])["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"])
        {
            model.Tensors[$"{norm}.weight"] = ([1], [0f]);
        }
        using var folder = new TemporaryFolder();
        using var harness = new ModelHarness(CheckpointFile.Open(LayerSurgery.Write(model, folder)), new ReferenceBackend(), pageTokens: 4);
        AssertClose(expected, harness.Run(tokens, chunk: 4), ReferenceTolerance, model);
        model.Tensors["model.norm.weight"] = ([Original], new float[Original]);
        Refused(model, "", "not known in a slicegpt model: model.norm.weight");
    }

    [Theory]
    [InlineData("mlp_output_dimensions", """{"0": 20, "1": 21}""", "mlp_output_dimensions.1", "the tensors have a width of 32; found 21")]
    [InlineData("attention_input_dimensions", """{"1": 19}""", "attention_input_dimensions.1", "the tensors have a width of 20; found 19")]
    [InlineData("attention_output_dimensions", """{"0": 1}""", "attention_output_dimensions.0", "the tensors have a width of 20; found 1")]
    [InlineData("mlp_input_dimensions", """{"0": "x"}""", "mlp_input_dimensions.0", "expected a whole number")]
    [InlineData("embedding_dimensions", """{"0": 32}""", "embedding_dimensions.0", "the tensors have a width of 20; found 32")]
    [InlineData("head_dimension", "20", "head_dimension", "the tensors have a width of 32; found 20")]
    [InlineData("hidden_size", "36", "head_dimension", "the tensors have a width of 32; found 36")]
    [InlineData("hidden_size", "16", "model.embed_tokens.weight", "the hidden size before it was cut")]
    [InlineData("hidden_size", "null", "hidden_size", "missing")]
    [InlineData("parallel_blocks", "true", "parallel_blocks", "not supported")]
    public void The_file_beside_the_weights_must_fit_them(string key, string value, string item, string reason)
    {
        int[] widths = [20, 20, 20, 20, 32];
        TinyModel model = Make("file", widths, Seed.Fresh().Next());
        JsonObject slicing = Slicing(widths);
        if (key == "hidden_size")
        {
            slicing["head_dimension"] = null;
        }
        slicing[key] = JsonNode.Parse(value);
        Refused(model, item, reason, ("model_0.3.json", slicing.ToJsonString()));
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        int[] widths = [20, 20, 32];
        const string rotation = "model.layers.0.mlp_shortcut_Q";
        TinyModel model = Make("shapes", widths, Seed.Fresh().Next());
        string slicing = Slicing(widths).ToJsonString();
        Refused(model, null, "expected one file of slicing dimensions", ("a.json", slicing), ("b.json", slicing));
        TinyModel wrong = LayerSurgery.Copy(model);
        wrong.Tensors[rotation] = ([21, 32], new float[21 * 32]);
        Refused(wrong, rotation, "expected shape [20, 32]; found [21, 32]");
        wrong.Tensors[rotation] = ([20, 33], new float[20 * 33]);
        Refused(wrong, rotation, "the hidden size before it was cut");
        wrong.Tensors[rotation] = ([20], new float[20]);
        Refused(wrong, rotation, "the hidden size before it was cut");
        wrong.Tensors.Remove(rotation);
        Refused(wrong, "", $"missing from this slicegpt model: {rotation}");

        using var folder = new TemporaryFolder();
        using Checkpoint checkpoint = CheckpointFile.Open(LayerSurgery.Write(model, folder));
        Assert.Contains(
            "shortcut_Q", Assert.Throws<EngineException>(() => GgufConverter.Convert(checkpoint, folder.File("model.gguf"), QuantizationRecipe.Named("F32"))).Item!,
            StringComparison.Ordinal);
        Assert.Contains("rotated", Assert.Throws<EngineException>(() => LayerOrder.Apply(ModelPlanReader.Read(checkpoint), "0")).Reason, StringComparison.Ordinal);
    }

    private static void Refused(TinyModel model, string? item, string reason, params (string Name, string Content)[] files)
    {
        using var folder = new TemporaryFolder();
        LayerSurgery.Write(model, folder);
        foreach ((string name, string content) in files)
        {
            folder.Write(name, content);
        }
        EngineException error = Assert.Throws<EngineException>(() =>
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            ModelPlanReader.Read(checkpoint);
        });
        Assert.Equal(item ?? "", error.Item ?? "");
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    internal static TinyModel Make(string name, int[] widths, int seed)
    {
        const int heads = 4, kvHeads = 2, headDim = 6, inner = 28;
        int layers = (widths.Length - 1) / 2;
        var config = (JsonObject)JsonNode.Parse($$"""
            {"model_type": "llama", "architectures": ["SlicedLlamaForCausalLM"], "vocab_size": {{Vocabulary}}, "hidden_size": {{Original}},
             "intermediate_size": {{inner}}, "num_hidden_layers": {{layers}}, "num_attention_heads": {{heads}}, "num_key_value_heads": {{kvHeads}},
             "head_dim": {{headDim}}, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true}
            """)!;
        var model = new TinyModel(name, config, seed);
        model.AddTable("model.embed_tokens.weight", Vocabulary, widths[0]);
        for (int layer = 0; layer < layers; layer++)
        {
            string prefix = $"model.layers.{layer}.";
            (int before, int between, int behind) = (widths[2 * layer], widths[2 * layer + 1], widths[2 * layer + 2]);
            model.AddMatrix(prefix + "self_attn.q_proj.weight", heads * headDim, before, before);
            model.AddMatrix(prefix + "self_attn.k_proj.weight", kvHeads * headDim, before, before);
            model.AddMatrix(prefix + "self_attn.v_proj.weight", kvHeads * headDim, before, before);
            model.AddMatrix(prefix + "self_attn.o_proj.weight", between, heads * headDim, heads * headDim);
            model.AddMatrix(prefix + "attn_shortcut_Q", before, between, before);
            model.AddMatrix(prefix + "mlp.gate_proj.weight", inner, between, between);
            model.AddMatrix(prefix + "mlp.up_proj.weight", inner, between, between);
            model.AddMatrix(prefix + "mlp.down_proj.weight", behind, inner, inner);
            model.AddMatrix(prefix + "mlp_shortcut_Q", between, behind, between);
        }
        model.AddMatrix("lm_head.weight", Vocabulary, widths[^1], widths[^1]);
        return model;
    }

    private static void Write(TinyModel model, int[] widths, TemporaryFolder folder)
    {
        LayerSurgery.Write(model, folder);
        folder.Write("llama_0.25.json", Slicing(widths).ToJsonString());
    }

    /// <summary>SlicingConfig.to_dict.</summary>
    private static JsonObject Slicing(int[] widths)
    {
        int layers = (widths.Length - 1) / 2;
        return new JsonObject
        {
            ["hidden_size"] = Original,
            ["layers_num"] = layers,
            ["do_slice_head"] = widths[^1] != Original,
            ["parallel_blocks"] = false,
            ["embedding_dimensions"] = new JsonObject { ["0"] = widths[0] },
            ["attention_input_dimensions"] = ByLayer(0),
            ["attention_output_dimensions"] = ByLayer(1),
            ["mlp_input_dimensions"] = ByLayer(1),
            ["mlp_output_dimensions"] = ByLayer(2),
            ["head_dimension"] = widths[^1],
            ["const_dimension"] = null,
        };

        JsonObject ByLayer(int offset) => new(Enumerable.Range(0, layers).Select(layer => KeyValuePair.Create($"{layer}", (JsonNode?)widths[2 * layer + offset])));
    }

    /// <summary>Gains go into the matrices behind them, and an orthogonal matrix between any two sublayers into those around it.</summary>
    private static TinyModel Rotated(TinyModel dense, Random random)
    {
        TinyModel model = LayerSurgery.Copy(dense);
        int hidden = (int)dense.Config["hidden_size"]!;
        double[][] q = Orthogonal(hidden, random);
        model.Tensors["model.embed_tokens.weight"] = Product(model, "model.embed_tokens.weight", null, q);
        for (int layer = 0; layer < (int)dense.Config["num_hidden_layers"]!; layer++)
        {
            string name = $"model.layers.{layer}.";
            double[][] between = Orthogonal(hidden, random), behind = Orthogonal(hidden, random);
            foreach (string linear in (string[])["q_proj", "k_proj", "v_proj"])
            {
                model.Tensors[$"{name}self_attn.{linear}.weight"] = Product(model, $"{name}self_attn.{linear}.weight", name + "input_layernorm.weight", q);
            }
            model.Tensors[name + "self_attn.o_proj.weight"] = Turned(model, name + "self_attn.o_proj.weight", between);
            model.Tensors.Add(name + "attn_shortcut_Q", Shortcut(q, between));
            foreach (string linear in (string[])["gate_proj", "up_proj"])
            {
                model.Tensors[$"{name}mlp.{linear}.weight"] = Product(model, $"{name}mlp.{linear}.weight", name + "post_attention_layernorm.weight", between);
            }
            model.Tensors[name + "mlp.down_proj.weight"] = Turned(model, name + "mlp.down_proj.weight", behind);
            model.Tensors.Add(name + "mlp_shortcut_Q", Shortcut(between, behind));
            q = behind;
        }
        model.Tensors["lm_head.weight"] = Product(model, "lm_head.weight", "model.norm.weight", q);
        foreach (string norm in model.Tensors.Keys.Where(static tensor => tensor.EndsWith("norm.weight", StringComparison.Ordinal)).ToArray())
        {
            model.Tensors.Remove(norm);
        }
        return model;
    }

    /// <summary>W · diag(gain) · Q.</summary>
    private static (long[], float[]) Product(TinyModel model, string name, string? gain, double[][] q)
    {
        (long[] shape, float[] values) = model.Tensors[name];
        float[]? gains = gain is null ? null : model.Tensors[gain].Values;
        return (shape, [.. values.Chunk((int)shape[1]).SelectMany(row => q.Select((_, j) => (float)row.Select((w, i) => w * (gains?[i] ?? 1.0) * q[i][j]).Sum()))]);
    }

    /// <summary>Qᵀ · W.</summary>
    private static (long[], float[]) Turned(TinyModel model, string name, double[][] q)
    {
        (long[] shape, float[] values) = model.Tensors[name];
        int columns = (int)shape[1];
        return (shape, [.. Enumerable.Range(0, values.Length).Select(at => (float)q.Select((row, i) => row[at / columns] * values[i * columns + at % columns]).Sum())]);
    }

    /// <summary>Aᵀ · B.</summary>
    private static (long[], float[]) Shortcut(double[][] a, double[][] b) =>
        ([a.Length, b.Length], [.. Enumerable.Range(0, a.Length * b.Length).Select(at => (float)a.Select((row, i) => row[at / b.Length] * b[i][at % b.Length]).Sum())]);

    /// <summary>An orthogonal matrix: random rows, each made orthogonal to those before it (modified Gram and Schmidt).</summary>
    private static double[][] Orthogonal(int size, Random random)
    {
        double[][] rows = [.. Enumerable.Range(0, size).Select(_ => Enumerable.Range(0, size).Select(_ => random.NextDouble() - 0.5).ToArray())];
        for (int i = 0; i < size; i++)
        {
            for (int j = 0; j < i; j++)
            {
                double overlap = rows[i].Zip(rows[j], static (a, b) => a * b).Sum();
                rows[i] = [.. rows[i].Zip(rows[j], (a, b) => a - overlap * b)];
            }
            double length = Math.Sqrt(rows[i].Sum(static v => v * v));
            rows[i] = [.. rows[i].Select(v => v / length)];
        }
        return rows;
    }
}
