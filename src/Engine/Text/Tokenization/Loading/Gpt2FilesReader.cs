using System.Text;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Reads GPT-2's pair of <c>vocab.json</c> and <c>merges.txt</c>, for folders without a <c>tokenizer.json</c>.</summary>
internal static class Gpt2FilesReader
{
    public const string VocabularyName = "vocab.json";
    public const string MergesName = "merges.txt";

    /// <summary>Reads a byte-level vocabulary that is cut as GPT-2 does.</summary>
    /// <exception cref="EngineException">A file is malformed.</exception>
    public static TokenizerParts Read(JsonItem tokens, byte[] merges, string mergesFile, IReadOnlyList<AddedToken> added)
    {
        var vocabulary = new TokenVocabulary(tokens.File);
        foreach ((string text, JsonItem id) in tokens.AsFields())
            vocabulary.Add(id.AsInteger(), text);
        foreach (AddedToken token in added)
        {
            if (vocabulary.TextOf(token.Id) != token.Content)
                vocabulary.Add(token.Id, token.Content);
        }
        string[] lines = [.. Encoding.UTF8.GetString(merges).Split('\n').Select(static line => line.TrimEnd('\r'))
            .Where(static line => line.Length > 0 && !line.StartsWith("#version", StringComparison.Ordinal))];
        MergeTable table = MergeList.Build(lines, lines.Length, vocabulary, mergesFile, "merges");
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = new BytePairModel(vocabulary, table, SymbolTable.OfBytes(vocabulary)),
            Spelling = new TokenSpelling { ByteLevel = true },
            AddedTokens = added,
            Splitters = [new PatternSplitter(Patterns.Pattern.Compile(PatternFamily.Gpt2))],
        };
    }
}
