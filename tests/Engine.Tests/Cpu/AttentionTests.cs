using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu;

public sealed class AttentionTests
{
    private static readonly int[] headDims = [20, 48, 64, 80, 96, 128, 256];
    private static readonly (int Heads, int KvHeads)[] groupings = [(1, 1), (3, 3), (4, 2), (6, 2), (14, 2), (8, 1), (12, 1)];

    // Query heads, elements of a key and of the latent in it; a whole number of blocks of 32, and not.
    private static readonly (int Heads, int HeadDim, int LatentDim)[] latents = [(1, 32, 16), (6, 64, 48), (16, 96, 64), (40, 64, 32), (64, 160, 128)];
    private static readonly (int Heads, int HeadDim, int LatentDim)[] unevenLatents = [(4, 24, 16), (16, 33, 21), (48, 50, 42)];

    // What the slow reference gives is computed once for all instruction sets, with fresh numbers in every run.
    private static readonly Dictionary<KvFormat, Lazy<Case[]>> cases = PerFormat(Cases), longCases = PerFormat(LongCases), latentCases = PerFormat(LatentCases);
    private static readonly Lazy<Case[]> rotations = new(Rotations);

    public static TheoryData<InstructionSet> Sets => InstructionSets.All;

    public static TheoryData<InstructionSet, KvFormat> SetsAndFormats
    {
        get
        {
            var data = new TheoryData<InstructionSet, KvFormat>();
            foreach (InstructionSet set in Enum.GetValues<InstructionSet>())
            {
                foreach (KvFormat format in Enum.GetValues<KvFormat>())
                {
                    data.Add(set, format);
                }
            }
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(SetsAndFormats))]
    public void Attention_agrees_with_the_reference(InstructionSet set, KvFormat format)
    {
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 3);
        Assert.NotEmpty(cases[format].Value);
        foreach (Case expected in cases[format].Value)
        {
            expected.Check(expected.Scenario.Run(cpu, format, expected.PageTokens, new Random(expected.Seed)));
        }
    }

    [Theory]
    [MemberData(nameof(SetsAndFormats))]
    public void Latent_attention_agrees_with_the_reference_however_it_is_cut(InstructionSet set, KvFormat format)
    {
        using CpuBackend few = InstructionSets.Backend(set, threads: 2), many = InstructionSets.Backend(set, threads: 7);
        using CpuBackend single = InstructionSets.Backend(set, threads: 1);
        Assert.NotEmpty(latentCases[format].Value);
        foreach (Case expected in latentCases[format].Value)
        {
            float[][] first = expected.Scenario.Run(single, format, expected.PageTokens);
            expected.Check(first);
            foreach (CpuBackend cpu in new[] { few, many })
            {
                float[][] actual = expected.Scenario.Run(cpu, format, expected.PageTokens, new Random(expected.Seed));
                for (int s = 0; s < first.Length; s++)
                {
                    TestRows.SameBits(first[s], actual[s], $"{expected.What}, sequence {s}");
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(SetsAndFormats))]
    public void A_long_context_agrees_with_the_reference(InstructionSet set, KvFormat format)
    {
        // Several segments, split between threads in some steps and not in others.
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 4), single = InstructionSets.Backend(set, threads: 1);
        Assert.NotEmpty(longCases[format].Value);
        foreach (Case expected in longCases[format].Value)
        {
            float[][] actual = expected.Scenario.Run(cpu, format, expected.PageTokens, new Random(expected.Seed));
            expected.Check(actual);
            TestRows.SameBits(expected.Scenario.Run(single, format, expected.PageTokens)[0], actual[0], expected.What);
        }
    }

    [Theory]
    [MemberData(nameof(SetsAndFormats))]
    public void The_bits_do_not_depend_on_batching_chunking_threads_or_pages(InstructionSet set, KvFormat format)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        foreach ((int heads, int kvHeads) in groupings)
        {
            int headDim = random.GetItems<int>(format == KvFormat.Q8_0 ? [32, 64] : [20, 48, 64], 1)[0];
            int pageTokens = random.GetItems([16, 24, 64], 1)[0];
            int? window = random.Next(2) == 0 ? random.Next(1, 700) : null;
            RopePlan rope = AttentionScenario.Rope((RopePairing)random.Next(2), headDim);
            int[] lengths = [random.Next(1, 700), random.Next(1, 100), random.Next(1, 40)];
            bool sinks = random.Next(2) == 0;
            var scenario = new AttentionScenario(random.Next(), heads, kvHeads, headDim, lengths, window, rope, sinks: sinks);
            string what = $"seed {seed}: {heads}/{kvHeads} heads of {headDim}, pages of {pageTokens}, window {window}, sinks {sinks}";
            float[][]? first = null;
            foreach (int threads in new[] { 1, 2, 3, 7 })
            {
                using CpuBackend cpu = InstructionSets.Backend(set, threads);
                float[][] actual = scenario.Run(cpu, format, pageTokens, threads == 1 ? null : new Random(random.Next()));
                first ??= actual;
                for (int s = 0; s < lengths.Length; s++)
                {
                    TestRows.SameBits(first[s], actual[s], $"{what}, {threads} threads, sequence {s}");
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void A_token_at_a_time_gives_the_bits_of_a_prefill(InstructionSet set)
    {
        int seed = Random.Shared.Next();
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 3);
        var scenario = new AttentionScenario(seed, heads: 14, kvHeads: 2, headDim: 64, [600]);
        float[] whole = scenario.Run(cpu, KvFormat.F16, 32)[0];
        float[] single = scenario.Run(cpu, KvFormat.F16, 32, new OneAtATime())[0];
        TestRows.SameBits(whole, single, $"seed {seed}");
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Rotation_agrees_with_the_reference(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set);
        Assert.NotEmpty(rotations.Value);
        foreach (Case expected in rotations.Value)
        {
            expected.Check(expected.Scenario.Run(cpu, expected.Format, expected.PageTokens, new Random(expected.Seed)));
        }
    }

    private static Dictionary<KvFormat, Lazy<Case[]>> PerFormat(Func<KvFormat, Case[]> make) =>
        Enum.GetValues<KvFormat>().ToDictionary(static format => format, format => new Lazy<Case[]>(() => make(format)));

    private static Case[] Cases(KvFormat format)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        return [.. groupings.Select(grouping =>
        {
            (int heads, int kvHeads) = grouping;
            int headDim = format == KvFormat.Q8_0 ? random.GetItems([32, 64, 96, 128, 256], 1)[0] : headDims[random.Next(headDims.Length)];
            int pageTokens = random.GetItems([1, 5, 16, 24, 32, 64, 100], 1)[0];
            int? window = random.Next(3) == 0 ? random.Next(1, 90) : null;
            int[] lengths = [1, random.Next(1, 200), pageTokens, pageTokens + 1, random.Next(1, 70)];
            bool sinks = random.Next(2) == 0;
            var scenario = new AttentionScenario(random.Next(), heads, kvHeads, headDim, lengths, window, sinks: sinks);
            string what = $"seed {seed}: {heads}/{kvHeads} heads of {headDim}, pages of {pageTokens}, window {window}, sinks {sinks}, "
                + $"lengths {string.Join(' ', lengths)}";
            return new Case(scenario, format, pageTokens, seed, what);
        })];
    }

    private static Case[] LatentCases(KvFormat format)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        return [.. (format == KvFormat.Q8_0 ? latents : [.. latents, .. unevenLatents]).Select(shape =>
        {
            (int heads, int headDim, int latentDim) = shape;
            int pageTokens = random.GetItems([1, 5, 16, 24, 64, 100], 1)[0];
            int? window = random.Next(4) == 0 ? random.Next(1, 90) : null;
            int[] lengths = [1, random.Next(1, heads > 6 ? 90 : 600), pageTokens + 1, random.Next(1, 40)];
            // A rotated number that is rounded to fewer bits may fall otherwise by a whole step of them.
            RopePlan? rope = format == KvFormat.F32 ? AttentionScenario.Rope((RopePairing)random.Next(2), (headDim - latentDim) & -2) : null;
            var scenario = new AttentionScenario(random.Next(), heads, kvHeads: 1, headDim, lengths, window, rope, latentDim);
            string what = $"seed {seed}: {heads} heads of {headDim}, latent {latentDim}, pages of {pageTokens}, window {window}, lengths "
                + string.Join(' ', lengths);
            return new Case(scenario, format, pageTokens, seed, what);
        })];
    }

    private static Case[] LongCases(KvFormat format)
    {
        int seed = Random.Shared.Next();
        return [.. new int?[] { null, 700 }.Select(window => new Case(
            new AttentionScenario(seed, heads: 3, kvHeads: 1, headDim: 32, [1700], window, sinks: window is not null), format, 48, seed,
            $"seed {seed}, window {window}"))];
    }

    private static Case[] Rotations()
    {
        int seed = Random.Shared.Next();
        (int HeadDim, int Dimensions)[] shapes = [(20, 20), (64, 64), (80, 32), (128, 128), (96, 24), (48, 2)];
        return [.. Enum.GetValues<RopePairing>().SelectMany(pairing => shapes.Select(shape =>
        {
            RopePlan rope = AttentionScenario.Rope(pairing, shape.Dimensions, magnitude: 1.25f);
            var scenario = new AttentionScenario(seed, heads: 4, kvHeads: 2, shape.HeadDim, [300, 7], rope: rope);
            return new Case(scenario, KvFormat.F32, 32, seed, $"seed {seed}: {pairing}, {shape.Dimensions} of {shape.HeadDim}");
        }))];
    }

    /// <summary>A scenario and what the reference gives for it.</summary>
    private sealed record Case(AttentionScenario Scenario, KvFormat Format, int PageTokens, int Seed, string What)
    {
        private readonly (float[][] Values, float[][] Tolerances) expected = Scenario.Expected(Format, PageTokens);

        public void Check(float[][] actual)
        {
            Assert.Equal(expected.Values.Length, actual.Length);
            for (int s = 0; s < actual.Length; s++)
            {
                TestRows.Close(expected.Values[s], actual[s], expected.Tolerances[s], $"{What}, sequence {s}");
            }
        }
    }

    /// <summary>Each sequence gives one token in every step.</summary>
    private sealed class OneAtATime : Random
    {
        public override int Next(int maxValue) => maxValue == 3 ? 1 : 0;

        public override int Next(int minValue, int maxValue) => minValue;
    }
}
