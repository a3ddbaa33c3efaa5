namespace Engine.Execution;

/// <summary>
/// Keys and values of sequences that have ended, kept while pages are plentiful so that the next prompt with the same beginning
/// (the next turn of a chat, a shared system prompt) starts where it ended. Least recently used goes first.
/// </summary>
public sealed class PrefixCache(KvCache cache, int capacity = 16)
{
    private readonly List<(int[] Tokens, KvTrack Track)> entries = [];

    /// <summary>Sequences kept.</summary>
    public int Count => entries.Count;

    /// <summary>Shares the longest kept prefix of a prompt with an empty track, at most all but the last token.</summary>
    /// <returns>Tokens shared.</returns>
    public int TryShare(ReadOnlySpan<int> prompt, KvTrack target)
    {
        int best = -1, length = 0;
        for (int i = 0; i < entries.Count; i++)
        {
            int common = Math.Min(prompt.Length - 1, prompt.CommonPrefixLength(entries[i].Tokens));
            if (common > length)
            {
                (best, length) = (i, common);
            }
        }
        if (length < cache.PageTokens)
        {
            return 0;
        }
        (int[] Tokens, KvTrack Track) entry = entries[best];
        entries.RemoveAt(best);
        entries.Add(entry);
        return cache.SharePrefix(entry.Track, target, length);
    }

    /// <summary>Keeps an ended sequence's whole pages; its track is empty afterwards.</summary>
    public void Keep(Sequence sequence)
    {
        KvTrack kept = new(cache.SlotCount);
        int shared = cache.SharePrefix(sequence.Track, kept, sequence.Processed);
        cache.Release(sequence.Track);
        if (shared == 0)
        {
            return;
        }
        if (entries.Count == capacity)
        {
            EvictOldest();
        }
        entries.Add((sequence.Tokens[..shared].ToArray(), kept));
    }

    /// <summary>Frees the least recently used entry; false when there is none.</summary>
    public bool EvictOldest()
    {
        if (entries.Count == 0)
        {
            return false;
        }
        cache.Release(entries[0].Track);
        entries.RemoveAt(0);
        return true;
    }
}
