using System.Buffers.Binary;
using System.Text;

namespace Engine.Text.Tokenization.Loading;

/// <summary>
/// Reads the <c>tokenizer.bin</c> of llama2.c: a SentencePiece vocabulary in which word markers are written as spaces. Layout: int32
/// longest token; then for each token float32 score, int32 length, bytes. Source: llama2.c's tokenizer.py and run.c.
/// </summary>
internal static class Llama2cReader
{
    public const string FileName = "tokenizer.bin";

    private const int Unknown = 0, Beginning = 1, End = 2, FirstByte = 3, FirstText = FirstByte + 256;
    private const int HeaderBytes = 4, EntryBytes = 8;

    // The file names no count; the longest token is at the beginning.
    private const int MaxTokenBytes = 4096;

    /// <summary>Reads a vocabulary.</summary>
    /// <exception cref="EngineException">The file is malformed.</exception>
    public static TokenizerParts Read(byte[] content, string file)
    {
        (List<string> tokens, List<float> scores) = ReadEntries(content, file);
        if (tokens.Count < FirstText)
            throw new EngineException($"expected at least {FirstText} tokens, found {tokens.Count}", file);
        var vocabulary = new TokenVocabulary(file, tokens.Count);
        for (int id = 0; id < tokens.Count; id++)
        {
            vocabulary.Add(id, id switch
            {
                Unknown => "<unk>",
                Beginning => "<s>",
                End => "</s>",
                < FirstText => TokenSpelling.ByteToken(id - FirstByte),
                _ => tokens[id],
            });
        }
        static bool TakesPart(int id) => id >= FirstText;
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = ScoredMerges.Build(vocabulary, [.. scores], TakesPart, Unknown, file),
            Spelling = new TokenSpelling { ByteTokens = true, StripLeadingSpace = true },
            AddedTokens =
            [
                new AddedToken(Unknown, "<unk>") { Special = true },
                new AddedToken(Beginning, "<s>") { Special = true },
                new AddedToken(End, "</s>") { Special = true },
            ],
            Prefixes = [new PrefixNormalizer(" ", unlessPresent: false, onlyAtStart: false)],
            Splitters = WordStarts.Splitters(vocabulary, TakesPart, ' '),
            Before = [Beginning],
        };
    }

    private static (List<string> Tokens, List<float> Scores) ReadEntries(ReadOnlySpan<byte> content, string file)
    {
        var tokens = new List<string>();
        var scores = new List<float>();
        int position = HeaderBytes;
        while (position < content.Length)
        {
            int length = content.Length - position >= EntryBytes ? BinaryPrimitives.ReadInt32LittleEndian(content[(position + 4)..]) : -1;
            if (length is < 0 or > MaxTokenBytes || length > content.Length - position - EntryBytes || tokens.Count > TokenVocabulary.MaxId)
            {
                throw new EngineException(
                    $"this is not a vocabulary of llama2.c: the entry at byte {position} does not fit", file, $"token {tokens.Count}");
            }
            scores.Add(BinaryPrimitives.ReadSingleLittleEndian(content[position..]));
            tokens.Add(Encoding.UTF8.GetString(content.Slice(position + EntryBytes, length)));
            position += EntryBytes + length;
        }
        return (tokens, scores);
    }
}
