using BenchmarkDotNet.Attributes;
using Engine.Sampling;

namespace Engine.Bench;

/// <summary>Choosing one token from a vocabulary of 151,936: the cost beside a forward pass.</summary>
[MemoryDiagnoser]
public class SamplerBenchmarks
{
    private const int Vocabulary = 151_936;
    private readonly float[] source = new float[Vocabulary];
    private readonly float[] logits = new float[Vocabulary];
    private readonly int[] history = [.. Enumerable.Range(0, 512)];
    private Sampler sampler = new(SamplingOptions.Greedy);

    /// <summary>What is asked for.</summary>
    [Params("greedy", "defaults", "top-p 0.9 only", "penalties")]
    public string Options { get; set; } = "greedy";

    /// <summary>Random logits and the sampler.</summary>
    [GlobalSetup]
    public void Setup()
    {
        Random random = new(1);
        foreach (ref float logit in source.AsSpan())
        {
            logit = (float)(6 * (random.NextDouble() + random.NextDouble() + random.NextDouble() - 1.5));
        }
        sampler = new Sampler(Options switch
        {
            "greedy" => SamplingOptions.Greedy,
            "defaults" => new SamplingOptions { Seed = 1 },
            "top-p 0.9 only" => new SamplingOptions { Seed = 1, TopK = 0, MinP = 0, TopP = 0.9f },
            _ => new SamplingOptions { Seed = 1, RepetitionPenalty = 1.1f, PresencePenalty = 0.2f, FrequencyPenalty = 0.2f },
        });
    }

    /// <summary>One token, the copy of the logits included.</summary>
    [Benchmark]
    public int Sample()
    {
        source.CopyTo(logits, 0);
        return sampler.Sample(logits, history).Id;
    }
}
