using System.Text;
using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization;

/// <summary>
/// A unigram language model over subwords: of all ways to write a piece with tokens, the one whose scores (log probabilities) add up
/// highest, by the Viterbi algorithm. Source: Kudo, "Subword Regularization" (2018), section 3.2.
/// </summary>
/// <remarks>Microsoft.ML.Tokenizers reads such models from .model files only, not from <c>tokenizer.json</c>.</remarks>
internal sealed class UnigramModel : SubwordModel
{
    // The reference's price of an unknown character: this much below the worst token.
    private const double UnknownPenalty = 10;

    private readonly TokenVocabulary vocabulary;
    private readonly double[] scores;
    private readonly Func<int, bool> takesPart;
    private readonly int? unknown;
    private readonly double unknownScore;
    private readonly int longest;
    private readonly int[]? bytes;

    /// <summary>Creates a model.</summary>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="scores">A score per id; ids from there on are no part of the model.</param>
    /// <param name="takesPart">Which tokens are written as text.</param>
    /// <param name="unknown">The token of characters that no token has.</param>
    /// <param name="byteFallback">Such characters are written with the tokens of bytes, where the vocabulary has them all.</param>
    public UnigramModel(TokenVocabulary vocabulary, double[] scores, Func<int, bool> takesPart, int? unknown, bool byteFallback)
    {
        this.vocabulary = vocabulary;
        this.scores = scores;
        this.takesPart = takesPart;
        this.unknown = unknown;
        unknownScore = (scores.Length == 0 ? 0 : scores.Min()) - UnknownPenalty;
        for (int id = 0; id < scores.Length; id++)
            longest = Math.Max(longest, vocabulary.TextOf(id)?.Length ?? 0);
        if (byteFallback)
            bytes = ByteTokens();
    }

    public override void Encode(ReadOnlySpan<char> piece, List<int> ids)
    {
        // best[i]: the score of the best way to write the first i characters, and its last token.
        var best = new (double Score, int Start, int Id)[piece.Length + 1];
        Array.Fill(best, (double.NegativeInfinity, 0, -1));
        best[0].Score = 0;
        for (int start = 0; start < piece.Length;)
        {
            CodePoints.At(piece, start, out int one);
            bool single = false;
            for (int length = one; length <= longest && start + length <= piece.Length; length++)
            {
                if (!vocabulary.TryGetId(piece.Slice(start, length), out int id) || id >= scores.Length || !takesPart(id))
                    continue;
                single |= length == one;
                Offer(ref best[start + length], best[start].Score + scores[id], start, id);
            }
            if (!single)
                Offer(ref best[start + one], best[start].Score + unknownScore, start, -1);
            start += one;
        }
        Emit(piece, best, ids);
    }

    private static void Offer(ref (double Score, int Start, int Id) best, double score, int start, int id)
    {
        if (score > best.Score)
            best = (score, start, id);
    }

    private int[]? ByteTokens()
    {
        var tokens = new int[256];
        for (int value = 0; value < 256; value++)
        {
            if (!vocabulary.TryGetId(TokenSpelling.ByteToken(value), out tokens[value]))
                return null;
        }
        return tokens;
    }

    private void Emit(ReadOnlySpan<char> piece, (double Score, int Start, int Id)[] best, List<int> ids)
    {
        int first = ids.Count;
        bool previousUnknown = false;
        Span<byte> utf8 = stackalloc byte[4];
        for (int end = piece.Length; end > 0; end = best[end].Start)
        {
            (_, int start, int id) = best[end];
            if (id >= 0)
            {
                ids.Add(id);
            }
            else if (bytes is not null)
            {
                Rune.DecodeFromUtf16(piece[start..end], out Rune rune, out _);
                for (int i = rune.EncodeToUtf8(utf8) - 1; i >= 0; i--)
                    ids.Add(bytes[utf8[i]]);
            }
            else if (unknown is { } token && !previousUnknown)
            {
                ids.Add(token);
            }
            previousUnknown = id < 0;
        }
        ids.Reverse(first, ids.Count - first);
    }
}
