using System.Numerics.Tensors;
using Engine;
using Engine.Text;

namespace Host.Measuring;

/// <summary>
/// Perplexity as llama.cpp defines it: the text is cut into chunks of <c>context</c> tokens, each fed to an empty cache; the first half
/// of a chunk is only context, and every token after it but the first is scored. Where the model's tokenizer adds a
/// beginning-of-sequence token, it takes the place of a chunk's first token.
/// </summary>
internal sealed class Perplexity
{
    /// <summary>The fewest tokens of a chunk: one is scored.</summary>
    public const int SmallestContext = 4;

    private const int UsualContext = 512;

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

    /// <summary>Tokens per chunk where nobody says: 512, or a smaller context.</summary>
    public static int ContextOf(int contextLength) => Math.Min(UsualContext, contextLength);

    /// <summary>The ids of a text. A text is only text: its "&lt;unk&gt;" is five characters, as llama.cpp counts it, and no special token.</summary>
    public static int[] Encode(Tokenizer tokenizer, string text) => tokenizer.Encode(text, parseSpecial: false);

    /// <summary>Cuts ids into whole chunks, with the beginning-of-sequence token at the place of the first where the tokenizer adds one.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="ids">The text.</param>
    /// <param name="length">Tokens per chunk.</param>
    public static IEnumerable<int[]> Chunks(Tokenizer tokenizer, int[] ids, int length)
    {
        for (int start = 0; start + length <= ids.Length; start += length)
        {
            int[] tokens = ids[start..(start + length)];
            if (tokenizer.AddsBeginOfSequence && tokenizer.BeginOfSequence is { } begin)
            {
                tokens[0] = begin;
            }
            yield return tokens;
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
