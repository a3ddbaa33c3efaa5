using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Execution;
using Engine.Generation;
using Engine.Transforms;

namespace Engine.Tests.Execution;

/// <summary>ParScale models against what the official code gave (Golden/parscale).</summary>
public sealed class ParScaleGoldenTests
{
    /// <summary>The goldens' own pass mark, absolute, with activations in float32.</summary>
    private const double Tolerance = 1e-4;

    private static readonly string Root = Path.Combine(AppContext.BaseDirectory, "Golden", "parscale");

    public static TheoryData<string> Names =>
    [
        .. Directory.GetDirectories(Root).Concat(Directory.GetDirectories(Path.Combine(Root, "dynamic")))
            .Where(static folder => File.Exists(Path.Combine(folder, "config.json")))
            .Select(static folder => Path.GetRelativePath(Root, folder)).Order(),
    ];

    [Theory]
    [MemberData(nameof(Names))]
    public void Logits_and_ids_are_those_of_the_reference(string name)
    {
        using LanguageModel model = LanguageModel.Load(Path.Combine(Root, name), Options);
        RequireGolden(model, Expected(name), null);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_generator_takes_the_reference_s_greedy_path(string name)
    {
        JsonNode expected = Expected(name);
        int[] generated = Ints(expected["generated_ids"]!);
        using LanguageModel model = LanguageModel.Load(Path.Combine(Root, name), Options);
        List<GeneratedToken> tokens = Generate(model, expected, null);
        Assert.Equal(generated, tokens.Select(static token => token.Id));
        int streams = model.Plan.Streams?.Sets[0].Count ?? 1;
        Assert.All(tokens, token => Assert.Equal(streams == 1 ? 0 : streams, token.StreamWeights.Count));
        Assert.All(tokens, token => Assert.True(streams == 1 || Math.Abs(token.StreamWeights.Sum() - 1) < 1e-5));
    }

    [Fact]
    public async Task One_backbone_serves_every_number_of_streams_at_once()
    {
        string[] names = ["dynamic/dyn_p1", "dynamic/dyn_p2", "dynamic/dyn_p4"];
        using LanguageModel model = LanguageModel.Load(
            StreamSets.Combine([.. names.Select(name => CheckpointFile.Open(Path.Combine(Root, name)))]), Options);
        foreach ((string name, int streams) in names.Zip([1, 2, 4]))
        {
            RequireGolden(model, Expected(name), streams);
        }
        int[][] together = await Task.WhenAll(names.Zip([1, 2, 4]).Select(pair => Task.Run(
            () => Generate(model, Expected(pair.First), pair.Second).Select(static token => token.Id).ToArray())));
        for (int i = 0; i < names.Length; i++)
        {
            Assert.Equal(Ints(Expected(names[i])["generated_ids"]!), together[i]);
        }
        EngineException error = Assert.Throws<EngineException>(() => model.CreateLogitsSession(3));
        Assert.Contains("1, 2, 4", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("p4_untied_swa_f32")]
    [InlineData("p2_tied_f32_n48")]
    public void Chunks_and_single_tokens_give_the_same_bits(string name)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        int[] ids = [.. Enumerable.Range(0, 40).Select(_ => random.Next(200))];
        using LanguageModel model = LanguageModel.Load(Path.Combine(Root, name), Options);
        float[][] whole = Feed(model, ids, ids.Length), single = Feed(model, ids, 1), chunked = Feed(model, ids, random.Next(2, 12));
        for (int t = 0; t < ids.Length; t++)
        {
            Cpu.TestRows.SameBits(whole[t], single[t], $"seed {seed}, token {t}, one at a time");
            Cpu.TestRows.SameBits(whole[t], chunked[t], $"seed {seed}, token {t}, chunked");
        }
    }

    [Fact]
    public void The_first_layer_s_keys_and_values_are_held_once()
    {
        using LanguageModel model = LanguageModel.Load(Path.Combine(Root, "p4_untied_swa_f32"), Options);
        using LogitsSession session = model.CreateLogitsSession();
        session.Feed([1, 2, 3, 4, 5], 0, static (_, _) => { });
        Assert.Equal(5, session.TokensPerSlot[0]);
        Assert.All(session.TokensPerSlot.Skip(1), static tokens => Assert.Equal(4 * 5, tokens));
    }

    private static LanguageModelOptions Options => new() { KvFormat = KvFormat.F32, Threads = 2, ContextLength = 64 };

    private static void RequireGolden(LanguageModel model, JsonNode expected, int? streams)
    {
        using LogitsSession session = model.CreateLogitsSession(streams);
        int[] prompt = Ints(expected["input_ids"]!);
        session.Feed(prompt, 0, (t, logits) => Close(expected["prefill_logits"]![t]!, logits.ToArray(), $"position {t}"));
        foreach (JsonNode? step in expected["decode"]!.AsArray())
        {
            float[] logits = session.Feed((int)step!["fed_id"]!);
            Close(step["logits"]!, logits, $"position {step["position"]}");
            Assert.Equal((int)step["argmax"]!, Array.IndexOf(logits, logits.Max()));
        }
    }

    private static List<GeneratedToken> Generate(LanguageModel model, JsonNode expected, int? streams) =>
    [
        .. model.GenerateAsync(new()
        {
            PromptIds = Ints(expected["input_ids"]!),
            MaxTokens = expected["generated_ids"]!.AsArray().Count,
            IgnoreEndOfSequence = true,
            Sampling = new() { Temperature = 0 },
            Streams = streams,
            ReportStreamWeights = true,
        }).ToBlockingEnumerable(),
    ];

    private static float[][] Feed(LanguageModel model, int[] ids, int chunk)
    {
        using LogitsSession session = model.CreateLogitsSession();
        var logits = new List<float[]>();
        foreach (int[] part in ids.Chunk(chunk))
        {
            session.Feed(part, 0, (_, row) => logits.Add(row.ToArray()));
        }
        return [.. logits];
    }

    private static JsonNode Expected(string name) => JsonNode.Parse(File.ReadAllText(Path.Combine(Root, name, "expected.json")))!;

    private static int[] Ints(JsonNode node) => [.. node.AsArray().Select(static value => (int)value!)];

    private static void Close(JsonNode expected, float[] actual, string what)
    {
        double[] values = [.. expected.AsArray().Select(static value => (double)value!)];
        Assert.Equal(values.Length, actual.Length);
        double error = values.Zip(actual, static (e, a) => Math.Abs(e - a)).Max();
        Assert.True(error <= Tolerance, $"{what}: logits are off by {error:E2}");
    }
}
