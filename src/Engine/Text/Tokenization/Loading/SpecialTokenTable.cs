using System.Globalization;
using Engine.Checkpoints.Gguf;

namespace Engine.Text.Tokenization.Loading;

/// <summary>What the files around a vocabulary say about its special tokens, and the chat templates that use them.</summary>
internal sealed class SpecialTokenTable
{
    private const string ConfigName = "tokenizer_config.json";
    private const string GgufTemplateKey = "tokenizer.chat_template";

    /// <summary>Token texts by Hugging Face's names: <c>bos_token</c>, <c>eos_token</c>, …</summary>
    public Dictionary<string, string> Names { get; } = new(StringComparer.Ordinal);

    /// <summary>Ids that end a generation, from configurations.</summary>
    public List<int> Ends { get; } = [];

    /// <summary>Chat templates by name; the usual one is <c>default</c>.</summary>
    public Dictionary<string, string> Templates { get; } = new(StringComparer.Ordinal);

    /// <summary>Whether configurations say that a text begins with the beginning-of-sequence token; null where they are silent.</summary>
    public bool? AddsBeginning { get; private set; }

    /// <summary>Whether configurations say that a text ends with the end-of-sequence token; null where they are silent.</summary>
    public bool? AddsEnd { get; private set; }

    /// <summary>The names that Llama gave its special tokens.</summary>
    public static SpecialTokenTable Llama()
    {
        var table = new SpecialTokenTable();
        (table.Names["bos_token"], table.Names["eos_token"], table.Names["unk_token"]) = ("<s>", "</s>", "<unk>");
        return table;
    }

    /// <summary>Reads GGUF metadata.</summary>
    public static SpecialTokenTable OfGguf(IReadOnlyDictionary<string, object> metadata, TokenizerParts parts, string file)
    {
        var table = new SpecialTokenTable();
        // "seperator" is how the specification spells it.
        foreach ((string key, string name) in ((string, string)[])[("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"),
            ("padding", "pad_token"), ("seperator", "sep_token"), ("separator", "sep_token"), ("cls", "cls_token"), ("mask", "mask_token")])
        {
            if (GgufVocabularyReader.SpecialId(metadata, key, parts.Vocabulary.Size, file) is { } id)
                table.Names[name] = parts.Vocabulary.TextOf(id)!;
        }
        foreach (string key in (string[])["eos", "eot", "eom"])
        {
            if (GgufVocabularyReader.SpecialId(metadata, key, parts.Vocabulary.Size, file) is { } id)
                table.Ends.Add(id);
        }
        foreach (string key in metadata.Keys.Where(static key => key.StartsWith(GgufTemplateKey, StringComparison.Ordinal)))
        {
            // "tokenizer.chat_template" and "tokenizer.chat_template.<name>".
            string name = key[GgufTemplateKey.Length..];
            if (name.Length == 0 || name[0] == '.')
                table.Templates[name.Length == 0 ? "default" : name[1..]] = metadata.GetString(key, file)!;
        }
        return table;
    }

    /// <summary>Reads the files of a Hugging Face folder.</summary>
    public static SpecialTokenTable OfFiles(TokenizerFiles files, TokenizerParts parts)
    {
        var table = new SpecialTokenTable();
        JsonItem? config = files.ReadJson(ConfigName);
        if (config is { } tokenizerConfig)
            table.ReadConfig(tokenizerConfig, parts);
        if (files.ReadJson("special_tokens_map.json") is { } map)
            table.ReadNames(map, parts);
        foreach (string name in (string[])["generation_config.json", "config.json"])
        {
            if (files.ReadJson(name) is { } model)
                table.ReadIds(model, config, parts);
        }
        table.ReadTemplates(files, config);
        table.GuessNames(parts);
        return table;
    }

    /// <summary>Reads the added tokens that a folder without <c>tokenizer.json</c> lists beside its vocabulary.</summary>
    public static IReadOnlyList<AddedToken> ReadAdded(TokenizerFiles files)
    {
        var added = new List<AddedToken>();
        if (files.ReadJson(ConfigName)?.Find("added_tokens_decoder") is { } decoder)
        {
            foreach ((string key, JsonItem item) in decoder.AsFields())
            {
                added.Add(int.TryParse(key, NumberStyles.None, CultureInfo.InvariantCulture, out int id)
                    ? TokenizerJsonReader.ReadAddedToken(item, id)
                    : throw decoder.Error($"expected ids, found \"{key}\""));
            }
        }
        else if (files.ReadJson("added_tokens.json") is { } list)
        {
            foreach ((string text, JsonItem id) in list.AsFields())
            {
                long value = id.AsInteger();
                added.Add(value is >= 0 and <= TokenVocabulary.MaxId
                    ? new AddedToken((int)value, text) { Special = true }
                    : throw list.Error($"the id of {TokenVocabulary.Describe(text)} is {value}, expected 0 to {TokenVocabulary.MaxId}"));
            }
        }
        return added;
    }

    /// <summary>A special token is written as its text, or as an object with the text and how to find it.</summary>
    private static string? TokenText(JsonItem item) => item.IsString ? item.AsString() : item.IsObject ? item.FindString("content") : null;

    private void ReadConfig(JsonItem config, TokenizerParts parts)
    {
        ReadNames(config, parts);
        AddsBeginning = config.Find("add_bos_token")?.AsBool();
        AddsEnd = config.Find("add_eos_token")?.AsBool();
    }

    private void ReadNames(JsonItem item, TokenizerParts parts)
    {
        foreach ((string name, JsonItem value) in item.AsFields())
        {
            // Some files name tokens that their vocabulary does not have; such a name means nothing.
            if (name.EndsWith("_token", StringComparison.Ordinal) && TokenText(value) is { } text && parts.Vocabulary.TryGetId(text, out _))
                Names.TryAdd(name, text);
        }
    }

    private void ReadIds(JsonItem model, JsonItem? config, TokenizerParts parts)
    {
        foreach (string kind in (string[])["bos", "eos", "pad"])
        {
            if (model.Find($"{kind}_token_id") is not { } item)
                continue;
            int[] ids = [.. (item.IsArray ? item.AsArray() : [item]).Select(id => CheckedId(id, parts.Vocabulary.Size))];
            if (kind == "eos")
                Ends.AddRange(ids);
            // The tokenizer's own configuration decides, also where it says that there is no such token.
            if (ids.Length > 0 && config?.Mentions($"{kind}_token") != true && parts.Vocabulary.TextOf(ids[0]) is { } text)
                Names.TryAdd($"{kind}_token", text);
        }
    }

    private static int CheckedId(JsonItem item, int size)
    {
        long id = item.AsInteger();
        return id >= 0 && id < size ? (int)id : throw item.Error($"the id is {id}, expected 0 to {size - 1}");
    }

    private void ReadTemplates(TokenizerFiles files, JsonItem? config)
    {
        const string Key = "chat_template";
        foreach (JsonItem? source in (JsonItem?[])[config?.Find(Key), files.ReadJson("chat_template.json")?.Find(Key)])
        {
            if (source is not { } item)
                continue;
            if (!item.IsArray)
            {
                Templates["default"] = item.AsString();
                continue;
            }
            foreach (JsonItem entry in item.AsArray())
                Templates[entry["name"].AsString()] = entry["template"].AsString();
        }
        // The newest convention has the last word.
        if (files.Read("chat_template.jinja") is { } jinja)
            Templates["default"] = System.Text.Encoding.UTF8.GetString(jinja);
    }

    /// <summary>Where no file speaks of special tokens, those that the vocabulary came with have Llama's names.</summary>
    private void GuessNames(TokenizerParts parts)
    {
        if (Names.Count > 0)
            return;
        foreach ((string name, string text) in Llama().Names)
        {
            if (parts.AddedTokens.Any(token => token.Special && token.Content == text))
                Names.Add(name, text);
        }
    }
}
