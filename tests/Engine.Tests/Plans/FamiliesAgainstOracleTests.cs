using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Every family, read by its reader and run by the executor, gives the logits of Hugging Face's forward pass.</summary>
public sealed class FamiliesAgainstOracleTests
{
    /// <summary>
    /// The reference backend rounds keys, values and logits to float32, and the plan's scale and magnitude are float32; a random model
    /// amplifies
    /// that up to twentyfold.
    /// </summary>
    internal const double ReferenceTolerance = 1e-5;

    /// <summary>The CPU computes in float32.</summary>
    private const double CpuTolerance = 1e-4;

    public static TheoryData<string> Models => [.. TinyModels.Names];

    /// <summary>GGUF stores just these permuted.</summary>
    public static TheoryData<string> RotatedModels =>
        [.. TinyModels.Names.Where(static name => name.Split(' ')[0] is "llama" or "mistral")];

    [Theory]
    [MemberData(nameof(Models))]
    public void A_family_gives_the_logits_of_its_forward_pass(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        int[] tokens = model.Tokens(21);
        using var harness = new ModelHarness(model.ToCheckpoint(), new ReferenceBackend(), pageTokens: 4);
        AssertClose(OracleLogits(model, tokens), harness.Run(tokens, chunk: 8), ReferenceTolerance, model);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void The_cpu_gives_them_too(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        int[] tokens = model.Tokens(21);
        using var harness = new ModelHarness(model.ToCheckpoint(), new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4);
        AssertClose(OracleLogits(model, tokens), harness.Run(tokens, chunk: 8), CpuTolerance, model);
    }

    [Theory]
    [MemberData(nameof(RotatedModels))]
    public void Queries_and_keys_stored_for_adjacent_pairs_give_the_same_logits(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        int[] tokens = model.Tokens(12);
        double[][] expected = OracleLogits(model, tokens);
        PermuteToAdjacentPairs(model);
        model.Config["rope_pairing"] = "adjacent";
        using var harness = new ModelHarness(model.ToCheckpoint(), new ReferenceBackend(), pageTokens: 4);
        AssertClose(expected, harness.Run(tokens, chunk: 12), ReferenceTolerance, model);
    }

    [Fact]
    public void A_table_of_factors_gives_the_logits_of_the_rule_it_was_made_from()
    {
        TinyModel model = TinyModels.Make("llama grouped queries, llama3 rope, untied", Random.Shared.Next());
        int[] tokens = model.Tokens(20);
        double[][] expected = OracleLogits(model, tokens);
        double[] scaled = new RotaryOracle(model.Config, 16).InvFreq;
        float[] factors = [.. scaled.Select((frequency, i) => (float)(Math.Pow(1000, -2.0 * i / 16) / frequency))];
        model.Config.Remove("rope_scaling");
        model.Config["rope_factors_tensor"] = "rope_freqs.weight";
        model.Tensors.Add("rope_freqs.weight", ([factors.Length], factors));
        using var harness = new ModelHarness(model.ToCheckpoint(), new ReferenceBackend(), pageTokens: 4);
        // The factors are float32: angles differ by 1e-7 of the position.
        AssertClose(expected, harness.Run(tokens, chunk: 20), 3e-5, model);
    }

    [Fact]
    public void Matrices_of_gpt2_that_are_not_transposed_give_the_same_logits()
    {
        TinyModel model = TinyModels.Make("gpt2", Random.Shared.Next());
        int[] tokens = model.Tokens(12);
        double[][] expected = OracleLogits(model, tokens);
        foreach ((string name, (long[] shape, float[] values)) in model.Tensors.ToArray())
        {
            if (name.Contains(".c_", StringComparison.Ordinal) && shape.Length == 2)
            {
                (int rows, int columns) = ((int)shape[0], (int)shape[1]);
                float[] turned = [.. values.Select((_, at) => values[at % rows * columns + at / rows])];
                model.Tensors[name] = ([columns, rows], turned);
            }
        }
        model.Config["conv1d_transposed"] = false;
        using var harness = new ModelHarness(model.ToCheckpoint(), new ReferenceBackend(), pageTokens: 4);
        AssertClose(expected, harness.Run(tokens, chunk: 5), ReferenceTolerance, model);
    }

    [Fact]
    public void A_padded_embedding_gives_logits_for_the_vocabulary_only()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        int[] tokens = model.Tokens(6);
        double[][] expected = OracleLogits(model, tokens);
        (long[] shape, float[] values) = model.Tensors["model.embed_tokens.weight"];
        model.Tensors["model.embed_tokens.weight"] = ([shape[0] + 5, shape[1]], [.. values, .. new float[5 * shape[1]]]);
        using var harness = new ModelHarness(model.ToCheckpoint(), new ReferenceBackend(), pageTokens: 4);
        AssertClose(expected, harness.Run(tokens, chunk: 6), ReferenceTolerance, model);
    }

    internal static double[][] OracleLogits(TinyModel model, int[] tokens) =>
        (string)model.Config["model_type"]! == "gpt2" ? new Gpt2Oracle(model).Logits(tokens) : new DecoderOracle(model).Logits(tokens);

    internal static void AssertClose(double[][] expected, float[][] actual, double tolerance, object model)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int position = 0; position < expected.Length; position++)
        {
            Assert.Equal(expected[position].Length, actual[position].Length);
            double size = Math.Sqrt(expected[position].Average(static value => value * value));
            for (int token = 0; token < expected[position].Length; token++)
            {
                double error = Math.Abs(expected[position][token] - actual[position][token]) / size;
                Assert.True(error <= tolerance,
                    $"{model}: position {position}, token {token}: expected {expected[position][token]}, found {actual[position][token]}");
            }
        }
    }

    /// <summary>
    /// Row 2i of a head becomes what was row i, and row 2i + 1 what was row i + headDim / 2: the order that GGUF's llama stores.
    /// </summary>
    private static void PermuteToAdjacentPairs(TinyModel model)
    {
        JsonObject config = model.Config;
        int headDim = config["head_dim"]?.GetValue<int>() ?? (int)config["hidden_size"]! / (int)config["num_attention_heads"]!;
        foreach ((string name, (long[] shape, float[] values)) in model.Tensors.ToArray())
        {
            if (name.Contains("q_proj", StringComparison.Ordinal) || name.Contains("k_proj", StringComparison.Ordinal))
            {
                int columns = shape.Length == 2 ? (int)shape[1] : 1;
                float[][] rows = [.. values.Chunk(columns)];
                model.Tensors[name] = (shape, [.. rows.SelectMany((_, row) =>
                {
                    (int head, int inHead) = (row / headDim, row % headDim);
                    return rows[head * headDim + inHead / 2 + inHead % 2 * (headDim / 2)];
                })]);
            }
        }
    }
}
