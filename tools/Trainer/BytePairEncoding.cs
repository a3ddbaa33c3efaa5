using System.Text;
using System.Text.RegularExpressions;

namespace Tools.Trainer;

/// <summary>
/// Byte-level byte-pair encoding with GPT-2's pre-tokenizer: 256 bytes, then merges in the order learned, then the end-of-text token.
/// </summary>
public sealed partial class BytePairEncoding
{
    private readonly Dictionary<(string Left, string Right), int> ranks;
    private readonly Dictionary<string, int> tokenIds;
    private readonly Dictionary<string, int[]> knownWords = new(StringComparer.Ordinal);

    /// <summary>Builds the encoder from learned merges.</summary>
    public BytePairEncoding(IReadOnlyList<(string Left, string Right)> merges)
    {
        Merges = merges;
        Tokens = [.. byteSymbols.Order(StringComparer.Ordinal), .. merges.Select(static merge => merge.Left + merge.Right), EndOfTextToken];
        ranks = merges.Select(static (merge, rank) => (merge, rank)).ToDictionary(static pair => pair.merge, static pair => pair.rank);
        tokenIds = Tokens.Select(static (token, id) => (token, id))
            .ToDictionary(static pair => pair.token, static pair => pair.id, StringComparer.Ordinal);
    }

    /// <summary>The token that begins and ends every text.</summary>
    public const string EndOfTextToken = "<|endoftext|>";

    // GPT-2 writes a byte as a printable character: itself where it is one, else the next free code point from U+0100.
    private static readonly string[] byteSymbols = ByteSymbols();
    private static readonly Dictionary<char, byte> symbolBytes =
        byteSymbols.Select(static (symbol, value) => (symbol, value))
            .ToDictionary(static pair => pair.symbol[0], static pair => (byte)pair.value);

    /// <summary>Merges in order of rank, in byte symbols.</summary>
    public IReadOnlyList<(string Left, string Right)> Merges { get; }

    /// <summary>Tokens by id, in byte symbols.</summary>
    public IReadOnlyList<string> Tokens { get; }

    /// <summary>Id of <see cref="EndOfTextToken"/>.</summary>
    public int EndOfText => Tokens.Count - 1;

    /// <summary>
    /// Learns merges until there are <paramref name="vocabulary"/> tokens: always the most frequent pair, the ordinally first of equals.
    /// </summary>
    public static BytePairEncoding Learn(IEnumerable<string> texts, int vocabulary)
    {
        var counts = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (string text in texts)
        {
            foreach (Match word in PreTokens().Matches(text))
                counts[word.Value] = counts.GetValueOrDefault(word.Value) + 1;
        }

        (List<string> Symbols, int Count)[] words =
            [.. counts.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => (Symbols(pair.Key), pair.Value))];
        var merges = new List<(string Left, string Right)>();
        while (merges.Count < vocabulary - byteSymbols.Length - 1)
        {
            var pairs = new Dictionary<(string, string), long>();
            foreach ((List<string> symbols, int count) in words)
            {
                for (int i = 0; i + 1 < symbols.Count; i++)
                    pairs[(symbols[i], symbols[i + 1])] = pairs.GetValueOrDefault((symbols[i], symbols[i + 1])) + count;
            }

            (string Left, string Right) best = pairs.OrderByDescending(static pair => pair.Value)
                .ThenBy(static pair => pair.Key.Item1, StringComparer.Ordinal)
                .ThenBy(static pair => pair.Key.Item2, StringComparer.Ordinal)
                .First().Key;
            merges.Add(best);
            foreach ((List<string> symbols, _) in words)
                Merge(symbols, best);
        }

        return new BytePairEncoding(merges);
    }

    /// <summary>Appends the tokens of <paramref name="text"/>.</summary>
    public void Encode(string text, List<int> tokens)
    {
        foreach (Match word in PreTokens().Matches(text))
        {
            if (!knownWords.TryGetValue(word.Value, out int[]? ids))
                knownWords[word.Value] = ids = EncodeWord(word.Value);
            tokens.AddRange(ids);
        }
    }

    /// <summary>The text of tokens; end-of-text tokens are left out.</summary>
    public string Decode(IEnumerable<int> tokens) => Encoding.UTF8.GetString(
        [.. tokens.Where(id => id != EndOfText).SelectMany(id => Tokens[id]).Select(static symbol => symbolBytes[symbol])]);

    private int[] EncodeWord(string word)
    {
        List<string> symbols = Symbols(word);
        while (symbols.Count > 1)
        {
            (string, string) best = symbols.Zip(symbols.Skip(1)).MinBy(pair => ranks.GetValueOrDefault(pair, int.MaxValue));
            if (!ranks.ContainsKey(best))
                break;
            Merge(symbols, best);
        }

        return [.. symbols.Select(symbol => tokenIds[symbol])];
    }

    private static List<string> Symbols(string word) => [.. Encoding.UTF8.GetBytes(word).Select(static value => byteSymbols[value])];

    private static void Merge(List<string> symbols, (string Left, string Right) pair)
    {
        for (int i = 0; i + 1 < symbols.Count; i++)
        {
            if (symbols[i] != pair.Left || symbols[i + 1] != pair.Right)
                continue;
            symbols[i] += symbols[i + 1];
            symbols.RemoveAt(i + 1);
        }
    }

    private static string[] ByteSymbols()
    {
        int next = 256;
        return [.. Enumerable.Range(0, 256).Select(value =>
            (value is >= 33 and <= 126 or >= 161 and <= 172 or >= 174 ? (char)value : (char)next++).ToString())];
    }

    [GeneratedRegex(@"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")]
    private static partial Regex PreTokens();
}
