using System.Numerics.Tensors;
using Engine;

namespace Host.Measuring;

/// <summary>
/// Perplexity as llama.cpp defines it: the text is cut into chunks of <c>context</c> tokens, each fed to an empty cache; the first half
/// of a chunk is only context, and every token after it but the first is scored. Where the model's tokenizer adds a
/// beginning-of-sequence token, it takes the place of a chunk's first token.
/// </summary>
internal sealed class Perplexity
{
    private double sum, sumOfSquares;

    /// <summary>Tokens scored.</summary>
    public int Count { get; private set; }

    /// <summary>Mean negative log-likelihood in nats.</summary>
    public double NegativeLogLikelihood => sum / Count;

    /// <summary>exp of the mean negative log-likelihood.</summary>
    public double Value => Math.Exp(NegativeLogLikelihood);

    /// <summary>The standard error of the mean, carried over to the perplexity to first order; 0 for a single token.</summary>
    public double StandardError
    {
        get
        {
            double variance = sumOfSquares / Count - NegativeLogLikelihood * NegativeLogLikelihood;
            return Count > 1 && variance > 0 ? Math.Sqrt(variance / (Count - 1)) * Value : 0;
        }
    }

    /// <summary>Adds a chunk.</summary>
    /// <param name="model">The model.</param>
    /// <param name="tokens">[context]; at least 4, so that one token is scored.</param>
    /// <param name="streams">Parallel streams, or null for the model's first set.</param>
    public void Add(LanguageModel model, int[] tokens, int? streams = null)
    {
        int first = tokens.Length / 2;
        using LogitsSession session = model.CreateLogitsSession(streams);
        // The last token's logits would predict what is not in the chunk.
        session.Feed(tokens.AsSpan(0, tokens.Length - 1), first, (position, logits) => Score(logits, tokens[position + 1]));
    }

    private void Score(ReadOnlySpan<float> logits, int next)
    {
        float maximum = TensorPrimitives.Max(logits);
        double exponentials = 0;
        foreach (float logit in logits)
        {
            exponentials += MathF.Exp(logit - maximum);
        }
        double surprise = Math.Log(exponentials) + maximum - logits[next];
        if (!double.IsFinite(surprise))
        {
            throw new EngineException($"expected finite numbers, found a likelihood of {surprise} for token {next}", item: "logits");
        }
        sum += surprise;
        sumOfSquares += surprise * surprise;
        Count++;
    }
}
