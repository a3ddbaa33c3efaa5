using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// GGUF's <c>tokenizer.ggml.*</c> keys from the tokenizer of a Hugging Face folder: <c>tokenizer.model</c> (SentencePiece) where there is
/// one, else
/// <c>tokenizer.json</c> (BPE, byte-level or with byte fallback).
/// </summary>
internal sealed class TokenizerMetadata
{
    /// <summary>Token types of GGUF.</summary>
    public const int Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6;

    private const string contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";

    /// <summary>GGUF names the way a byte-level tokenizer cuts text; these are the names and the patterns they stand for.</summary>
    private static readonly Dictionary<string, string> splitPatterns = new()
    {
        [contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"] = "llama-bpe",
        [contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"] = "qwen2",
    };

    private readonly Checkpoint source;
    private readonly string[] tokens;
    private readonly float[] scores;
    private readonly int[] types;
    private readonly List<KeyValuePair<string, object>> keys = [];

    private TokenizerMetadata(Checkpoint source, int vocabularySize)
    {
        this.source = source;
        tokens = new string[vocabularySize];
        scores = new float[vocabularySize];
        types = new int[vocabularySize];
    }

    /// <summary>Makes the keys; none where the folder has no tokenizer.</summary>
    /// <param name="source">The checkpoint whose assets are read.</param>
    /// <param name="vocabularySize">Rows of the embedding; ids without a token get a placeholder.</param>
    /// <exception cref="EngineException">The tokenizer is malformed or of a kind that GGUF cannot name.</exception>
    public static IReadOnlyList<KeyValuePair<string, object>> From(Checkpoint source, int vocabularySize)
    {
        byte[]? model = source.ReadAsset("tokenizer.model"), json = source.ReadAsset("tokenizer.json");
        var metadata = new TokenizerMetadata(source, vocabularySize);
        JsonObject? tokenizer = json is null ? null : HfAssets.ParseObject(json, metadata.PathOf("tokenizer.json"));
        try
        {
            if (model is not null)
                metadata.AddSentencePiece(model, tokenizer);
            else if (tokenizer is not null)
                metadata.AddBpe(tokenizer);
            else
                return [];
            metadata.AddSpecialTokens(tokenizer);
            return metadata.keys;
        }
        catch (InvalidOperationException exception)
        {
            // What a JSON value throws when it is asked for another kind than it has.
            throw new EngineException(
                $"the tokenizer has a value of the wrong kind: {exception.Message}", source.Path, "tokenizer", exception);
        }
    }

    private void AddSentencePiece(byte[] model, JsonObject? tokenizer)
    {
        SentencePieceModel pieces = SentencePieceModel.Parse(model, PathOf("tokenizer.model"));
        for (int id = 0; id < pieces.Pieces.Count; id++)
            Set(id, pieces.Pieces[id].Text, pieces.Pieces[id].Type, pieces.Pieces[id].Score);
        AddAddedTokens(tokenizer, pieces.Pieces.Count);
        AddVocabulary("llama");
        Add("unknown_token_id", (uint)pieces.UnknownId);
        Add("add_space_prefix", pieces.AddDummyPrefix);
    }

    private void AddBpe(JsonObject tokenizer)
    {
        if (tokenizer["model"] is not JsonObject model || (string?)model["type"] != "BPE" || model["vocab"] is not JsonObject vocabulary)
            throw Malformed("only BPE tokenizers can be stored in GGUF", "model.type");
        foreach ((string token, JsonNode? id) in vocabulary)
            Set(Id(id), token, Normal, 0);
        string[] merges = [.. (model["merges"] as JsonArray ?? []).Select(static merge =>
             merge is JsonArray pair ? $"{pair[0]} {pair[1]}" : $"{merge}")];
        bool byteFallback = (bool?)model["byte_fallback"] ?? false;
        AddAddedTokens(tokenizer, firstId: 0);

        if (!byteFallback)
        {
            AddVocabulary("gpt2", PreTokenizer(tokenizer["pre_tokenizer"]));
            Add("merges", merges);
            return;
        }
        // SentencePiece in BPE's clothes: a piece's score is minus the rank of the merge that makes it.
        for (int rank = 0; rank < merges.Length; rank++)
        {
            string piece = merges[rank].Replace(" ", "", StringComparison.Ordinal);
            if (vocabulary[piece] is { } id && scores[Id(id)] == 0)
                scores[Id(id)] = -rank - 1;
        }
        for (int id = 0; id < tokens.Length; id++)
        {
            if (types[id] == Normal && IsByteToken(tokens[id]))
                types[id] = Byte;
        }
        AddVocabulary("llama");
        if ((string?)model["unk_token"] is { } unknown && vocabulary[unknown] is { } unknownId)
        {
            types[Id(unknownId)] = Unknown;
            Add("unknown_token_id", (uint)Id(unknownId));
        }
        Add("add_space_prefix", tokenizer["normalizer"]?.ToJsonString().Contains("Prepend", StringComparison.Ordinal) == true
            || tokenizer["pre_tokenizer"] is JsonObject { } metaspace && (string?)metaspace["prepend_scheme"] is "first" or "always");
    }

    /// <summary>Adds the tokens that were added to a finished vocabulary: chat markers and the like.</summary>
    private void AddAddedTokens(JsonObject? tokenizer, int firstId)
    {
        foreach (JsonObject added in (tokenizer?["added_tokens"] as JsonArray ?? []).OfType<JsonObject>())
        {
            if (Id(added["id"]) is var id && id >= firstId)
                Set(id, (string?)added["content"] ?? "", (bool?)added["special"] ?? false ? Control : UserDefined, 0);
        }
    }

    private void AddVocabulary(string model, string? preTokenizer = null)
    {
        for (int id = 0; id < tokens.Length; id++)
        {
            if (tokens[id] is null)
                Set(id, string.Create(CultureInfo.InvariantCulture, $"[PAD{id}]"), Unused, 0);
        }
        Add("model", model);
        if (preTokenizer is not null)
            Add("pre", preTokenizer);
        Add("tokens", tokens);
        if (preTokenizer is null)
            Add("scores", scores);
        Add("token_type", types);
    }

    private void AddSpecialTokens(JsonObject? tokenizer)
    {
        JsonObject config = source.ReadAsset("tokenizer_config.json") is { } json
            ? HfAssets.ParseObject(json, PathOf("tokenizer_config.json"))
            : [];
        int? bos = SpecialId("bos", config);
        foreach ((string key, int? id) in new[] { ("bos", bos), ("eos", SpecialId("eos", config)), ("padding", SpecialId("pad", config)) })
        {
            if (id is { } found)
                Add($"{key}_token_id", (uint)found);
        }
        // What the tokenizer does decides; its configuration only says so where nothing runs it.
        bool addsBos = tokenizer?["post_processor"] is { } processor
            ? bos is { } first
                && processor.ToJsonString().Contains($"\"id\":{JsonValue.Create(tokens[first]).ToJsonString()}", StringComparison.Ordinal)
            : (bool?)config["add_bos_token"] ?? tokenizer is null;
        Add("add_bos_token", addsBos);
        Add("add_eos_token", (bool?)config["add_eos_token"] ?? false);
        string? template = source.ReadAsset("chat_template.jinja") is { } file ? Encoding.UTF8.GetString(file)
            : config["chat_template"] is JsonValue value ? (string?)value : null;
        if (template is not null)
            keys.Add(new("tokenizer.chat_template", template));
    }

    private int? SpecialId(string name, JsonObject config)
    {
        JsonNode? token = config[$"{name}_token"];
        string? content = token is JsonObject structured ? (string?)structured["content"] : (string?)token;
        if (content is not null && Array.IndexOf(tokens, content) is >= 0 and var index)
            return index;
        JsonNode? id = source.Config[$"{name}_token_id"];
        return (id is JsonArray { Count: > 0 } several ? several[0] : id) is JsonValue single ? Id(single) : null;
    }

    private string PreTokenizer(JsonNode? preTokenizer)
    {
        JsonObject[] steps = preTokenizer is JsonObject sequence && sequence["pretokenizers"] is JsonArray array
            ? [.. array.OfType<JsonObject>()]
            : preTokenizer is JsonObject single ? [single] : [];
        string[] kinds = [.. steps.Select(static step => (string?)step["type"] ?? "")];
        bool ownPattern = steps.Length > 0 && ((bool?)steps[^1]["use_regex"] ?? true);
        string? pattern = kinds is ["Split", "ByteLevel"] ? (string?)steps[0]["pattern"]?["Regex"] : null;
        return kinds switch
        {
            ["ByteLevel"] when ownPattern => "gpt-2",
            ["Digits", "ByteLevel"] when ownPattern && ((bool?)steps[0]["individual_digits"] ?? false) => "smollm",
            ["Split", "ByteLevel"] when pattern is not null && splitPatterns.TryGetValue(pattern, out string? name) => name,
            _ => throw Malformed("GGUF stores the name of a pre-tokenizer, and this one has none that is known here", "pre_tokenizer"),
        };
    }

    private void Set(int id, string token, int type, float score)
    {
        if (id < 0 || id >= tokens.Length)
            throw new EngineException(
                $"the token {token} has id {id}, but the embedding has {tokens.Length} rows", source.Path, "tokenizer");
        (tokens[id], types[id], scores[id]) = (token, type, score);
    }

    private void Add(string key, object value) => keys.Add(new("tokenizer.ggml." + key, value));

    private static bool IsByteToken(string token) =>
        token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>';

    private int Id(JsonNode? node) =>
        node is JsonValue value && value.TryGetValue(out int id)
            ? id
            : throw Malformed($"expected a token id, found {node?.ToJsonString() ?? "null"}", "vocab");

    private string PathOf(string asset) => Path.Combine(source.Path, asset);

    private EngineException Malformed(string reason, string item) => new(reason, PathOf("tokenizer.json"), item);
}
