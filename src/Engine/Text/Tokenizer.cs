using System.Buffers;
using System.Collections.Frozen;
using System.Text.Unicode;
using CommunityToolkit.HighPerformance.Buffers;
using Engine.Checkpoints;
using Engine.Text.Tokenization;
using Engine.Text.Tokenization.Loading;

namespace Engine.Text;

/// <summary>Text to token ids and back, as the model was trained. Safe for any number of threads.</summary>
public sealed class Tokenizer
{
    // Names that published models give to the token that ends a turn or a text; the files name only some of them.
    private static readonly FrozenSet<string> KnownEnds = FrozenSet.ToFrozenSet(
        ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>",
            "<|end_of_text|>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<EOT>", "<|EOT|>", "<|eot|>", "<|eom|>",
            "<end_of_utterance>", "<｜end▁of▁sentence｜>"],
        StringComparer.Ordinal);

    // Stands in the cache for tokens that are not whole characters.
    private static readonly string Partial = new('\uFFFD', 1);

    private readonly TokenizerPipeline pipeline;
    private readonly string?[] completeTexts;

    private Tokenizer(LoadedTokenizer loaded)
    {
        pipeline = new TokenizerPipeline(loaded.Parts);
        completeTexts = new string?[pipeline.Vocabulary.Size];
        SpecialTokens = loaded.Special.Names.ToFrozenDictionary(StringComparer.Ordinal);
        ChatTemplates = loaded.Special.Templates.ToFrozenDictionary(StringComparer.Ordinal);
        BeginOfSequence = SpecialId("bos_token") ?? (SpecialTokens.Count == 0 && pipeline.Before.Count > 0 ? pipeline.Before[0] : null);
        EndOfSequence = SpecialId("eos_token");
        EndOfGeneration = Ends(loaded).ToFrozenSet();
    }

    /// <summary>One more than the largest id. The model's embedding may have more rows, which no text produces.</summary>
    public int VocabularySize => pipeline.Vocabulary.Size;

    /// <summary>The token at the beginning of a text, where the model knows one.</summary>
    public int? BeginOfSequence { get; }

    /// <summary>The token at the end of a text, where the model knows one.</summary>
    public int? EndOfSequence { get; }

    /// <summary>Tokens at which generation stops: end of text, of a turn, of a message.</summary>
    public IReadOnlySet<int> EndOfGeneration { get; }

    /// <summary><see cref="Encode"/> puts <see cref="BeginOfSequence"/> before a text when asked for special tokens.</summary>
    public bool AddsBeginOfSequence => BeginOfSequence is { } id && pipeline.Before.Contains(id);

    /// <summary><see cref="Encode"/> puts <see cref="EndOfSequence"/> behind a text when asked for special tokens.</summary>
    public bool AddsEndOfSequence => EndOfSequence is { } id && pipeline.After.Contains(id);

    /// <summary>The model's chat template, in Jinja, or null.</summary>
    public string? ChatTemplate => ChatTemplates.TryGetValue("default", out string? template) ? template
        : ChatTemplates.Count == 1 ? ChatTemplates.Values.First() : null;

    /// <summary>Chat templates by name: <c>default</c>, and what some models have for tools or retrieval.</summary>
    public IReadOnlyDictionary<string, string> ChatTemplates { get; }

    /// <summary>
    /// The texts of special tokens under Hugging Face's names (<c>bos_token</c>, <c>eos_token</c>, …), as chat templates use them.
    /// </summary>
    public IReadOnlyDictionary<string, string> SpecialTokens { get; }

    /// <summary>Loads the tokenizer of a checkpoint: GGUF metadata, or the files that lie beside the weights.</summary>
    /// <exception cref="EngineException">There is none, or it is malformed or of a kind that is not supported.</exception>
    public static Tokenizer Load(Checkpoint checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        return new Tokenizer(TokenizerLoader.Load(checkpoint));
    }

    /// <summary>Loads the tokenizer of a checkpoint, or null where it has none.</summary>
    /// <exception cref="EngineException">It is malformed or of a kind that is not supported.</exception>
    public static Tokenizer? TryLoad(Checkpoint checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        return TokenizerLoader.TryLoad(checkpoint) is { } loaded ? new Tokenizer(loaded) : null;
    }

    /// <summary>
    /// Loads a tokenizer from a GGUF file (weights are not needed), a Hugging Face folder, a <c>tokenizer.json</c>, a SentencePiece
    /// <c>tokenizer.model</c>, or a <c>tokenizer.bin</c> of llama2.c.
    /// </summary>
    /// <exception cref="EngineException">There is none, or it is malformed or of a kind that is not supported.</exception>
    public static Tokenizer Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return new Tokenizer(TokenizerLoader.Load(path));
    }

    /// <summary>Turns text into ids.</summary>
    /// <param name="text">The text; lone surrogates in it become U+FFFD.</param>
    /// <param name="addSpecial">Put the tokens around it that the model expects around a text.</param>
    /// <param name="parseSpecial">
    /// Texts of special tokens become those tokens. Pass false for what a user wrote, so that it cannot end a turn.
    /// </param>
    public int[] Encode(string text, bool addSpecial = true, bool parseSpecial = true)
    {
        ArgumentNullException.ThrowIfNull(text);
        return [.. pipeline.Encode(text, addSpecial, parseSpecial)];
    }

    /// <summary>Turns ids into text. What is not UTF-8 becomes U+FFFD.</summary>
    /// <param name="ids">The ids.</param>
    /// <param name="skipSpecial">Leave special tokens out.</param>
    /// <exception cref="EngineException">An id is not below <see cref="VocabularySize"/>.</exception>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecial = false)
    {
        using var bytes = new ArrayPoolBufferWriter<byte>(4 * ids.Length + 1);
        foreach (int id in ids)
        {
            if (!skipSpecial || !IsSpecial(id))
                bytes.Write(TokenBytes(id));
        }
        string text = Utf8Text.Decode(bytes.WrittenSpan, ReplacesEachByte);
        return StripsLeadingSpace && text.StartsWith(' ') ? text[1..] : text;
    }

    /// <summary>
    /// The bytes that a token stands for: raw, so that they may be part of a character. A word of SentencePiece has its leading space.
    /// </summary>
    /// <exception cref="EngineException">The id is not below <see cref="VocabularySize"/>.</exception>
    public ReadOnlySpan<byte> TokenBytes(int id) => (uint)id < (uint)VocabularySize
        ? pipeline.Vocabulary.BytesOf(id)
        : throw new EngineException($"the token id is {id}, expected 0 to {VocabularySize - 1}");

    /// <summary>A token steers the model (the beginning of a turn, padding) and is no text.</summary>
    public bool IsSpecial(int id) => pipeline.SpecialIds.Contains(id);

    /// <summary>Finds a token by its text as the vocabulary writes it, such as <c>&lt;|im_end|&gt;</c>.</summary>
    public int? FindToken(string text) => pipeline.Vocabulary.TryGetId(text, out int id) ? id : null;

    /// <summary>Starts decoding a stream of ids.</summary>
    /// <param name="skipSpecial">Leave special tokens out.</param>
    /// <param name="continues">
    /// The ids continue a text, so that the leading space of the first word stays; else it is dropped where <see cref="Decode"/> drops it.
    /// </param>
    public Detokenizer CreateDetokenizer(bool skipSpecial = false, bool continues = false) => new(this, skipSpecial, continues);

    /// <summary>Decoding drops one space at the beginning: the one that encoding puts there.</summary>
    internal bool StripsLeadingSpace => pipeline.Spelling.StripLeadingSpace;

    /// <summary>See <see cref="Utf8Text.Decode"/>.</summary>
    internal bool ReplacesEachByte => pipeline.Spelling.ByteTokens;

    /// <summary>The text of a token that is whole characters, always the same object; null for other tokens.</summary>
    internal string? CompleteText(int id)
    {
        ReadOnlySpan<byte> bytes = TokenBytes(id);
        string text = completeTexts[id] ??= Utf8.IsValid(bytes) ? System.Text.Encoding.UTF8.GetString(bytes) : Partial;
        return ReferenceEquals(text, Partial) ? null : text;
    }

    private int? SpecialId(string name) => SpecialTokens.TryGetValue(name, out string? text) ? FindToken(text) : null;

    private IEnumerable<int> Ends(LoadedTokenizer loaded)
    {
        AddedToken[] known = [.. loaded.Parts.AddedTokens.Where(static token => KnownEnds.Contains(token.Content))];
        // In OpenAI's harmony format <|end|> closes a message of several, and <|return|> and <|call|> the turn.
        bool harmony = known.Any(static token => token.Content == "<|return|>") && known.Any(static token => token.Content == "<|call|>");
        IEnumerable<int> ends = known.Where(token => !harmony || token.Content != "<|end|>").Select(static token => token.Id)
            .Concat(loaded.Special.Ends);
        return EndOfSequence is { } end ? ends.Append(end) : ends;
    }
}
