using System.Numerics.Tensors;
using System.Security.Cryptography;

namespace Engine.Sampling;

/// <summary>
/// Chooses the tokens of one sequence. It holds the sequence's random stream and reusable buffers; a token allocates nothing once they
/// have grown. Not safe for concurrent use. The order of the steps is documented at <see cref="SamplingOptions"/>.
/// </summary>
public sealed class Sampler
{
    private readonly ILogitStep[] logitSteps;
    private readonly ICandidateStep[] candidateSteps;
    private readonly RecentTokens recentTokens;
    private readonly CandidateStorage storage = new();
    private readonly SamplingOptions options;
    private TokenLogprob[] top = [];
    private int topCount;
    private float[] modelLogits = [];
    private int checkedVocabulary = -1;
    private ulong draws;

    /// <summary>Prepares the steps.</summary>
    /// <exception cref="EngineException">An option is out of range.</exception>
    public Sampler(SamplingOptions options)
    {
        options.Validate();
        this.options = options;
        Seed = options.Seed ?? BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(sizeof(ulong)));
        logitSteps = [.. LogitSteps(options)];
        candidateSteps = [.. CandidateSteps(options)];
        bool penalties = logitSteps.Any(static step => step is not LogitBias);
        recentTokens = new RecentTokens(penalties ? options.PenaltyWindow : 0);
    }

    /// <summary>The seed in use: the one given, or the random one taken.</summary>
    public ulong Seed { get; }

    /// <summary>
    /// The likeliest tokens at the last <see cref="Sample"/>, likeliest first: as many as <see cref="SamplingOptions.Logprobs"/> says,
    /// or the vocabulary. Overwritten by the next one.
    /// </summary>
    public ReadOnlySpan<TokenLogprob> Top => top.AsSpan(0, topCount);

    /// <summary>A copy of <see cref="Top"/> to keep; allocates only where it is not empty.</summary>
    public IReadOnlyList<TokenLogprob> TopLogprobs() => topCount == 0 ? [] : Top.ToArray();

    /// <summary>Chooses the next token.</summary>
    /// <param name="logits">[vocabularySize], the model's; modified.</param>
    /// <param name="history">All tokens of the sequence so far, prompt included; the penalties look at its end.</param>
    /// <exception cref="EngineException">A logit is NaN or +∞, every logit is −∞, or an id of the history or of the bias is outside the
    /// vocabulary.</exception>
    public SampledToken Sample(Span<float> logits, ReadOnlySpan<int> history)
    {
        if (checkedVocabulary != logits.Length)
        {
            options.Validate(logits.Length);
            top = new TokenLogprob[Math.Min(options.Logprobs, logits.Length)];
            checkedVocabulary = logits.Length;
        }
        float maximum = Maximum(logits, "the model's logits");
        Candidates all = new(logits, maximum, storage);
        // The log-normaliser of the model's own distribution, for every log-probability that is reported.
        double normaliser = maximum + Math.Log(all.SumOfExponentials());
        ReportTop(all, normaliser);

        ReadOnlySpan<float> original = logits;
        if (logitSteps.Length > 0 || candidateSteps.Length > 0)
        {
            original = KeepOriginal(logits);
            ReadOnlySpan<TokenCount> recent = recentTokens.Count(history, logits.Length);
            foreach (ILogitStep step in logitSteps)
            {
                step.Apply(logits, recent);
            }
            maximum = Maximum(logits, "the logits after bias and penalties");
        }
        int id = Choose(logits, maximum);
        return new SampledToken(id, Logprob(original[id], normaliser));
    }

    private int Choose(Span<float> logits, float maximum)
    {
        if (options.Temperature == 0)
        {
            return Greedy.FirstIndexOf(logits, maximum);
        }
        Candidates candidates = new(logits, maximum, storage);
        foreach (ICandidateStep step in candidateSteps)
        {
            step.Apply(ref candidates);
        }
        return candidates.Draw(CounterRandom.Uniform(Seed, draws++));
    }

    private void ReportTop(scoped Candidates candidates, double normaliser)
    {
        topCount = 0;
        if (top.Length > 0)
        {
            candidates.KeepLikeliest(top.Length);
            foreach (ulong key in candidates.Keys)
            {
                top[topCount++] = new TokenLogprob(CandidateKey.Index(key), Logprob(CandidateKey.Value(key), normaliser));
            }
        }
    }

    /// <summary>Rounding in the normaliser must not make a probability above 1.</summary>
    private static float Logprob(float logit, double normaliser) => (float)Math.Min(logit - normaliser, 0);

    private ReadOnlySpan<float> KeepOriginal(ReadOnlySpan<float> logits)
    {
        if (modelLogits.Length < logits.Length)
        {
            modelLogits = new float[logits.Length];
        }
        logits.CopyTo(modelLogits);
        return modelLogits;
    }

    private static float Maximum(ReadOnlySpan<float> logits, string what)
    {
        if (logits.IsEmpty)
        {
            throw new EngineException("expected a logit for every token of the vocabulary, found none", item: what);
        }
        float maximum = TensorPrimitives.Max(logits);
        return float.IsFinite(maximum)
            ? maximum
            : throw new EngineException(
                maximum == float.NegativeInfinity
                    ? "expected a token that may be chosen, found −∞ for all of them"
                    : $"expected finite numbers or −∞, found {maximum} for token {FirstNotBelowInfinity(logits)}",
                item: what);
    }

    private static int FirstNotBelowInfinity(ReadOnlySpan<float> logits)
    {
        int id = 0;
        while (logits[id] < float.PositiveInfinity)
        {
            id++;
        }
        return id;
    }

    private static IEnumerable<ILogitStep> LogitSteps(SamplingOptions options)
    {
        if (options.LogitBias is { Count: > 0 } bias)
        {
            yield return new LogitBias(bias);
        }
        if (options.PenaltyWindow == 0)
        {
            yield break;
        }
        if (options.RepetitionPenalty != 1)
        {
            yield return new RepetitionPenalty(options.RepetitionPenalty);
        }
        if (options.FrequencyPenalty != 0)
        {
            yield return new FrequencyPenalty(options.FrequencyPenalty);
        }
        if (options.PresencePenalty != 0)
        {
            yield return new PresencePenalty(options.PresencePenalty);
        }
    }

    private static IEnumerable<ICandidateStep> CandidateSteps(SamplingOptions options)
    {
        if (options.Temperature == 0)
        {
            yield break;
        }
        if (options.TopK > 0)
        {
            yield return new TopK(options.TopK);
        }
        if (options.TypicalP < 1)
        {
            yield return new Typical(options.TypicalP);
        }
        if (options.TopP < 1)
        {
            yield return new TopP(options.TopP);
        }
        if (options.MinP > 0)
        {
            yield return new MinP(options.MinP);
        }
        if (options.Temperature != 1)
        {
            yield return new Temperature(options.Temperature);
        }
    }
}
