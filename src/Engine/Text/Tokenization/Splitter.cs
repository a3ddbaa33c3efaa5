using System.Runtime.InteropServices;
using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization;

/// <summary>What becomes of the matches of a splitter's pattern; the names are those of Hugging Face's <c>tokenizer.json</c>.</summary>
internal enum SplitBehavior
{
    /// <summary>A match is a piece of its own.</summary>
    Isolated,

    /// <summary>A match is dropped.</summary>
    Removed,

    /// <summary>A match is the end of the piece before it.</summary>
    MergedWithPrevious,

    /// <summary>A match is the beginning of the piece after it.</summary>
    MergedWithNext,

    /// <summary>Neighbouring matches are one piece.</summary>
    Contiguous,
}

/// <summary>A piece of a text: from <see cref="Start"/> up to and without <see cref="End"/>, in UTF-16 units.</summary>
internal readonly record struct Piece(int Start, int End);

/// <summary>Cuts text into the pieces that are encoded one by one, so that no token spans two of them.</summary>
internal abstract class Splitter
{
    /// <summary>Appends the pieces of a text, in order and none of them empty.</summary>
    /// <param name="text">The text.</param>
    /// <param name="offset">What to add to the positions.</param>
    /// <param name="pieces">Where the pieces go.</param>
    public abstract void Split(ReadOnlySpan<char> text, int offset, List<Piece> pieces);
}

/// <summary>Cuts where a pattern matches.</summary>
/// <param name="pattern">The pattern.</param>
/// <param name="behavior">What becomes of its matches.</param>
/// <param name="invert">The matches and what lies between them change places.</param>
internal sealed class PatternSplitter(Pattern pattern, SplitBehavior behavior = SplitBehavior.Isolated, bool invert = false) : Splitter
{
    public override void Split(ReadOnlySpan<char> text, int offset, List<Piece> pieces)
    {
        int first = pieces.Count, done = 0;
        bool previousMatched = false;
        Pattern.Scan scan = pattern.Over(text);
        while (scan.MoveNext(out int start, out int end))
        {
            Add(new Piece(offset + done, offset + start), invert, first, ref previousMatched, pieces);
            Add(new Piece(offset + start, offset + end), !invert, first, ref previousMatched, pieces);
            done = end;
        }
        Add(new Piece(offset + done, offset + text.Length), invert, first, ref previousMatched, pieces);
    }

    private void Add(Piece piece, bool matched, int first, ref bool previousMatched, List<Piece> pieces)
    {
        if (piece.Start == piece.End)
            return;
        bool extend = pieces.Count > first && behavior switch
        {
            SplitBehavior.MergedWithPrevious => matched && !previousMatched,
            SplitBehavior.MergedWithNext => !matched && previousMatched,
            SplitBehavior.Contiguous => matched == previousMatched,
            _ => false,
        };
        if (extend)
            pieces[^1] = pieces[^1] with { End = piece.End };
        else if (behavior != SplitBehavior.Removed || !matched)
            pieces.Add(piece);
        previousMatched = matched;
    }
}

/// <summary>
/// Cuts before every word marker that follows something else. Text that SentencePiece would encode as one long word then becomes short
/// ones, which a cache can remember. This is exact for a vocabulary in which no token has a marker behind another character: no merge can
/// cross such a cut.
/// </summary>
internal sealed class WordStartSplitter(char marker) : Splitter
{
    public override void Split(ReadOnlySpan<char> text, int offset, List<Piece> pieces)
    {
        int start = 0;
        while (start < text.Length)
        {
            int end = start;
            while (end < text.Length && text[end] == marker)
                end++;
            int length = text[end..].IndexOf(marker);
            end = length < 0 ? text.Length : end + length;
            pieces.Add(new Piece(offset + start, offset + end));
            start = end;
        }
    }
}

/// <summary>Splitters one after the other, each cutting the pieces of the one before it.</summary>
internal sealed class SplitterChain(IReadOnlyList<Splitter> splitters)
{
    /// <summary>
    /// Replaces the contents of <paramref name="pieces"/> by the pieces of a text; <paramref name="spare"/> is working space.
    /// </summary>
    public void Split(ReadOnlySpan<char> text, ref List<Piece> pieces, ref List<Piece> spare)
    {
        pieces.Clear();
        pieces.Add(new Piece(0, text.Length));
        foreach (Splitter splitter in splitters)
        {
            spare.Clear();
            foreach (ref readonly Piece piece in CollectionsMarshal.AsSpan(pieces))
                splitter.Split(text[piece.Start..piece.End], piece.Start, spare);
            (pieces, spare) = (spare, pieces);
        }
    }
}
