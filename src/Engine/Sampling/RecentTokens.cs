namespace Engine.Sampling;

/// <summary>A token and how often it occurs in the penalty window.</summary>
internal readonly record struct TokenCount(int Id, int Count);

/// <summary>Counts the tokens at the end of a sequence; its buffers are reused.</summary>
internal sealed class RecentTokens(int window)
{
    private int[] sorted = [];
    private TokenCount[] counts = [];

    /// <summary>The distinct tokens among the last <c>window</c> of <paramref name="history"/> (−1: all), ascending by id.</summary>
    /// <exception cref="EngineException">An id is outside the vocabulary.</exception>
    public ReadOnlySpan<TokenCount> Count(ReadOnlySpan<int> history, int vocabularySize)
    {
        ReadOnlySpan<int> recent = window < 0 || history.Length <= window ? history : history[^window..];
        if (recent.IsEmpty)
        {
            return [];
        }
        if (sorted.Length < recent.Length)
        {
            // Room for a growing history, so that a token costs no allocation.
            int size = Math.Max(recent.Length * 2, 64);
            sorted = new int[size];
            counts = new TokenCount[size];
        }
        Span<int> ids = sorted.AsSpan(0, recent.Length);
        recent.CopyTo(ids);
        ids.Sort();
        if (ids[0] < 0 || ids[^1] >= vocabularySize)
        {
            int found = ids[0] < 0 ? ids[0] : ids[^1];
            throw new EngineException($"expected token ids in 0 … {vocabularySize - 1}, found {found}", item: "history");
        }
        int distinct = 0;
        for (int start = 0; start < ids.Length;)
        {
            int end = start + 1;
            while (end < ids.Length && ids[end] == ids[start])
            {
                end++;
            }
            counts[distinct++] = new TokenCount(ids[start], end - start);
            start = end;
        }
        return counts.AsSpan(0, distinct);
    }
}
