using Engine.Text.Tokenization;

namespace Engine.Text;

/// <summary>
/// Decodes a stream of ids piece by piece: the pieces joined are what <see cref="Tokenizer.Decode"/> gives for all of the ids, and none
/// ends inside a character. For one stream and one thread at a time.
/// </summary>
public sealed class Detokenizer
{
    private const int MaxPending = 3;

    private readonly Tokenizer tokenizer;
    private readonly bool skipSpecial;
    private readonly byte[] pending = new byte[MaxPending];
    private int pendingCount;
    private bool atStart;

    internal Detokenizer(Tokenizer tokenizer, bool skipSpecial, bool continues)
    {
        this.tokenizer = tokenizer;
        this.skipSpecial = skipSpecial;
        atStart = tokenizer.StripsLeadingSpace && !continues;
    }

    /// <summary>
    /// Takes the next id; returns the text that is complete with it, which is empty while a character is not. Tokens of whole characters,
    /// nearly all, cost no allocation once they have been seen.
    /// </summary>
    /// <exception cref="EngineException">The id is not below <see cref="Tokenizer.VocabularySize"/>.</exception>
    public string Append(int id)
    {
        if (skipSpecial && tokenizer.IsSpecial(id))
            return "";
        return Begin(pendingCount == 0 && tokenizer.CompleteText(id) is { } complete ? complete : Join(tokenizer.TokenBytes(id)));
    }

    /// <summary>Ends the stream: returns U+FFFD for a character that was never completed, and nothing otherwise.</summary>
    public string Flush()
    {
        string rest = Utf8Text.Decode(pending.AsSpan(0, pendingCount), tokenizer.ReplacesEachByte);
        pendingCount = 0;
        return Begin(rest);
    }

    private string Join(ReadOnlySpan<byte> next)
    {
        int length = pendingCount + next.Length;
        Span<byte> bytes = length <= 256 ? stackalloc byte[length] : new byte[length];
        pending.AsSpan(0, pendingCount).CopyTo(bytes);
        next.CopyTo(bytes[pendingCount..]);
        pendingCount = Utf8Text.IncompleteTail(bytes);
        bytes[^pendingCount..].CopyTo(pending);
        return Utf8Text.Decode(bytes[..^pendingCount], tokenizer.ReplacesEachByte);
    }

    private string Begin(string text)
    {
        if (!atStart || text.Length == 0)
            return text;
        atStart = false;
        return text[0] == ' ' ? text[1..] : text;
    }
}
