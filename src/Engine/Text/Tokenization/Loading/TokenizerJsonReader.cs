using System.Text.Json;
using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization.Loading;

/// <summary>
/// Reads <c>tokenizer.json</c>. What it cannot do exactly it refuses by name. Source: the serialised form of Hugging Face's tokenizers
/// library.
/// </summary>
internal static class TokenizerJsonReader
{
    public const string FileName = "tokenizer.json";

    private const string DefaultMarker = "\u2581";

    /// <summary>Reads a tokenizer.</summary>
    /// <exception cref="EngineException">The file is malformed, or uses something that is not supported.</exception>
    public static TokenizerParts Read(byte[] json, string file)
    {
        JsonItem root = JsonItem.Parse(json, file);
        JsonItem model = root["model"];
        var vocabulary = new TokenVocabulary(file);
        (var preTokenizer, IReadOnlyList<Normalizer> normalizers) = (new PreTokenizerReader(), ReadNormalizers(root.Find("normalizer")));
        if (root.Find("pre_tokenizer") is { } pre)
            preTokenizer.Read(pre);

        IReadOnlyList<double>? scores = ReadVocabulary(model, ref vocabulary);
        List<AddedToken> added = ReadAddedTokens(root.Find("added_tokens"), vocabulary);
        var addedIds = added.Select(static token => token.Id).ToHashSet();
        TokenSpelling spelling = DecoderReader.Read(root.Find("decoder"), preTokenizer.ByteLevel);
        bool TakesPart(int id) => !addedIds.Contains(id);
        (int[] before, int[] after) = PostProcessorReader.Read(root.Find("post_processor"), vocabulary.Size);
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = scores is null
                ? ReadBytePair(model, vocabulary, preTokenizer.ByteLevel, TakesPart)
                : ReadUnigram(model, vocabulary, scores, TakesPart),
            Spelling = spelling,
            AddedTokens = added,
            Normalizers = normalizers,
            Prefixes = preTokenizer.Prefixes,
            Splitters = preTokenizer.ByteLevel || scores is not null
                ? preTokenizer.Splitters
                : [.. preTokenizer.Splitters, .. WordStarts.Splitters(vocabulary, TakesPart, DefaultMarker[0])],
            Before = before,
            After = after,
        };
    }

    /// <summary>Reads one entry of <c>added_tokens</c>, or of <c>added_tokens_decoder</c>, whose keys are the ids.</summary>
    public static AddedToken ReadAddedToken(JsonItem item, long id)
    {
        if (id is < 0 or > TokenVocabulary.MaxId)
            throw item.Error($"the id is {id}, expected 0 to {TokenVocabulary.MaxId}");
        bool special = item.FindBool("special", false);
        return new AddedToken((int)id, item["content"].AsString())
        {
            SingleWord = item.FindBool("single_word", false),
            LeftStrip = item.FindBool("lstrip", false),
            RightStrip = item.FindBool("rstrip", false),
            Normalized = item.FindBool("normalized", !special),
            Special = special,
        };
    }

    private static List<AddedToken> ReadAddedTokens(JsonItem? items, TokenVocabulary vocabulary)
    {
        var tokens = new List<AddedToken>();
        var seen = new HashSet<int>();
        foreach (JsonItem item in items?.AsArray() ?? [])
        {
            AddedToken token = ReadAddedToken(item, item["id"].AsInteger());
            if (!seen.Add(token.Id))
                throw item.Error($"the id {token.Id} is listed twice");
            // An added token may, but need not, be in the vocabulary of the model as well.
            if (vocabulary.TextOf(token.Id) != token.Content)
                vocabulary.Add(token.Id, token.Content);
            tokens.Add(token);
        }
        return tokens;
    }

    /// <summary>Reads the tokens of the model; the result is their scores where it is a unigram model.</summary>
    private static double[]? ReadVocabulary(JsonItem model, ref TokenVocabulary vocabulary)
    {
        JsonItem tokens = model["vocab"];
        string kind = model.FindString("type") ?? (tokens.IsArray ? "Unigram" : "BPE");
        if (kind == "BPE")
        {
            vocabulary = new TokenVocabulary(model.File, tokens.Require(JsonValueKind.Object).GetPropertyCount());
            foreach ((string text, JsonItem id) in tokens.AsFields())
                vocabulary.Add(id.AsInteger(), text);
            return null;
        }
        if (kind != "Unigram")
            throw model.Error($"the model \"{kind}\" is not supported, expected BPE or Unigram");
        var scores = new List<double>();
        foreach (JsonItem entry in tokens.AsArray())
        {
            JsonItem[] pair = [.. entry.AsArray()];
            if (pair.Length != 2)
                throw entry.Error($"expected a token and its score, found {pair.Length} values");
            vocabulary.Add(scores.Count, pair[0].AsString());
            scores.Add(pair[1].AsNumber());
        }
        return [.. scores];
    }

    private static BytePairModel ReadBytePair(JsonItem model, TokenVocabulary vocabulary, bool byteLevel, Func<int, bool> takesPart)
    {
        foreach (string affix in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
        {
            if (model.FindString(affix) is { Length: > 0 })
                throw model[affix].Error("an affix of subwords is not supported");
        }
        if (model.Find("dropout")?.AsNumber() is > 0)
            throw model["dropout"].Error("random merging is not supported");
        SymbolTable symbols = byteLevel
            ? SymbolTable.OfBytes(vocabulary)
            : SymbolTable.OfCharacters(vocabulary, takesPart, model.FindBool("byte_fallback", false));
        return new BytePairModel(vocabulary, ReadMerges(model["merges"], vocabulary), symbols)
        {
            IgnoreMerges = model.FindBool("ignore_merges", false),
            Unknown = ReadUnknown(model, vocabulary),
            FuseUnknown = model.FindBool("fuse_unk", false),
        };
    }

    private static UnigramModel ReadUnigram(
        JsonItem model, TokenVocabulary vocabulary, IReadOnlyList<double> scores, Func<int, bool> takesPart)
    {
        long? unknown = model.Find("unk_id")?.AsInteger();
        if (unknown is { } id && (id < 0 || id >= scores.Count))
            throw model["unk_id"].Error($"the id is {id}, expected 0 to {scores.Count - 1}");
        bool byteFallback = model.FindBool("byte_fallback", false);
        return new UnigramModel(vocabulary, [.. scores], id => id != unknown && takesPart(id), (int?)unknown, byteFallback);
    }

    private static int? ReadUnknown(JsonItem model, TokenVocabulary vocabulary)
    {
        if (model.FindString("unk_token") is not { } text)
            return null;
        return vocabulary.TryGetId(text, out int id)
            ? id
            : throw model["unk_token"].Error($"{TokenVocabulary.Describe(text)} is not in the vocabulary");
    }

    private static MergeTable ReadMerges(JsonItem merges, TokenVocabulary vocabulary)
    {
        int count = merges.Require(JsonValueKind.Array).GetArrayLength();
        // So many that no place is composed for each.
        IEnumerable<JsonItem> items = merges.Element.EnumerateArray().Select(merge => new JsonItem(merge, merges.File, merges.Place));
        return count > 0 && merges.Element[0].ValueKind == JsonValueKind.Array
            ? MergeList.Build(items.Select(ReadPair), count, vocabulary, merges.File, merges.Place)
            : MergeList.Build(items.Select(static merge => merge.AsString()), count, vocabulary, merges.File, merges.Place);
    }

    private static (string Left, string Right) ReadPair(JsonItem merge)
    {
        JsonElement pair = merge.Require(JsonValueKind.Array);
        if (pair.GetArrayLength() != 2)
            throw merge.Error($"expected two tokens, found {pair.GetArrayLength()}");
        return ((merge with { Element = pair[0] }).AsString(), (merge with { Element = pair[1] }).AsString());
    }

    private static IReadOnlyList<Normalizer> ReadNormalizers(JsonItem? normalizer)
    {
        if (normalizer is not { } item)
            return [];
        string type = item["type"].AsString();
        return type switch
        {
            "Sequence" => [.. item["normalizers"].AsArray().SelectMany(static part => ReadNormalizers(part))],
            "NFC" => [new ComposingNormalizer()],
            "Lowercase" => [new LowercaseNormalizer()],
            "Prepend" => [new PrefixNormalizer(item["prepend"].AsString(), unlessPresent: false, onlyAtStart: false)],
            "Strip" => [new StripNormalizer(item.FindBool("strip_left", true), item.FindBool("strip_right", true))],
            "Replace" => [ReadReplace(item)],
            _ => throw item.Unsupported(type),
        };
    }

    private static Normalizer ReadReplace(JsonItem item)
    {
        string to = item["content"].AsString();
        JsonItem pattern = item["pattern"];
        if (pattern.FindString("String") is { Length: > 0 } from)
            return new ReplaceNormalizer(from, to);
        return new PatternNormalizer(Pattern.Compile(pattern["Regex"].AsString(), pattern.File, pattern.Place), to);
    }
}
