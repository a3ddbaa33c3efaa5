using System.Buffers;
using System.Text;

namespace Engine.Text.Tokenization;

/// <summary>
/// The symbols that single bytes or characters have before any merge: the id of their token; else, for a character that occurs inside
/// tokens without being one, a number from <see cref="TokenVocabulary.Size"/> up, which merges like a token; else a negative number that
/// merges with nothing.
/// </summary>
internal sealed class SymbolTable
{
    // -1 stays free: it is the one symbol whose pairs a merge table cannot tell from a free slot.
    private const int FirstUnknown = -2;

    private readonly int[] bytes = new int[256];
    private readonly Dictionary<int, int> characters = [];
    private readonly int[] ascii = new int[128];
    private readonly List<int> inner = [];
    private readonly int vocabularySize;
    private readonly bool byteFallback;

    private SymbolTable(int vocabularySize, bool byteLevel, bool byteFallback)
    {
        this.vocabularySize = vocabularySize;
        this.byteFallback = byteFallback;
        ByteLevel = byteLevel;
    }

    /// <summary>Words begin as bytes and not as characters.</summary>
    public bool ByteLevel { get; }

    /// <summary>The symbols of a byte-level vocabulary.</summary>
    public static SymbolTable OfBytes(TokenVocabulary vocabulary)
    {
        var table = new SymbolTable(vocabulary.Size, byteLevel: true, byteFallback: false);
        for (int value = 0; value < 256; value++)
            table.bytes[value] = vocabulary.TryGetId([ByteAlphabet.Letter((byte)value)], out int id) ? id : FirstUnknown - value;
        return table;
    }

    /// <summary>The symbols of a vocabulary of characters.</summary>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="takesPart">Which tokens are made by merging: not the special ones and not those of bytes.</param>
    /// <param name="byteFallback">
    /// A character without a token is written with the 256 tokens of bytes, where the vocabulary has them all.
    /// </param>
    public static SymbolTable OfCharacters(TokenVocabulary vocabulary, Func<int, bool> takesPart, bool byteFallback)
    {
        var table = new SymbolTable(vocabulary.Size, byteLevel: false, byteFallback && HasAllBytes(vocabulary));
        for (int value = 0; value < 256; value++)
            table.bytes[value] = vocabulary.TryGetId(TokenSpelling.ByteToken(value), out int id) ? id : FirstUnknown;
        for (int id = 0; id < vocabulary.Size; id++)
        {
            if (vocabulary.TextOf(id) is { } text && takesPart(id) && IsOneRune(text, out Rune only))
                table.characters[only.Value] = id;
        }
        for (int id = 0; id < vocabulary.Size; id++)
        {
            if (vocabulary.TextOf(id) is { } text && takesPart(id))
                table.AddInner(text);
        }
        for (int value = 0; value < table.ascii.Length; value++)
            table.ascii[value] = table.characters.GetValueOrDefault(value, FirstUnknown - value);
        return table;
    }

    public int OfByte(byte value) => bytes[value];

    public int OfCharacter(int codePoint)
    {
        if (codePoint < ascii.Length)
            return ascii[codePoint];
        return characters.TryGetValue(codePoint, out int symbol) ? symbol : FirstUnknown - codePoint;
    }

    /// <summary>Writes a symbol that is not a token as tokens of bytes; false where that is not possible.</summary>
    public bool TryBytes(int symbol, List<int> ids)
    {
        if (!byteFallback)
            return false;
        int codePoint = symbol < 0 ? FirstUnknown - symbol : inner[symbol - vocabularySize];
        Rune rune = Rune.TryCreate(codePoint, out Rune valid) ? valid : Rune.ReplacementChar;
        Span<byte> utf8 = stackalloc byte[4];
        foreach (byte value in utf8[..rune.EncodeToUtf8(utf8)])
            ids.Add(bytes[value]);
        return true;
    }

    private static bool HasAllBytes(TokenVocabulary vocabulary) =>
        Enumerable.Range(0, 256).All(value => vocabulary.TryGetId(TokenSpelling.ByteToken(value), out _));

    private static bool IsOneRune(string text, out Rune rune)
    {
        rune = default;
        return text.Length is 1 or 2
            && Rune.DecodeFromUtf16(text, out rune, out int length) == OperationStatus.Done
            && length == text.Length;
    }

    private void AddInner(string text)
    {
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (characters.TryAdd(rune.Value, vocabularySize + inner.Count))
                inner.Add(rune.Value);
        }
    }
}
