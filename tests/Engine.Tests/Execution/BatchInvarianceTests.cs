using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Execution;

/// <summary>A row's logits do not depend on what else is in the step: not on other sequences, not on chunks, not on threads, not on pages.</summary>
public sealed class BatchInvarianceTests
{
    /// <summary>Model × KV format.</summary>
    public static TheoryData<string, KvFormat> Models
    {
        get
        {
            TheoryData<string, KvFormat> data = [];
            foreach (string model in new[]
            {
                "", "models/stories260K/stories260K-f32.gguf", "models/stories15M/stories15M-q8_0.gguf", "models/stories15M/stories15M-q4_0.gguf",
                "models/stories15M/hf", "models/minimind2-small/minimind2-small-q8_0.gguf",
            })
            {
                data.Add(model, KvFormat.F16);
            }
            data.Add("", KvFormat.F32);
            data.Add("models/minimind2-small/minimind2-small-q8_0.gguf", KvFormat.Q8_0);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Eight_ragged_sequences_together_equal_each_alone(string model, KvFormat format)
    {
        string path = model.Length == 0 ? ModelHarness.ShippedModel : SharedFiles.Require(model);
        RequireInvariance(() => CheckpointFile.Open(path), format);
    }

    [Theory]
    [InlineData("deepseek_v2", KvFormat.F32)]
    [InlineData("deepseek_v2 lite", KvFormat.F16)]
    [InlineData("deepseek_v3 yarn, four groups", KvFormat.F16)]
    public void Latent_attention_does_not_depend_on_batches(string model, KvFormat format)
    {
        TinyModel tiny = MoeModels.Make(model, Random.Shared.Next());
        TestContext.Current.TestOutputHelper?.WriteLine(tiny.ToString());
        RequireInvariance(tiny.ToCheckpoint, format);
    }

    private static void RequireInvariance(Func<Checkpoint> open, KvFormat format)
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using ModelHarness two = new(open(), new CpuBackend(new CpuOptions { Threads = 2 }), format);
        using ModelHarness one = new(open(), new CpuBackend(new CpuOptions { Threads = 1 }), format);

        int[][] sequences = [.. Enumerable.Range(0, 8).Select(i => RandomTokens(random, 1 + random.Next(8 * (i + 1)), one.Plan.VocabularySize))];
        float[][][] alone = [.. sequences.Select(tokens => one.Run(tokens, chunk: 1))];
        float[][][] chunked = [.. sequences.Select(tokens => two.Run(tokens, chunk: 1 + random.Next(40)))];
        float[][][] together = RunTogether(two, sequences, random);

        for (int s = 0; s < sequences.Length; s++)
        {
            AssertBitEqual(alone[s], chunked[s], $"seed {seed}, sequence {s}, chunked");
            AssertBitEqual(alone[s], together[s], $"seed {seed}, sequence {s}, batched");
        }
    }

    [Fact]
    public void A_shared_prefix_gives_the_same_logits()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using ModelHarness model = new(CheckpointFile.Open(ModelHarness.ShippedModel), new CpuBackend(new CpuOptions()));
        int[] prefix = RandomTokens(random, 45, model.Plan.VocabularySize);
        int[] rest = RandomTokens(random, 20, model.Plan.VocabularySize);
        float[][] expected = model.Run([.. prefix, .. rest], chunk: 100);

        KvTrack first = model.NewTrack();
        model.Step((first, prefix));
        KvTrack second = model.NewTrack();
        int shared = model.Cache.SharePrefix(first, second, prefix.Length);
        int free = model.Cache.FreePages;
        float[][] actual = model.Step((second, [.. prefix[shared..], .. rest]))[0];

        Assert.Equal(32, shared);
        AssertBitEqual(expected[shared..], actual, $"seed {seed}");
        model.Cache.Release(first);
        model.Cache.Release(second);
        Assert.Equal(model.Cache.PageCount, model.Cache.FreePages);
        Assert.True(free < model.Cache.PageCount);
    }

    /// <summary>Sequences start at different steps and advance by random chunks, in random order, until all are through.</summary>
    private static float[][][] RunTogether(ModelHarness model, int[][] sequences, Random random)
    {
        KvTrack[] tracks = [.. sequences.Select(_ => model.NewTrack())];
        List<float[]>[] logits = [.. sequences.Select(static _ => new List<float[]>())];
        while (logits.Where((rows, s) => rows.Count < sequences[s].Length).Any())
        {
            int[] active = [.. Enumerable.Range(0, sequences.Length).Where(s => logits[s].Count < sequences[s].Length && random.Next(4) > 0)];
            random.Shuffle(active);
            (KvTrack, int[])[] parts =
                [.. active.Select(s => (tracks[s], sequences[s].Skip(logits[s].Count).Take(1 + random.Next(17)).ToArray()))];
            float[][][] step = parts.Length == 0 ? [] : model.Step(parts);
            for (int i = 0; i < active.Length; i++)
            {
                logits[active[i]].AddRange(step[i]);
            }
        }
        return [.. logits.Select(static rows => rows.ToArray())];
    }

    private static int[] RandomTokens(Random random, int count, int vocabulary) =>
        [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabulary))];

    private static void AssertBitEqual(float[][] expected, float[][] actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int row = 0; row < expected.Length; row++)
        {
            int differs = Enumerable.Range(0, expected[row].Length)
                .FirstOrDefault(i => BitConverter.SingleToInt32Bits(expected[row][i]) != BitConverter.SingleToInt32Bits(actual[row][i]), -1);
            Assert.True(differs < 0, differs < 0 ? "" : $"{what}, row {row}, logit {differs}: {expected[row][differs]:R} and {actual[row][differs]:R}");
        }
    }
}
