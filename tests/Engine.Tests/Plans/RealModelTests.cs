using System.Text.Json;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;

namespace Engine.Tests.Plans;

/// <summary>Real models against the logits and greedy continuations of an independent implementation.</summary>
public sealed class RealModelTests
{
    /// <summary>
    /// File, model in golden.json, how far its logits may be off (the formats differ from the golden's), and whether greedy must agree.
    /// </summary>
    public static TheoryData<string, string, double> Models => new()
    {
        { "stories260K/hf", "stories260K hf F32", 1e-4 },
        { "stories260K/stories260K-f32.gguf", "stories260K hf F32", 1e-4 },
        { "stories260K/stories260K.bin", "stories260K hf F32", 1e-4 },
        { "stories15M/hf", "stories15M hf BF16", 1e-4 },
        { "stories15M/stories15M-q8_0.gguf", "stories15M hf BF16", 0.2 },
        { "minimind2-small/minimind2-small-q8_0.gguf", "minimind2-small hf F16", 0.5 },
    };

    [Theory]
    [MemberData(nameof(Models))]
    public void Greedy_text_and_logits_are_the_golden_ones(string file, string golden, double tolerance) =>
        Check(file, golden, tolerance, static () => new ReferenceBackend());

    [Theory]
    [MemberData(nameof(Models))]
    public void Greedy_text_and_logits_are_the_golden_ones_on_the_cpu(string file, string golden, double tolerance) =>
        Check(file, golden, 2 * tolerance, static () => new CpuBackend(new CpuOptions { Threads = 2 }));

    [Fact]
    public void Plans_of_one_model_in_three_formats_differ_in_the_pairing_only()
    {
        ModelPlan[] plans = [.. ((string[])["hf", "stories260K-f32.gguf", "stories260K.bin"]).Select(static file =>
        {
            using Checkpoint checkpoint = CheckpointFile.Open(SharedFiles.Require($"models/stories260K/{file}"));
            return ModelPlanReader.Read(checkpoint);
        })];
        Assert.Equal([RopePairing.Halves, RopePairing.Adjacent, RopePairing.Adjacent],
            plans.Select(static plan => plan.Layers.Blocks[0].Attention!.Rope!.Pairing));
        Assert.All(plans, static plan =>
        {
            Assert.Equal(("llama", 512, 64, 512), (plan.Family, plan.VocabularySize, plan.HiddenSize, plan.ContextLength));
            Assert.Equal(5, plan.Layers.Blocks.Length);
            AttentionPlan attention = plan.Layers.Blocks[4].Attention!;
            Assert.Equal((8, 4, 8), (attention.Heads, attention.KvHeads, attention.HeadDim));
            Assert.Equal(172, plan.Layers.Blocks[4].FeedForward!.Width);
            Assert.Equal(plan.Embedding.Tokens, plan.Head.Parts[0].Weight);
        });
    }

    [Theory]
    [InlineData("models/vocab/ggml-vocab-starcoder.gguf", "starcoder")]
    [InlineData("models/vocab/ggml-vocab-deepseek-llm.gguf", "the 0 tensors that exist")]
    public void A_model_of_another_family_or_without_weights_is_refused(string file, string named)
    {
        string path = SharedFiles.Require(file);
        using Checkpoint checkpoint = CheckpointFile.Open(path);
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Equal(path, error.File);
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_mixture_of_copies_of_a_feed_forward_is_the_model_it_was_made_from()
    {
        // Both in float32, with sums in another order.
        int[] tokens = [1, 403, 407, 261, 378, 261, 417, 259, 286, 341, 500, 17];
        float[][] dense = Logits("stories260K-f32.gguf"), mixture = Logits("stories260K-moe4clone-f32.gguf");
        for (int i = 0; i < tokens.Length; i++)
        {
            Cpu.TestRows.Close(dense[i], mixture[i], 1e-4, $"token {i}");
        }

        float[][] Logits(string file)
        {
            Checkpoint checkpoint = CheckpointFile.Open(SharedFiles.Require($"models/stories260K/{file}"));
            using var harness = new ModelHarness(checkpoint, new CpuBackend(new CpuOptions { Threads = 2 }));
            return harness.Run(tokens, chunk: 5);
        }
    }

    private static void Check(string file, string golden, double tolerance, Func<IBackend> backend)
    {
        string path = SharedFiles.Require("models/" + file);
        Golden[] entries = [.. Goldens().Where(entry => entry.Model == golden)];
        Assert.NotEmpty(entries);
        foreach (Golden expected in entries)
        {
            using var harness = new ModelHarness(CheckpointFile.Open(path), backend());
            var track = harness.NewTrack();
            float[] logits = harness.Step((track, expected.Prompt))[0][^1];
            foreach ((int id, double logit) in expected.Top)
            {
                Assert.True(Math.Abs(logits[id] - logit) <= tolerance, $"{file}, token {id}: expected {logit}, found {logits[id]}");
            }
            var ids = new List<int>();
            foreach (int _ in expected.Greedy)
            {
                ids.Add(Array.IndexOf(logits, logits.Max()));
                logits = harness.Step((track, [ids[^1]]))[0][0];
            }
            Assert.Equal(expected.Greedy, ids);
        }
    }

    private static IEnumerable<Golden> Goldens()
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(SharedFiles.Require("models/golden.json")));
        return [.. document.RootElement.EnumerateArray().Select(static entry => new Golden(
            entry.GetProperty("model").GetString()!,
            [.. entry.GetProperty("prompt_ids").EnumerateArray().Select(static id => id.GetInt32())],
            [.. entry.GetProperty("top5_id_logit_logprob_of_last_prompt_position").EnumerateArray()
                .Select(static top => (top[0].GetInt32(), top[1].GetDouble()))],
            [.. entry.GetProperty("greedy_ids").EnumerateArray().Select(static id => id.GetInt32())]))];
    }

    private sealed record Golden(string Model, int[] Prompt, (int Id, double Logit)[] Top, int[] Greedy);
}
