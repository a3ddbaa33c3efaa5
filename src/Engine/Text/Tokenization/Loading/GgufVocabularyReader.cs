using Engine.Checkpoints.Gguf;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Reads the tokenizer in GGUF metadata. Source: ggml's docs/gguf.md, section "Tokenizer".</summary>
internal static class GgufVocabularyReader
{
    public const string ModelKey = Prefix + "model";
    public const string PreKey = Prefix + "pre";

    private const string Prefix = "tokenizer.ggml.";
    private const string TokensKey = Prefix + "tokens";
    private const string TypesKey = Prefix + "token_type";
    private const string ScoresKey = Prefix + "scores";
    private const string MergesKey = Prefix + "merges";
    private const string WordMarker = "\u2581";

    private enum TokenType
    {
        Normal = 1,
        Unknown = 2,
        Control = 3,
        UserDefined = 4,
        Unused = 5,
        Byte = 6,
    }

    /// <summary>Reads a vocabulary.</summary>
    /// <exception cref="EngineException">A key is missing or malformed, or the kind of tokenizer is not supported.</exception>
    public static TokenizerParts Read(IReadOnlyDictionary<string, object> metadata, string file)
    {
        string model = metadata.GetString(ModelKey, file) ?? throw new EngineException("the key is missing", file, ModelKey);
        return model switch
        {
            "llama" => ReadSentencePiece(metadata, file),
            "gpt2" => ReadBytePair(metadata, file),
            _ => throw new EngineException($"the tokenizer \"{model}\" is not supported, expected gpt2 or llama", file, ModelKey),
        };
    }

    /// <summary>The id of a special token, such as <c>bos</c>; null where the key is absent.</summary>
    /// <exception cref="EngineException">It is not the id of a token.</exception>
    public static int? SpecialId(IReadOnlyDictionary<string, object> metadata, string name, int size, string file)
    {
        string key = $"{Prefix}{name}_token_id";
        // -1, as an unsigned number too, is what some converters write for "none".
        if (metadata.GetInteger(key, file) is not { } id || id is -1 or uint.MaxValue)
            return null;
        return id >= 0 && id < size ? (int)id : throw new EngineException($"the id is {id}, expected 0 to {size - 1}", file, key);
    }

    private static TokenizerParts ReadBytePair(IReadOnlyDictionary<string, object> metadata, string file)
    {
        PatternFamily family = PatternFamily.Find(metadata.GetString(PreKey, file) ?? "default", file);
        TokenVocabulary vocabulary = ReadTokens(metadata, file);
        string[] merges = Get<string[]>(metadata, MergesKey, file) ?? throw new EngineException("the key is missing", file, MergesKey);
        MergeTable table = MergeList.Build(merges, merges.Length, vocabulary, file, MergesKey);
        var model = new BytePairModel(vocabulary, table, SymbolTable.OfBytes(vocabulary))
        {
            IgnoreMerges = family.IgnoreMerges,
        };
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = model,
            Spelling = new TokenSpelling { ByteLevel = true },
            AddedTokens = ReadAdded(metadata, vocabulary, file),
            Normalizers = family.Composes ? [new ComposingNormalizer()] : [],
            Splitters = family.CreateSplitters(),
            Before = Around(metadata, "bos", family.AddsBeginOfSequence, vocabulary.Size, file),
            After = Around(metadata, "eos", false, vocabulary.Size, file),
        };
    }

    private static TokenizerParts ReadSentencePiece(IReadOnlyDictionary<string, object> metadata, string file)
    {
        TokenVocabulary vocabulary = ReadTokens(metadata, file);
        TokenType[] types = ReadTypes(metadata, vocabulary.Size, file);
        float[] scores = Get<float[]>(metadata, ScoresKey, file) ?? throw new EngineException("the key is missing", file, ScoresKey);
        if (scores.Length != vocabulary.Size)
            throw new EngineException($"expected {vocabulary.Size} scores, found {scores.Length}", file, ScoresKey);
        bool TakesPart(int id) => types[id] is TokenType.Normal or TokenType.UserDefined or TokenType.Unused;
        bool prefixed = Flag(metadata, "add_space_prefix", file) ?? true;
        var prefixes = new List<Normalizer>();
        if (prefixed)
            prefixes.Add(new PrefixNormalizer(" ", unlessPresent: false, onlyAtStart: false));
        prefixes.Add(new ReplaceNormalizer(" ", WordMarker));
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = ScoredMerges.Build(vocabulary, scores, TakesPart, SpecialId(metadata, "unknown", vocabulary.Size, file), file),
            Spelling = new TokenSpelling { ByteTokens = true, Replacements = [(WordMarker, " ")], StripLeadingSpace = prefixed },
            AddedTokens = ReadAdded(metadata, vocabulary, file),
            Prefixes = prefixes,
            Splitters = WordStarts.Splitters(vocabulary, TakesPart, WordMarker[0]),
            Before = Around(metadata, "bos", true, vocabulary.Size, file),
            After = Around(metadata, "eos", false, vocabulary.Size, file),
        };
    }

    private static TokenVocabulary ReadTokens(IReadOnlyDictionary<string, object> metadata, string file)
    {
        string[] tokens = Get<string[]>(metadata, TokensKey, file) ?? throw new EngineException("the key is missing", file, TokensKey);
        if (tokens.Length == 0)
            throw new EngineException("the vocabulary is empty", file, TokensKey);
        var vocabulary = new TokenVocabulary(file, tokens.Length);
        for (int id = 0; id < tokens.Length; id++)
            vocabulary.Add(id, tokens[id]);
        return vocabulary;
    }

    private static TokenType[] ReadTypes(IReadOnlyDictionary<string, object> metadata, int size, string file)
    {
        var types = new TokenType[size];
        Array.Fill(types, TokenType.Normal);
        if (metadata.GetIntegers(TypesKey, file) is not { } values)
            return types;
        if (values.Length != size)
            throw new EngineException($"expected {size} types, found {values.Length}", file, TypesKey);
        for (int id = 0; id < size; id++)
        {
            types[id] = values[id] is >= (long)TokenType.Normal and <= (long)TokenType.Byte
                ? (TokenType)values[id]
                : throw new EngineException($"the type of token {id} is {values[id]}, expected 1 to 6", file, TypesKey);
        }
        return types;
    }

    private static List<AddedToken> ReadAdded(IReadOnlyDictionary<string, object> metadata, TokenVocabulary vocabulary, string file)
    {
        TokenType[] types = ReadTypes(metadata, vocabulary.Size, file);
        // GGUF does not say which tokens swallow the white space behind them; in Phi-3 the special ones do, but for the three that come
        // from Llama.
        string name = metadata.GetString("general.name", file) ?? "";
        bool strips = name.Replace("-", "", StringComparison.Ordinal).Contains("phi3", StringComparison.OrdinalIgnoreCase);
        var added = new List<AddedToken>();
        for (int id = 0; id < types.Length; id++)
        {
            if (types[id] is not (TokenType.Control or TokenType.UserDefined or TokenType.Unknown))
                continue;
            string text = vocabulary.TextOf(id)!;
            added.Add(new AddedToken(id, text)
            {
                Special = types[id] != TokenType.UserDefined,
                RightStrip = strips && text is not ("<unk>" or "<s>" or "<|endoftext|>"),
            });
        }
        return added;
    }

    private static int[] Around(IReadOnlyDictionary<string, object> metadata, string name, bool otherwise, int size, string file)
    {
        bool adds = Flag(metadata, $"add_{name}_token", file) ?? otherwise;
        return adds && SpecialId(metadata, name, size, file) is { } id ? [id] : [];
    }

    private static bool? Flag(IReadOnlyDictionary<string, object> metadata, string name, string file)
    {
        if (!metadata.TryGetValue(Prefix + name, out object? value))
            return null;
        return value as bool? ?? throw new EngineException($"expected a boolean, found {value.GetType().Name}", file, Prefix + name);
    }

    private static T? Get<T>(IReadOnlyDictionary<string, object> metadata, string key, string file)
        where T : class
    {
        if (!metadata.TryGetValue(key, out object? value))
            return null;
        return value as T ?? throw new EngineException($"expected {typeof(T).Name}, found {value.GetType().Name}", file, key);
    }
}
