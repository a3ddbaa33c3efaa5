namespace Engine.Text.Tokenization;

/// <summary>
/// Remembers the ids of words that were encoded lately, for any number of threads without a lock: a slot holds an immutable entry, and a
/// newcomer takes the place of whatever was there.
/// </summary>
internal sealed class WordCache
{
    private const int Slots = 1 << 15;

    // Longer words hardly ever come again.
    private const int MaxLength = 48;

    private readonly Entry?[] entries = new Entry?[Slots];

    public bool TryGet(ReadOnlySpan<char> word, out ReadOnlySpan<int> ids)
    {
        ids = default;
        if (word.Length > MaxLength || Volatile.Read(ref entries[Slot(word)]) is not { } entry || !word.SequenceEqual(entry.Word))
            return false;
        ids = entry.Ids;
        return true;
    }

    public void Add(ReadOnlySpan<char> word, ReadOnlySpan<int> ids)
    {
        if (word.Length <= MaxLength)
            Volatile.Write(ref entries[Slot(word)], new Entry(word.ToString(), ids.ToArray()));
    }

    private static int Slot(ReadOnlySpan<char> word) => string.GetHashCode(word) & (Slots - 1);

    private sealed record Entry(string Word, int[] Ids);
}
