using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.FamiliesAgainstOracleTests;

namespace Engine.Tests.Plans;

/// <summary>A GPT-2 that somebody else trained to sort six letters, with the activations that PyTorch computed after every block.</summary>
public sealed class SortingGptTests
{
    /// <summary>PyTorch's were float32.</summary>
    private const double Tolerance = 2e-6;
    private const int Width = 48, Positions = 11, Layers = 3;

    [Fact]
    public void Logits_are_those_that_pytorch_computed()
    {
        using var harness = new ModelHarness(Open(), new ReferenceBackend(), pageTokens: 4);
        (JsonObject activations, int[][] sequences) = Recorded();
        double[][][] expected = [.. Rows(activations, "lm_head", 3).Chunk(Positions)];
        for (int i = 0; i < sequences.Length; i++)
        {
            AssertClose(expected[i], harness.Run(sequences[i], chunk: 4), Tolerance, $"sequence {i}");
        }
    }

    /// <summary>
    /// The plan cut after some layers, with the identity for a head, gives the normed residual stream there: a plan is data.
    /// </summary>
    [Theory]
    [InlineData(0, "x")]
    [InlineData(1, "block0")]
    [InlineData(2, "block1")]
    [InlineData(3, "block2")]
    public void The_residual_stream_is_what_pytorch_computed(int layers, string stage)
    {
        MemoryCheckpoint checkpoint = Open();
        ModelPlan plan = ModelPlanReader.Read(checkpoint);
        float[] identity = new float[Width * Width];
        for (int i = 0; i < Width; i++)
        {
            identity[i * Width + i] = 1;
        }
        checkpoint.Add("identity", [Width, Width], identity);
        checkpoint.Add("ones", [Width], [.. Enumerable.Repeat(1f, Width)]);
        checkpoint.Add("zeros", [Width], new float[Width]);
        (JsonObject activations, int[][] sequences) = Recorded();
        double[][][] residual = [.. Rows(activations, stage, Width).Chunk(Positions)];
        float[] ones = [.. Enumerable.Repeat(1f, Width)];
        using var harness = new ModelHarness(checkpoint, new ReferenceBackend(), pageTokens: 4, plan: plan with
        {
            Layers = plan.Layers with { Steps = plan.Layers.Steps[..layers] },
            FinalNorm = new NormPlan(NormKind.Layer, 1e-5f, new WeightRef("ones"), new WeightRef("zeros")),
            Head = new LinearPlan(Width, [new LinearPart(Width, new WeightRef("identity"))]),
            VocabularySize = Width,
        });
        for (int i = 0; i < sequences.Length; i++)
        {
            double[][] expected = [.. residual[i].Select(row => OracleMath.LayerNorm(row, ones, new float[Width], 1e-5))];
            AssertClose(expected, harness.Run(sequences[i], chunk: Positions), 10 * Tolerance, $"sequence {i} {stage}");
        }
    }

    [Fact]
    public void It_sorts()
    {
        using var harness = new ModelHarness(Open(), new ReferenceBackend(), pageTokens: 4);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 20; round++)
        {
            int[] letters = [.. Enumerable.Range(0, 6).Select(_ => random.Next(3))];
            KvTrack track = harness.NewTrack();
            float[] logits = harness.Step((track, letters))[0][^1];
            var sorted = new List<int> { Array.IndexOf(logits, logits.Max()) };
            while (sorted.Count < letters.Length)
            {
                logits = harness.Step((track, [sorted[^1]]))[0][0];
                sorted.Add(Array.IndexOf(logits, logits.Max()));
            }
            harness.Cache.Release(track);
            Assert.True(letters.Order().SequenceEqual(sorted),
                $"{string.Concat(letters)} became {string.Concat(sorted)} (seed {seed}, round {round})");
        }
    }

    private static MemoryCheckpoint Open()
    {
        JsonObject file = ReadJson("gpt-nano-sort-model.json");
        var config = (JsonObject)file["config"]!;
        var checkpoint = new MemoryCheckpoint("gpt-nano-sort", new JsonObject
        {
            ["model_type"] = "gpt2",
            ["n_embd"] = config["n_embd"]!.GetValue<int>(),
            ["n_layer"] = config["n_layer"]!.GetValue<int>(),
            ["n_head"] = config["n_head"]!.GetValue<int>(),
            ["n_positions"] = config["block_size"]!.GetValue<int>(),
            ["vocab_size"] = config["vocab_size"]!.GetValue<int>(),
            ["tie_word_embeddings"] = false,
            ["conv1d_transposed"] = false,
        });
        foreach ((string name, JsonNode? tensor) in file.Where(static entry => entry.Key != "config"))
        {
            checkpoint.Add(name, [.. tensor!["shape"]!.AsArray().Select(static dimension => dimension!.GetValue<long>())], Values(tensor));
        }
        return checkpoint;
    }

    private static (JsonObject Activations, int[][] Sequences) Recorded()
    {
        JsonObject activations = ReadJson("gpt-nano-sort-t0-partials.json");
        return (activations, [.. Values(activations["idx"]!).Select(static id => (int)id).Chunk(Positions)]);
    }

    private static IEnumerable<double[]> Rows(JsonObject activations, string stage, int width) =>
        Values(activations[stage]!).Select(static value => (double)value).Chunk(width);

    private static float[] Values(JsonNode tensor) =>
        MemoryMarshal.Cast<byte, float>(Convert.FromBase64String((string)tensor["data"]!)).ToArray();

    private static JsonObject ReadJson(string file) =>
        (JsonObject)JsonNode.Parse(File.ReadAllText(SharedFiles.Require($"models/gpt-nano-sort/{file}")))!;
}
