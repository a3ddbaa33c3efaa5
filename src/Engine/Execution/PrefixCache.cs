namespace Engine.Execution;

/// <summary>
/// Keys and values of sequences that have ended, kept while pages are plentiful so that the next prompt with the same beginning
/// (the next turn of a chat, a shared system prompt) starts where it ended. Least recently used goes first. For models in which every token reaches every
/// slot: elsewhere a number of tokens is no number of pages.
/// </summary>
public sealed class PrefixCache(KvCache cache, int capacity = 16)
{
    private readonly List<Entry> entries = [];

    /// <summary>Sequences kept.</summary>
    public int Count => entries.Count;

    /// <summary>Shares the longest kept prefix of a prompt with empty tracks, at most all but the last token.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="streamSet">The set of streams that it is for: others see other prefixes.</param>
    /// <param name="targets">A track per stream.</param>
    /// <returns>Tokens shared.</returns>
    public int TryShare(ReadOnlySpan<int> prompt, int streamSet, ReadOnlySpan<KvTrack> targets)
    {
        int best = -1, length = 0;
        for (int i = 0; i < entries.Count; i++)
        {
            int common = entries[i].StreamSet == streamSet ? Math.Min(prompt.Length - 1, prompt.CommonPrefixLength(entries[i].Tokens)) : 0;
            if (common > length)
            {
                (best, length) = (i, common);
            }
        }
        if (length < cache.PageTokens)
        {
            return 0;
        }
        Entry entry = entries[best];
        entries.RemoveAt(best);
        entries.Add(entry);
        return Share(entry.Tracks, targets, length);
    }

    /// <summary>Keeps an ended sequence's whole pages; its tracks are empty afterwards.</summary>
    public void Keep(Sequence sequence)
    {
        KvTrack[] kept = cache.NewTracks(sequence.Tracks.Length);
        int shared = Share(sequence.Tracks, kept, sequence.Finished);
        foreach (KvTrack track in sequence.Tracks)
        {
            cache.Release(track);
        }
        if (shared == 0)
        {
            return;
        }
        if (entries.Count == capacity)
        {
            EvictOldest();
        }
        entries.Add(new Entry(sequence.Tokens[..shared].ToArray(), sequence.StreamSet, kept));
    }

    /// <summary>Frees the least recently used entry; false when there is none.</summary>
    public bool EvictOldest()
    {
        if (entries.Count == 0)
        {
            return false;
        }
        foreach (KvTrack track in entries[0].Tracks)
        {
            cache.Release(track);
        }
        entries.RemoveAt(0);
        return true;
    }

    private int Share(ReadOnlySpan<KvTrack> sources, ReadOnlySpan<KvTrack> targets, int tokens)
    {
        int shared = 0;
        for (int stream = 0; stream < sources.Length; stream++)
        {
            shared = cache.SharePrefix(sources[stream], targets[stream], tokens);
        }
        return shared;
    }

    private sealed record Entry(int[] Tokens, int StreamSet, KvTrack[] Tracks);
}
