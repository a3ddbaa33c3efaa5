namespace Engine.Text.Tokenization.Loading;

/// <summary>
/// Merges of a SentencePiece vocabulary, which has scores instead: two neighbours merge when together they spell a token, the best score
/// first. Every way to cut a token into two symbols is a merge of the rank that its score has.
/// </summary>
internal static class ScoredMerges
{
    // Longer tokens do not occur, and their number of cuts would be what a hostile file wants.
    private const int MaxTokenLength = 1024;

    /// <summary>Builds the model of a vocabulary with scores.</summary>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="scores">A score per id.</param>
    /// <param name="takesPart">Which tokens are made by merging.</param>
    /// <param name="unknown">The token of what cannot be written.</param>
    /// <param name="file">For messages.</param>
    /// <exception cref="EngineException">A score is not finite, or a token absurdly long.</exception>
    public static BytePairModel Build(
        TokenVocabulary vocabulary, ReadOnlySpan<float> scores, Func<int, bool> takesPart, int? unknown, string file)
    {
        SymbolTable symbols = SymbolTable.OfCharacters(vocabulary, takesPart, byteFallback: true);
        int[] ranks = Ranks(vocabulary, scores, takesPart, file);
        var found = new List<(int Left, int Right, int Joined)>(2 * vocabulary.Size);
        for (int id = 0; id < vocabulary.Size; id++)
        {
            if (vocabulary.TextOf(id) is not { } text || !takesPart(id))
                continue;
            if (text.Length > MaxTokenLength)
            {
                throw new EngineException(
                    $"the token has {text.Length} characters, expected at most {MaxTokenLength}", file, TokenVocabulary.Describe(text));
            }
            AddCuts(id, text, vocabulary, symbols, takesPart, found);
        }
        var merges = new MergeTable(found.Count);
        foreach ((int left, int right, int joined) in found)
            merges.Add(left, right, ranks[joined], joined, replace: false);
        return new BytePairModel(vocabulary, merges, symbols) { Unknown = unknown, FuseUnknown = true };
    }

    private static int[] Ranks(TokenVocabulary vocabulary, ReadOnlySpan<float> scores, Func<int, bool> takesPart, string file)
    {
        var ids = new List<int>(vocabulary.Size);
        for (int id = 0; id < vocabulary.Size; id++)
        {
            if (!takesPart(id))
                continue;
            if (!float.IsFinite(scores[id]))
                throw new EngineException($"the score is {scores[id]}, expected a finite number", file, $"token {id}");
            ids.Add(id);
        }
        float[] ordered = [.. scores];
        ids.Sort((left, right) => ordered[right].CompareTo(ordered[left]));
        var ranks = new int[vocabulary.Size];
        for (int i = 1; i < ids.Count; i++)
            ranks[ids[i]] = ranks[ids[i - 1]] + (ordered[ids[i]] < ordered[ids[i - 1]] ? 1 : 0);
        return ranks;
    }

    private static void AddCuts(
        int id,
        string text,
        TokenVocabulary vocabulary,
        SymbolTable symbols,
        Func<int, bool> takesPart,
        List<(int Left, int Right, int Joined)> found)
    {
        for (int cut = 1; cut < text.Length; cut++)
        {
            if (!char.IsLowSurrogate(text[cut])
                && SymbolOf(text.AsSpan(0, cut), vocabulary, symbols, takesPart) is { } left
                && SymbolOf(text.AsSpan(cut), vocabulary, symbols, takesPart) is { } right)
            {
                found.Add((left, right, id));
            }
        }
    }

    private static int? SymbolOf(ReadOnlySpan<char> text, TokenVocabulary vocabulary, SymbolTable symbols, Func<int, bool> takesPart)
    {
        int codePoint = Patterns.CodePoints.At(text, 0, out int length);
        if (length == text.Length)
            return symbols.OfCharacter(codePoint);
        return vocabulary.TryGetId(text, out int id) && takesPart(id) ? id : null;
    }
}
