using Engine.Sampling;
using Xunit;

namespace Engine.Tests.Sampling;

public sealed class SamplerTests
{
    private static readonly SamplingOptions Plain = new() { Temperature = 1, TopK = 0, TopP = 1, MinP = 0, TypicalP = 1 };

    [Theory]
    [InlineData("plain")]
    [InlineData("temperature")]
    [InlineData("top-k")]
    [InlineData("top-p")]
    [InlineData("min-p")]
    [InlineData("typical")]
    [InlineData("defaults")]
    public void DrawsFollowTheDistribution(string which)
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        SamplingOptions options = which switch
        {
            "temperature" => Plain with { Temperature = 0.6f },
            "top-k" => Plain with { TopK = 25 },
            "top-p" => Plain with { TopP = 0.7f },
            "min-p" => Plain with { MinP = 0.1f },
            "typical" => Plain with { TypicalP = 0.6f },
            "defaults" => new SamplingOptions(),
            _ => Plain,
        };
        float[] logits;
        double[] expected;
        double margin;
        do
        {
            // Two blocks of the dense draw. Where rounding decides which tokens stay, there is no one distribution to compare with.
            logits = [.. Enumerable.Range(0, 1500).Select(_ => (float)Logits.Gaussian(random) * 1.5f)];
            (expected, margin) = ExpectedDistribution(logits, options);
        }
        while (margin < Oracle.Rounding);
        Sampler sampler = new(options with { Seed = (ulong)seed });
        const int Draws = 30_000;
        int[] counts = new int[logits.Length];
        float[] work = new float[logits.Length];
        for (int i = 0; i < Draws; i++)
        {
            logits.CopyTo(work, 0);
            counts[sampler.Sample(work, []).Id]++;
        }
        AssertChiSquare(expected, counts, Draws, $"seed {seed}, {which}");
    }

    [Fact]
    public void TheSameSeedGivesTheSameTokensWhateverRunsBeside()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        float[][] steps = [.. Enumerable.Range(0, 40).Select(_ => Logits.Any(random, 700))];
        SamplingOptions options = new() { Seed = 42, TopK = 0, TopP = 0.99f, MinP = 0 };

        List<int> alone = Run(new Sampler(options), steps);
        Sampler first = new(options), second = new(options), other = new(options with { Seed = 43 });
        List<int> interleavedFirst = [], interleavedSecond = [], interleavedOther = [];
        foreach (float[] logits in steps)
        {
            interleavedFirst.Add(first.Sample([.. logits], []).Id);
            interleavedOther.Add(other.Sample([.. logits], []).Id);
            interleavedSecond.Add(second.Sample([.. logits], []).Id);
        }
        Assert.Equal(alone, interleavedFirst);
        Assert.Equal(alone, interleavedSecond);
        Assert.NotEqual(alone, interleavedOther);
    }

    [Fact]
    public void ARandomSeedIsReportedAndRepeats()
    {
        Sampler sampler = new(Plain);
        Assert.NotEqual(sampler.Seed, new Sampler(Plain).Seed);
        float[][] steps = [.. Enumerable.Range(0, 20).Select(_ => new float[100])];
        List<int> tokens = Run(sampler, steps);
        Assert.Equal(tokens, Run(new Sampler(Plain with { Seed = sampler.Seed }), steps));
    }

    [Theory]
    [InlineData(0f, 0, 1f, 0f)]
    [InlineData(1f, 1, 1f, 0f)]
    [InlineData(1f, 0, 1e-6f, 0f)]
    [InlineData(1f, 0, 1f, 1f)]
    [InlineData(1e-20f, 0, 1f, 0f)]
    [InlineData(1e-45f, 5, 0.9f, 0.1f)]
    public void AGreedySettingTakesTheLikeliest(float temperature, int topK, float topP, float minP)
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < 100; round++)
        {
            float[] logits = [.. Enumerable.Range(0, random.Next(1, 300)).Select(_ => (float)Logits.Gaussian(random) * 5)];
            SamplingOptions options = new() { Temperature = temperature, TopK = topK, TopP = topP, MinP = minP };
            // Two of them may be equal, and not every setting says which is first.
            float chosen = logits[new Sampler(options).Sample([.. logits], []).Id];
            Assert.True(chosen == logits.Max(), $"seed {seed}, round {round}: {chosen} for {logits.Max()}");
        }
    }

    [Fact]
    public void TiesGoToTheLowestId()
    {
        float[] logits = new float[100];
        Array.Fill(logits, -1f);
        logits[30] = -0f;
        logits[60] = 0f;
        logits[90] = 0f;
        foreach (SamplingOptions options in new[] { SamplingOptions.Greedy, Plain with { TopK = 1 }, Plain with { TopP = 0.01f } })
        {
            Assert.Equal(30, new Sampler(options).Sample([.. logits], []).Id);
        }
        Sampler two = new(Plain with { TopK = 2, Logprobs = 3 });
        HashSet<int> seen = [.. Enumerable.Range(0, 200).Select(_ => two.Sample([.. logits], []).Id)];
        Assert.Equal([30, 60], seen.Order());
        Assert.Equal([30, 60, 90], two.Top.ToArray().Select(t => t.Id));
    }

    [Fact]
    public void AHighTemperatureIsUniformOverWhatIsAllowed()
    {
        float[] logits = [5, -3, float.NegativeInfinity, 100, -200];
        double[] expected = [0.25, 0.25, 0, 0.25, 0.25];
        Sampler sampler = new(Plain with { Temperature = float.MaxValue });
        int[] counts = new int[5];
        for (int i = 0; i < 20_000; i++)
        {
            counts[sampler.Sample([.. logits], []).Id]++;
        }
        AssertChiSquare(expected, counts, 20_000, $"seed {sampler.Seed}");
    }

    [Theory]
    [InlineData(0, 1f, 0f, 1f)]
    [InlineData(3, 1f, 0f, 1f)]
    [InlineData(1_000_000, 0.9f, 0.05f, 0.5f)]
    public void TheOnlyPossibleTokenIsChosen(int topK, float topP, float minP, float typicalP)
    {
        float[] logits = new float[5000];
        Array.Fill(logits, float.NegativeInfinity);
        logits[4321] = -12f;
        SamplingOptions options = new() { TopK = topK, TopP = topP, MinP = minP, TypicalP = typicalP, Logprobs = 5 };
        Sampler sampler = new(options);
        SampledToken token = sampler.Sample(logits, []);
        Assert.Equal(4321, token.Id);
        Assert.InRange(token.Logprob, -1e-6f, 0f);
        Assert.Equal([new TokenLogprob(4321, token.Logprob)], sampler.Top.ToArray());
    }

    [Fact]
    public void AKBeyondTheVocabularyKeepsAll()
    {
        SamplingOptions options = Plain with { TopK = int.MaxValue, Seed = 7 };
        float[] logits = [1, 2, 3, 2];
        List<int> with = Run(new Sampler(options), Enumerable.Repeat(logits, 50));
        Assert.Equal(Run(new Sampler(options with { TopK = 0 }), Enumerable.Repeat(logits, 50)), with);
        Assert.Equal([0, 1, 2, 3], with.Distinct().Order());
    }

    [Fact]
    public void LogprobsAreOfTheModelsOwnDistribution()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < 100; round++)
        {
            float[] logits = Logits.Any(random, random.Next(2, 3000));
            double[] probabilities = Oracle.Softmax(logits);
            int count = random.Next(1, 30);
            Sampler sampler = new(new SamplingOptions
            {
                Seed = (ulong)round,
                Temperature = round % 3,
                RepetitionPenalty = 1.3f,
                LogitBias = new Dictionary<int, float> { [0] = -3 },
                Logprobs = count,
            });
            SampledToken token = sampler.Sample([.. logits], [1, 0, 1]);
            Assert.True(Math.Abs(token.Logprob - Math.Log(probabilities[token.Id])) < 1e-4, $"seed {seed}, round {round}");
            int[] expected = [.. Enumerable.Range(0, logits.Length).Where(id => logits[id] > float.NegativeInfinity)
                .OrderByDescending(id => logits[id]).ThenBy(id => id).Take(count)];
            Assert.Equal(expected, sampler.Top.ToArray().Select(t => t.Id));
            foreach (TokenLogprob top in sampler.Top)
            {
                double error = Math.Abs(top.Logprob - Math.Log(probabilities[top.Id]));
                Assert.True(error < 1e-4 || probabilities[top.Id] < 1e-300, $"seed {seed}, round {round}, token {top.Id}: off by {error}");
            }
        }
    }

    [Fact]
    public void BiasAndPenaltiesDecideTheGreedyToken()
    {
        float[] logits = [5, 4, 3, 2];
        Assert.Equal(0, Greedy(new()));
        Assert.Equal(3, Greedy(new() { LogitBias = new Dictionary<int, float> { [3] = 10 } }));
        Assert.Equal(1, Greedy(new() { LogitBias = new Dictionary<int, float> { [0] = float.NegativeInfinity } }));
        Assert.Equal(1, Greedy(new() { RepetitionPenalty = 2 }, 0));
        Assert.Equal(2, Greedy(new() { PresencePenalty = 2.5f }, 0, 1));
        Assert.Equal(1, Greedy(new() { FrequencyPenalty = 0.6f }, 0, 0));
        Assert.Equal(0, Greedy(new() { FrequencyPenalty = 0.6f, PenaltyWindow = 1 }, 0, 0));
        Assert.Equal(0, Greedy(new() { FrequencyPenalty = 0.6f, PenaltyWindow = 0 }, 0, 0, 0));

        int Greedy(SamplingOptions options, params int[] history) =>
            new Sampler(options with { Temperature = 0 }).Sample([.. logits], history).Id;
    }

    [Fact]
    public void BadLogitsAreRefused()
    {
        foreach (SamplingOptions options in new[] { SamplingOptions.Greedy, Plain, new SamplingOptions() })
        {
            Assert.Contains("NaN for token 2", Refused([1, 2, float.NaN, 4]));
            Assert.Contains("for token 3", Refused([1, 2, 3, float.PositiveInfinity]));
            Assert.Contains("−∞ for all", Refused([float.NegativeInfinity, float.NegativeInfinity]));
            Assert.Contains("found none", Refused([]));

            string Refused(float[] logits) => Assert.Throws<EngineException>(() => new Sampler(options).Sample(logits, [])).Message;
        }
        SamplingOptions forbidden = Plain with { LogitBias = new Dictionary<int, float> { [0] = float.NegativeInfinity } };
        Assert.Throws<EngineException>(() => new Sampler(forbidden).Sample([1f], []));
        SamplingOptions unknown = Plain with { LogitBias = new Dictionary<int, float> { [9] = 1 } };
        Assert.Throws<EngineException>(() => new Sampler(unknown).Sample([1f], []));
        Assert.Throws<EngineException>(() => new Sampler(Plain with { PresencePenalty = 1 }).Sample([1f, 2f], [0, 2]));
        Assert.Throws<EngineException>(() => new Sampler(Plain with { PresencePenalty = 1 }).Sample([1f, 2f], [-1]));
    }

    [Fact]
    public void OptionsOutOfRangeAreRefusedByName()
    {
        (string Name, SamplingOptions Options)[] cases =
        [
            ("Temperature", new() { Temperature = -0.1f }), ("Temperature", new() { Temperature = float.NaN }),
            ("Temperature", new() { Temperature = float.PositiveInfinity }), ("TopK", new() { TopK = -1 }),
            ("TopP", new() { TopP = 0 }), ("TopP", new() { TopP = 1.01f }), ("TopP", new() { TopP = float.NaN }),
            ("MinP", new() { MinP = -0.1f }), ("MinP", new() { MinP = 1.1f }), ("TypicalP", new() { TypicalP = 0 }),
            ("RepetitionPenalty", new() { RepetitionPenalty = 0 }), ("RepetitionPenalty", new() { RepetitionPenalty = float.NaN }),
            ("PenaltyWindow", new() { PenaltyWindow = -2 }), ("PresencePenalty", new() { PresencePenalty = float.NaN }),
            ("FrequencyPenalty", new() { FrequencyPenalty = float.NegativeInfinity }), ("Logprobs", new() { Logprobs = -1 }),
            ("LogitBias", new() { LogitBias = new Dictionary<int, float> { [-1] = 0 } }),
            ("LogitBias", new() { LogitBias = new Dictionary<int, float> { [1] = float.NaN } }),
            ("LogitBias", new() { LogitBias = new Dictionary<int, float> { [1] = float.PositiveInfinity } }),
        ];
        foreach ((string name, SamplingOptions options) in cases)
        {
            EngineException refused = Assert.Throws<EngineException>(() => new Sampler(options));
            Assert.Equal(name, refused.Item);
            Assert.Contains("expected", refused.Message, StringComparison.Ordinal);
            Assert.Contains("found", refused.Message, StringComparison.Ordinal);
        }
        new SamplingOptions().Validate();
        SamplingOptions.Greedy.Validate();
    }

    [Fact]
    public void ATokenAllocatesNothingAfterWarmUp()
    {
        Random random = new(Logits.FreshSeed());
        float[] logits = [.. Enumerable.Range(0, 20_000).Select(_ => (float)Logits.Gaussian(random) * 4)];
        float[] work = new float[logits.Length];
        int[] history = [.. Enumerable.Range(0, 500).Select(_ => random.Next(logits.Length))];
        SamplingOptions penalties = new() { RepetitionPenalty = 1.1f, PresencePenalty = 0.1f, FrequencyPenalty = 0.1f, Logprobs = 5 };
        SamplingOptions[] settings =
        [
            SamplingOptions.Greedy, Plain, new SamplingOptions(),
            Plain with { TopP = 0.9f }, Plain with { MinP = 0.02f }, Plain with { TypicalP = 0.7f },
            penalties, penalties with { PenaltyWindow = -1 }, Plain with { LogitBias = new Dictionary<int, float> { [3] = 2 } },
        ];
        foreach (SamplingOptions options in settings)
        {
            Sampler sampler = new(options);
            Draw();
            Assert.True(Allocation.Of(Draw) == 0, $"{options}");

            void Draw()
            {
                for (int i = 0; i < 20; i++)
                {
                    logits.CopyTo(work, 0);
                    sampler.Sample(work, history.AsSpan(0, 480 + i));
                }
            }
        }
    }

    [Fact]
    public void RandomNumbersAgreeWithTheAuthorsVectors()
    {
        // kat_vectors of Random123, philox4x32 10.
        Assert.Equal((0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u), CounterRandom.Block(0, 0, 0, 0, 0, 0));
        const uint Ones = uint.MaxValue;
        Assert.Equal((0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu), CounterRandom.Block(Ones, Ones, Ones, Ones, Ones, Ones));
        Assert.Equal(
            (0xd16cfe09u, 0x94fdcceBu, 0x5001e420u, 0x24126ea1u),
            CounterRandom.Block(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0));
    }

    private static List<int> Run(Sampler sampler, IEnumerable<float[]> steps) =>
        [.. steps.Select(logits => sampler.Sample([.. logits], []).Id)];

    /// <summary>The distribution, and the smallest margin of the steps that lead to it.</summary>
    private static (double[] Probabilities, double Margin) ExpectedDistribution(float[] logits, SamplingOptions options)
    {
        double[] rest = [.. logits.Select(l => (double)l)];
        double least = double.PositiveInfinity;
        if (options.TopK > 0)
        {
            Keep(Oracle.TopK(rest, options.TopK), double.PositiveInfinity);
        }
        if (options.TypicalP < 1)
        {
            (HashSet<int> kept, double margin) = Oracle.Typical(rest, options.TypicalP);
            Keep(kept, margin);
        }
        if (options.TopP < 1)
        {
            (HashSet<int> kept, double margin) = Oracle.TopP(rest, options.TopP);
            Keep(kept, margin);
        }
        if (options.MinP > 0)
        {
            (HashSet<int> kept, double margin) = Oracle.MinP(rest, options.MinP);
            Keep(kept, margin);
        }
        return (Oracle.Softmax([.. rest.Select(l => l / options.Temperature)]), least);

        void Keep(HashSet<int> kept, double margin)
        {
            rest = [.. rest.Select((l, id) => kept.Contains(id) ? l : double.NegativeInfinity)];
            least = Math.Min(least, margin);
        }
    }

    /// <summary>
    /// Pearson's test with classes of at least ten expected draws, at seven standard deviations: a false alarm in 10¹¹ runs.
    /// </summary>
    private static void AssertChiSquare(double[] expected, int[] counts, int draws, string context)
    {
        double statistic = 0, restExpected = 0, restCount = 0;
        int classes = 0;
        for (int id = 0; id < expected.Length; id++)
        {
            Assert.True(expected[id] > 0 || counts[id] == 0, $"{context}: token {id} has probability 0 and was drawn");
            if (expected[id] * draws >= 10)
            {
                statistic += Math.Pow(counts[id] - expected[id] * draws, 2) / (expected[id] * draws);
                classes++;
            }
            else
            {
                restExpected += expected[id] * draws;
                restCount += counts[id];
            }
        }
        if (restExpected >= 10)
        {
            statistic += Math.Pow(restCount - restExpected, 2) / restExpected;
            classes++;
        }
        double freedom = classes - 1;
        Assert.True(freedom > 0, $"{context}: nothing to test");
        // Wilson and Hilferty (1931): the cube root of χ²/n is nearly normal.
        double deviations = (Math.Cbrt(statistic / freedom) - (1 - 2 / (9 * freedom))) / Math.Sqrt(2 / (9 * freedom));
        Assert.True(deviations < 7, $"{context}: χ² = {statistic} with {freedom} degrees of freedom");
    }
}
