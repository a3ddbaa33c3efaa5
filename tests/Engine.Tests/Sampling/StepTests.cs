using Engine.Sampling;
using Xunit;

namespace Engine.Tests.Sampling;

/// <summary>Each step against its definition in double precision.</summary>
public sealed class StepTests
{
    private const int Rounds = 300;

    [Fact]
    public void TopKKeepsTheLikeliestInOrder()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(1, 3000));
            int k = random.Next(1, random.Next(2) == 0 ? 50 : logits.Length + 10);
            List<int> kept = Apply(logits, new TopK(k));
            List<int> expected = [.. Enumerable.Range(0, logits.Length).Where(id => logits[id] > float.NegativeInfinity)
                .OrderByDescending(id => logits[id]).ThenBy(id => id).Take(k)];
            bool everything = k >= logits.Length;
            Assert.True(everything ? kept.ToHashSet().IsSupersetOf(expected) : kept.SequenceEqual(expected),
                $"seed {seed}, round {round}, k {k}");
        }
    }

    [Fact]
    public void TopPKeepsTheNucleus()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(1, 3000));
            float p = Fraction(random);
            (HashSet<int> expected, double margin) = Oracle.TopP(Double(logits), p);
            AssertReached(expected, margin, Apply(logits, new TopP(p)), $"seed {seed}, round {round}, p {p}");
        }
    }

    [Fact]
    public void TopPAfterTopKRenormalises()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(2, 500));
            int k = random.Next(1, logits.Length);
            float p = Fraction(random);
            HashSet<int> likeliest = Oracle.TopK(Double(logits), k);
            double[] rest = [.. logits.Select((l, id) => likeliest.Contains(id) ? l : double.NegativeInfinity)];
            (HashSet<int> expected, double margin) = Oracle.TopP(rest, p);
            AssertReached(expected, margin, Apply(logits, new TopK(k), new TopP(p)), $"seed {seed}, round {round}, k {k}, p {p}");
        }
    }

    [Fact]
    public void MinPKeepsWhatIsNearTheLikeliest()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(1, 3000));
            float p = Fraction(random);
            List<int> kept = Apply(logits, new MinP(p));
            double maximum = logits.Max();
            foreach (int id in Enumerable.Range(0, logits.Length))
            {
                double distance = logits[id] - maximum - Math.Log(p);
                // At the boundary itself rounding decides.
                Assert.True(Math.Abs(distance) < 1e-3 || kept.Contains(id) == (distance > 0),
                    $"seed {seed}, round {round}, p {p}, token {id}");
            }
        }
    }

    [Fact]
    public void TypicalKeepsWhatIsNearTheEntropy()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = [.. Enumerable.Range(0, random.Next(1, 1000)).Select(_ => (float)(Logits.Gaussian(random) * 3))];
            float p = Fraction(random);
            (HashSet<int> expected, double margin) = Oracle.Typical(Double(logits), p);
            AssertReached(expected, margin, Apply(logits, new Typical(p)), $"seed {seed}, round {round}, p {p}");
        }
    }

    [Fact]
    public void TypicalMayDropTheLikeliest()
    {
        // One likely token and many that are not: the entropy is near the surprise of the many.
        float[] logits = [.. Enumerable.Range(0, 1000).Select(id => id == 7 ? MathF.Log(300) : 0f)];
        (HashSet<int> expected, _) = Oracle.Typical(Double(logits), 0.5);
        List<int> kept = Apply(logits, new Typical(0.5f));
        Assert.DoesNotContain(7, expected);
        Assert.Equal(expected, kept.ToHashSet());
    }

    [Fact]
    public void StepsWorkInAnyOrder()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        CandidateStorage storage = new();
        for (int round = 0; round < Rounds; round++)
        {
            ICandidateStep[] steps =
            [
                new TopK(random.Next(1, 60)), new TopP(Fraction(random)), new MinP(Fraction(random) / 10), new Typical(Fraction(random)),
                new Temperature((float)Math.Exp(Logits.Gaussian(random))),
            ];
            random.Shuffle(steps);
            float[] logits = Logits.Any(random, random.Next(1, 400));
            Candidates candidates = new(logits, logits.Max(), storage);
            float[] original = [.. logits];
            foreach (ICandidateStep step in steps)
            {
                step.Apply(ref candidates);
                Assert.True(candidates.Count >= 1, $"seed {seed}, round {round}");
            }
            int drawn = candidates.Draw(random.NextDouble());
            Assert.True(float.IsFinite(original[drawn]), $"seed {seed}, round {round}: forbidden token {drawn}");
            Assert.True(candidates.SumOfExponentials() >= 0.999, $"seed {seed}, round {round}: the maximum is not among the candidates");
        }
    }

    [Fact]
    public void TemperatureScalesTheLogits()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(1, 100));
            float temperature = (float)Math.Exp(Logits.Gaussian(random) * 2);
            double[] expected = Oracle.Softmax([.. logits.Select(l => l / (double)temperature)]);
            foreach (bool sparse in new[] { false, true })
            {
                float[] work = [.. logits];
                Candidates candidates = new(work, work.Max(), new CandidateStorage());
                if (sparse)
                {
                    candidates.KeepAtLeast(float.NegativeInfinity);
                }
                new Temperature(temperature).Apply(ref candidates);
                double[] scaled = new double[work.Length];
                Array.Fill(scaled, double.NegativeInfinity);
                if (sparse)
                {
                    foreach (ulong key in candidates.Keys)
                    {
                        scaled[CandidateKey.Index(key)] = CandidateKey.Value(key);
                    }
                }
                else
                {
                    scaled = Double(work);
                }
                double[] found = Oracle.Softmax(scaled);
                for (int id = 0; id < work.Length; id++)
                {
                    Assert.True(Math.Abs(found[id] - expected[id]) < 1e-5,
                        $"seed {seed}, round {round}, T {temperature}: {found[id]} for {expected[id]}");
                }
            }
        }
    }

    [Fact]
    public void PenaltiesFollowTheirFormulas()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < Rounds; round++)
        {
            float[] logits = Logits.Any(random, random.Next(1, 100));
            int[] history = [.. Enumerable.Range(0, random.Next(0, 200)).Select(_ => random.Next(logits.Length))];
            int window = random.Next(-1, 100);
            float repetition = 0.5f + random.NextSingle(), presence = random.NextSingle() * 4 - 2, frequency = random.NextSingle() * 4 - 2;
            int[] recent = window < 0 ? history : history[Math.Max(0, history.Length - window)..];

            float[] found = [.. logits];
            ReadOnlySpan<TokenCount> counts = new RecentTokens(window).Count(history, logits.Length);
            ILogitStep[] steps = [new RepetitionPenalty(repetition), new FrequencyPenalty(frequency), new PresencePenalty(presence)];
            foreach (ILogitStep step in steps)
            {
                step.Apply(found, counts);
            }
            for (int id = 0; id < logits.Length; id++)
            {
                int count = recent.Count(token => token == id);
                double expected = logits[id];
                if (count > 0)
                {
                    expected = expected > 0 ? expected / repetition : expected * repetition;
                    expected -= count * (double)frequency + presence;
                }
                bool equal = expected == found[id] || Math.Abs(expected - found[id]) <= 1e-4 * Math.Max(1, Math.Abs(expected));
                Assert.True(equal, $"seed {seed}, round {round}, token {id} × {count}: {found[id]} for {expected}");
            }
        }
    }

    [Fact]
    public void SelectionPutsTheSmallestFirst()
    {
        int seed = Logits.FreshSeed();
        Random random = new(seed);
        for (int round = 0; round < 2000; round++)
        {
            int length = random.Next(1, 200);
            // Distinct keys in random, ascending, descending and organ-pipe order: what pivots stumble over.
            ulong[] keys = [.. Enumerable.Range(0, length).Select(i => (ulong)i * 3)];
            switch (round % 4)
            {
                case 0:
                    random.Shuffle(keys);
                    break;
                case 1:
                    Array.Reverse(keys);
                    break;
                case 2:
                    Array.Reverse(keys, length / 2, length - length / 2);
                    break;
            }
            int count = random.Next(0, length + 1);
            CandidateKey.Select(keys, count);
            Assert.True(keys[..count].Order().SequenceEqual(Enumerable.Range(0, count).Select(i => (ulong)i * 3)),
                $"seed {seed}, round {round}");
            Assert.Equal(length, keys.Distinct().Count());
        }
    }

    [Fact]
    public void KeysSortByValueDescendingThenIndex()
    {
        float[] values = [float.MaxValue, 3.5f, 1e-40f, 0f, -1e-40f, -2f, float.MinValue, float.NegativeInfinity];
        ulong[] keys = [.. values.SelectMany((v, i) => new[] { CandidateKey.Pack(v, 2 * i + 1), CandidateKey.Pack(v, 2 * i) })];
        Array.Sort(keys);
        Assert.Equal(Enumerable.Range(0, 2 * values.Length), keys.Select(CandidateKey.Index));
        Assert.Equal(values.SelectMany(v => new[] { v, v }), keys.Select(CandidateKey.Value));
        Assert.Equal(CandidateKey.Pack(0f, 5), CandidateKey.Pack(-0f, 5));
    }

    private static float Fraction(Random random) => random.Next(3) switch
    {
        0 => random.NextSingle() * 0.998f + 0.001f,
        1 => 0.95f,
        _ => 0.999f,
    };

    private static double[] Double(float[] logits) => [.. logits.Select(l => (double)l)];

    private static List<int> Apply(float[] logits, params ICandidateStep[] steps)
    {
        Candidates candidates = new([.. logits], logits.Max(), new CandidateStorage());
        foreach (ICandidateStep step in steps)
        {
            step.Apply(ref candidates);
        }
        List<int> kept = [];
        if (candidates.IsDense)
        {
            return [.. Enumerable.Range(0, logits.Length)];
        }
        foreach (ulong key in candidates.Keys)
        {
            Assert.Equal(logits[CandidateKey.Index(key)], CandidateKey.Value(key));
            kept.Add(CandidateKey.Index(key));
        }
        return kept;
    }

    private static void AssertReached(HashSet<int> expected, double margin, List<int> kept, string context)
    {
        Assert.Equal(kept.Count, kept.Distinct().Count());
        if (margin > Oracle.Rounding)
        {
            Assert.True(expected.SetEquals(kept), $"{context}: {kept.Count} kept for {expected.Count}");
        }
        else
        {
            // Rounding decides about the last token, or about a run of tokens that weigh nothing.
            Assert.NotEmpty(kept);
        }
    }
}
