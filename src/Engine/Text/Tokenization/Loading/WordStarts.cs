namespace Engine.Text.Tokenization.Loading;

/// <summary>Decides whether text can be cut before word markers; see <see cref="WordStartSplitter"/>.</summary>
internal static class WordStarts
{
    /// <summary>The splitter, where it changes nothing but the speed.</summary>
    public static IReadOnlyList<Splitter> Splitters(TokenVocabulary vocabulary, Func<int, bool> takesPart, char marker)
    {
        // Without a token for the marker itself, fused unknown tokens could span a cut.
        if (!vocabulary.TryGetId([marker], out _))
            return [];
        for (int id = 0; id < vocabulary.Size; id++)
        {
            if (vocabulary.TextOf(id) is { } text && takesPart(id) && text.AsSpan().TrimStart(marker).Contains(marker))
                return [];
        }
        return [new WordStartSplitter(marker)];
    }
}
