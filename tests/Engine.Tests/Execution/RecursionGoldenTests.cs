using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Generation;
using Engine.Reference;

namespace Engine.Tests.Execution;

/// <summary>Recursive and Mixture-of-Recursions models against what the authors' code gave (Golden/mor), and against themselves however they are fed.</summary>
public sealed class RecursionGoldenTests
{
    /// <summary>The goldens' own pass mark, absolute, with activations in float32.</summary>
    private const double Tolerance = 1e-3;

    private static readonly string Root = Path.Combine(AppContext.BaseDirectory, "Golden", "mor");

    public static TheoryData<string, DepthSelection> Cases
    {
        get
        {
            var data = new TheoryData<string, DepthSelection>();
            foreach (string folder in Directory.GetDirectories(Root).Order())
            {
                string name = Path.GetFileName(folder);
                data.Add(name, DepthSelection.Official);
                if (Expected(name)["causal"] is not null)
                {
                    data.Add(name, DepthSelection.Causal);
                }
            }
            return data;
        }
    }

    public static TheoryData<string> Names => [.. Directory.GetDirectories(Root).Select(static folder => Path.GetFileName(folder)).Order()];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Logits_depths_and_choices_are_those_of_the_reference(string name, DepthSelection selection)
    {
        JsonNode expected = Expected(name);
        JsonNode part = expected[selection == DepthSelection.Official ? "official" : "causal"]!;
        using LanguageModel model = Load(name, selection);
        using LogitsSession session = model.CreateLogitsSession();
        int[] prompt = Ints(expected["prompt_ids"]!);
        JsonNode prefill = part["prefill"]!;
        float[][] logits = Feed(session, prompt);
        for (int t = 0; t < prompt.Length; t++)
        {
            Close(prefill["logits"]![t]!, logits[t], $"position {t}");
        }
        Assert.Equal(Ints(prefill["depth"]!), session.Depths);
        RequireSelected(prefill["selected"], session.Depths);

        int[] generated = Ints(part["generated_ids"]!);
        int best = Array.IndexOf(logits[^1], logits[^1].Max());
        for (int i = 0; i < generated.Length; i++)
        {
            JsonNode step = part["decode"]![i]!;
            Assert.Equal(generated[i], best);
            float[] next = session.Feed(generated[i]);
            Close(step["logits"]!, next, $"decode step {i}");
            Assert.Equal((int)step["depth"]!, session.Depths[^1]);
            best = Array.IndexOf(next, next.Max());
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_whole_forward_over_prompt_and_answer_is_that_of_the_reference(string name)
    {
        JsonNode? full = Expected(name)["official"]!["full_forward"];
        Assert.SkipWhen(full is null, "the golden has no forward over prompt and answer: in this model it is the same as decoding");
        using LanguageModel model = Load(name, DepthSelection.Official);
        using LogitsSession session = model.CreateLogitsSession();
        float[][] logits = Feed(session, Ints(full!["input_ids"]!));
        for (int t = 0; t < logits.Length; t++)
        {
            Close(full["logits"]![t]!, logits[t], $"position {t}");
        }
        Assert.Equal(Ints(full["depth"]!), session.Depths);
        RequireSelected(full["selected"], session.Depths);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_generator_takes_the_reference_s_greedy_path(string name)
    {
        JsonNode expected = Expected(name);
        JsonNode part = expected["causal"] ?? expected["official"]!;
        int[] prompt = Ints(expected["prompt_ids"]!);
        int[] generated = Ints(part["generated_ids"]!);
        using LanguageModel model = Load(name, DepthSelection.Causal);
        List<GeneratedToken> tokens = [.. model.GenerateAsync(new()
        {
            PromptIds = prompt,
            MaxTokens = generated.Length,
            IgnoreEndOfSequence = true,
            Sampling = new() { Temperature = 0 },
        }).ToBlockingEnumerable()];

        Assert.Equal(generated, tokens.Select(static token => token.Id));
        int[] depths = [.. Ints(part["prefill"]!["depth"]!), .. part["decode"]!.AsArray().Select(static step => (int)step!["depth"]!)];
        Assert.Equal(depths[(prompt.Length - 1)..^1], tokens.Select(static token => token.Depth));
        if (model.Plan.Layers.Recursion?.Router is not null)
        {
            Assert.Equal(depths[..^1], tokens[^1].Usage!.Depths);
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Chunks_batches_and_single_tokens_give_the_same_bits(string name)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using ModelHarness model = new(CheckpointFile.Open(Path.Combine(Root, name)), new CpuBackend(new CpuOptions { Threads = 2 }), maxRows: 64);
        int[][] sequences = [.. Enumerable.Range(0, 8).Select(_ => Enumerable.Range(0, random.Next(1, 50)).Select(_ => random.Next(256)).ToArray())];
        float[][][] alone = [.. sequences.Select(tokens => model.Run(tokens, chunk: 1))];
        float[][][] whole = [.. sequences.Select(tokens => model.Run(tokens, chunk: 64))];
        float[][][] chunked = [.. sequences.Select(tokens => model.Run(tokens, chunk: random.Next(2, 9)))];
        float[][][] flowing = new DepthwiseFlow(model, sequences, random).Run();
        for (int s = 0; s < sequences.Length; s++)
        {
            for (int t = 0; t < sequences[s].Length; t++)
            {
                Cpu.TestRows.SameBits(alone[s][t], whole[s][t], $"seed {seed}, sequence {s}, token {t}, whole");
                Cpu.TestRows.SameBits(alone[s][t], chunked[s][t], $"seed {seed}, sequence {s}, token {t}, chunked");
                Cpu.TestRows.SameBits(alone[s][t], flowing[s][t], $"seed {seed}, sequence {s}, token {t}, depth-wise");
            }
        }
        Assert.Equal(model.Cache.PageCount, model.Cache.FreePages);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_reference_backend_agrees(string name)
    {
        JsonNode expected = Expected(name);
        JsonNode part = expected["causal"] ?? expected["official"]!;
        int[] prompt = Ints(expected["prompt_ids"]!);
        using ModelHarness model = new(CheckpointFile.Open(Path.Combine(Root, name)), new ReferenceBackend());
        float[][] logits = model.Run(prompt, chunk: 5);
        for (int t = 0; t < prompt.Length; t++)
        {
            Close(part["prefill"]!["logits"]![t]!, logits[t], $"position {t}");
        }
    }

    [Theory]
    [InlineData("mor_expert_rec3_cache")]
    [InlineData("mor_token_rec3_cache")]
    public void A_slot_holds_only_the_tokens_that_reached_its_depth(string name)
    {
        using LanguageModel model = Load(name, DepthSelection.Causal);
        using LogitsSession session = model.CreateLogitsSession();
        int[] prompt = Ints(Expected(name)["prompt_ids"]!);
        session.Feed(prompt, 0, static (_, _) => { });
        Engine.Plans.RecursionPlan recursion = model.Plan.Layers.Recursion!;
        for (int i = 0; i < model.Plan.Layers.Steps.Length; i++)
        {
            int depth = i < recursion.FirstStep || i >= recursion.EndStep ? 0 : (i - recursion.FirstStep) / recursion.StepsPerDepth;
            Assert.Equal(session.Depths.Count(reached => reached > depth), session.TokensPerSlot[model.Plan.Layers.Steps[i].KvSlot]);
        }
        Assert.True(session.TokensPerSlot.Min() < prompt.Length);
    }

    private static LanguageModel Load(string name, DepthSelection selection) => LanguageModel.Load(
        Path.Combine(Root, name), new LanguageModelOptions { KvFormat = KvFormat.F32, Threads = 2, DepthSelection = selection });

    private static float[][] Feed(LogitsSession session, int[] ids)
    {
        var logits = new float[ids.Length][];
        session.Feed(ids, 0, (index, row) => logits[index] = row.ToArray());
        return logits;
    }

    /// <summary>Sets are nested, so the depths say who was in them.</summary>
    private static void RequireSelected(JsonNode? selected, IReadOnlyList<int> depths)
    {
        for (int depth = 0; depth < (selected?.AsArray().Count ?? 0); depth++)
        {
            Assert.Equal(Ints(selected![depth]!), Enumerable.Range(0, depths.Count).Where(t => depths[t] > depth));
        }
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
