using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;
using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization;

/// <summary>
/// Byte-pair encoding, over bytes (GPT-2 and its descendants) or over characters with bytes as the last resort (SentencePiece).
/// <para>
/// Microsoft.ML.Tokenizers 2.0.1 was measured for this and is the oracle of a test, but does not do it: its BpeTokenizer takes time
/// quadratic in the length of a word (0.8 s for 80,000 letters, so minutes for a megabyte) and 0.6 s to load Llama 3, and knows neither
/// <c>ignore_merges</c> nor byte fallback; its SentencePiece encoder runs at 0.5 MB/s and breaks ties between equal scores differently
/// from the reference ("!!!!!!" and "xxxx…" come out wrong).
/// </para>
/// </summary>
/// <param name="vocabulary">The tokens.</param>
/// <param name="merges">The merges, between ids, or symbols above them that stand for the characters of <see cref="SymbolTable"/>.</param>
/// <param name="symbols">What single bytes or characters begin as.</param>
internal sealed class BytePairModel(TokenVocabulary vocabulary, MergeTable merges, SymbolTable symbols) : SubwordModel
{
    private const int MaxStackSymbols = 256;

    private readonly WordCache cache = new();

    /// <summary>A piece that is a token is that token, whatever the merges would make of it.</summary>
    public bool IgnoreMerges { get; init; }

    /// <summary>The token of what the vocabulary cannot write; null: it is left out.</summary>
    public int? Unknown { get; init; }

    /// <summary>Neighbouring unknown characters become one token.</summary>
    public bool FuseUnknown { get; init; }

    public override void Encode(ReadOnlySpan<char> piece, List<int> ids)
    {
        if (cache.TryGet(piece, out ReadOnlySpan<int> known))
        {
            ids.AddRange(known);
            return;
        }
        int start = ids.Count;
        if (!IgnoreMerges || !TryWhole(piece, ids))
            EncodeByMerging(piece, ids);
        cache.Add(piece, CollectionsMarshal.AsSpan(ids)[start..]);
    }

    private bool TryWhole(ReadOnlySpan<char> piece, List<int> ids)
    {
        const int MaxToken = 512;
        if (piece.Length > MaxToken)
            return false;
        Span<char> spelled = stackalloc char[3 * MaxToken];
        int length = piece.Length;
        if (symbols.ByteLevel)
        {
            Span<byte> bytes = stackalloc byte[3 * MaxToken];
            length = Encoding.UTF8.GetBytes(piece, bytes);
            for (int i = 0; i < length; i++)
                spelled[i] = ByteAlphabet.Letter(bytes[i]);
        }
        else
        {
            piece.CopyTo(spelled);
        }
        if (!vocabulary.TryGetId(spelled[..length], out int id))
            return false;
        ids.Add(id);
        return true;
    }

    private void EncodeByMerging(ReadOnlySpan<char> piece, List<int> ids)
    {
        // UTF-8 takes at most three bytes per UTF-16 unit.
        int capacity = symbols.ByteLevel ? 3 * piece.Length : piece.Length;
        int[]? rented = capacity > MaxStackSymbols ? ArrayPool<int>.Shared.Rent(capacity) : null;
        Span<int> word = rented ?? stackalloc int[MaxStackSymbols];
        int count = symbols.ByteLevel ? FromBytes(piece, word) : FromCharacters(piece, word);
        count = Merger.Merge(word[..count], merges);
        bool previousUnknown = false;
        foreach (int symbol in word[..count])
            Emit(symbol, ids, ref previousUnknown);
        if (rented is not null)
            ArrayPool<int>.Shared.Return(rented);
    }

    private int FromBytes(ReadOnlySpan<char> piece, Span<int> word)
    {
        Span<byte> utf8 = stackalloc byte[4];
        int count = 0;
        for (int position = 0; position < piece.Length;)
        {
            if (char.IsAscii(piece[position]))
            {
                word[count++] = symbols.OfByte((byte)piece[position++]);
                continue;
            }
            // A lone surrogate becomes U+FFFD, as it does wherever .NET writes UTF-8.
            Rune.DecodeFromUtf16(piece[position..], out Rune rune, out int length);
            position += length;
            foreach (byte value in utf8[..rune.EncodeToUtf8(utf8)])
                word[count++] = symbols.OfByte(value);
        }
        return count;
    }

    private int FromCharacters(ReadOnlySpan<char> piece, Span<int> word)
    {
        int count = 0;
        for (int position = 0; position < piece.Length;)
        {
            word[count++] = symbols.OfCharacter(CodePoints.At(piece, position, out int length));
            position += length;
        }
        return count;
    }

    private void Emit(int symbol, List<int> ids, ref bool previousUnknown)
    {
        if (symbol >= 0 && symbol < vocabulary.Size)
        {
            ids.Add(symbol);
            previousUnknown = false;
        }
        else if (symbols.TryBytes(symbol, ids))
        {
            previousUnknown = false;
        }
        else
        {
            if (Unknown is { } unknown && !(FuseUnknown && previousUnknown))
                ids.Add(unknown);
            previousUnknown = true;
        }
    }
}
