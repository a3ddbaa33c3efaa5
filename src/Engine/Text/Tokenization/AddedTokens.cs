using System.Buffers;

namespace Engine.Text.Tokenization;

/// <summary>
/// A token that is cut out of the text before anything else happens to it. The fields are those of Hugging Face's <c>added_tokens</c>.
/// </summary>
internal sealed record AddedToken(int Id, string Content)
{
    /// <summary>It only counts between characters that do not belong to words.</summary>
    public bool SingleWord { get; init; }

    /// <summary>It swallows the white space before it.</summary>
    public bool LeftStrip { get; init; }

    /// <summary>It swallows the white space behind it.</summary>
    public bool RightStrip { get; init; }

    /// <summary>It is looked for in the normalized text.</summary>
    public bool Normalized { get; init; }

    /// <summary>It steers the model and is no text; decoding can leave it out, and untrusted text must not produce it.</summary>
    public bool Special { get; init; }
}

/// <summary>Finds added tokens in text: the leftmost, and of those that begin there the longest.</summary>
internal sealed class AddedTokenFinder
{
    private readonly Dictionary<(int Node, char Next), int> edges = [];
    private readonly List<AddedToken?> ends = [null];
    private readonly SearchValues<char> beginnings;

    /// <summary>Prepares to find some tokens.</summary>
    /// <param name="tokens">Each token with the text to look for.</param>
    public AddedTokenFinder(IEnumerable<(AddedToken Token, string Text)> tokens)
    {
        var first = new HashSet<char>();
        foreach ((AddedToken token, string text) in tokens)
        {
            if (text.Length == 0)
                continue;
            first.Add(text[0]);
            int node = 0;
            foreach (char next in text)
            {
                if (!edges.TryGetValue((node, next), out int child))
                {
                    child = ends.Count;
                    ends.Add(null);
                    edges.Add((node, next), child);
                }
                node = child;
            }
            ends[node] ??= token;
        }
        beginnings = SearchValues.Create([.. first]);
    }

    /// <summary>There is nothing to find.</summary>
    public bool IsEmpty => ends.Count == 1;

    /// <summary>Finds the next token.</summary>
    /// <param name="text">The text.</param>
    /// <param name="from">Where to begin.</param>
    /// <param name="special">Special tokens count.</param>
    /// <param name="found">What it takes of the text, with the white space that it swallows.</param>
    /// <returns>The token, or null where there is none.</returns>
    public AddedToken? Next(ReadOnlySpan<char> text, int from, bool special, out Piece found)
    {
        for (int start = from; start < text.Length; start++)
        {
            int distance = text[start..].IndexOfAny(beginnings);
            if (distance < 0)
                break;
            start += distance;
            if (Longest(text, start, special, out int end) is not { } token)
                continue;
            if (token.SingleWord && ((start > 0 && IsWord(text[start - 1])) || (end < text.Length && IsWord(text[end]))))
                continue;
            int left = start, right = end;
            while (token.LeftStrip && left > from && char.IsWhiteSpace(text[left - 1]))
                left--;
            while (token.RightStrip && right < text.Length && char.IsWhiteSpace(text[right]))
                right++;
            found = new Piece(left, right);
            return token;
        }
        found = default;
        return null;
    }

    private static bool IsWord(char character) => char.IsLetterOrDigit(character) || character == '_';

    private AddedToken? Longest(ReadOnlySpan<char> text, int start, bool special, out int end)
    {
        AddedToken? longest = null;
        end = start;
        int node = 0;
        for (int position = start; position < text.Length && edges.TryGetValue((node, text[position]), out node); position++)
        {
            if (ends[node] is { } token && (special || !token.Special))
            {
                longest = token;
                end = position + 1;
            }
        }
        return longest;
    }
}
