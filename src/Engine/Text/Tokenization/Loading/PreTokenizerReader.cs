using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Reads the <c>pre_tokenizer</c> of a <c>tokenizer.json</c>.</summary>
internal sealed class PreTokenizerReader
{
    /// <summary>The model sees bytes and not characters.</summary>
    public bool ByteLevel { get; private set; }

    /// <summary>Rewritings of the text between added tokens.</summary>
    public List<Normalizer> Prefixes { get; } = [];

    public List<Splitter> Splitters { get; } = [];

    /// <summary>Reads a pre-tokenizer, or a sequence of them.</summary>
    /// <exception cref="EngineException">It is malformed or not supported.</exception>
    public void Read(JsonItem item)
    {
        string type = item["type"].AsString();
        switch (type)
        {
            case "Sequence":
                foreach (JsonItem part in item["pretokenizers"].AsArray())
                    Read(part);
                break;
            case "ByteLevel":
                ReadByteLevel(item);
                break;
            case "Split":
                bool invert = item.FindBool("invert", false);
                Splitters.Add(new PatternSplitter(ReadPattern(item["pattern"]), ReadBehavior(item["behavior"]), invert));
                break;
            case "Digits":
                // ASCII only, as in Hugging Face's JavaScript library, which the goldens come from. Its Rust library also takes other
                // numbers (½, Ⅷ, ١).
                Splitters.Add(new PatternSplitter(Pattern.Compile(item.FindBool("individual_digits", false) ? "[0-9]" : "[0-9]+")));
                break;
            case "Punctuation":
                SplitBehavior behavior = item.Find("behavior") is { } named ? ReadBehavior(named) : SplitBehavior.Isolated;
                Splitters.Add(new PatternSplitter(Pattern.Compile(@"[\p{P}!-/:-@\[-`{-~]"), behavior));
                break;
            case "Whitespace":
                Splitters.Add(new PatternSplitter(Pattern.Compile(@"\w+|[^\w\s]+"), SplitBehavior.Removed, invert: true));
                break;
            case "WhitespaceSplit":
                Splitters.Add(new PatternSplitter(Pattern.Compile(@"\s+"), SplitBehavior.Removed));
                break;
            case "Metaspace":
                ReadMetaspace(item);
                break;
            default:
                throw item.Unsupported(type);
        }
    }

    private static Pattern ReadPattern(JsonItem pattern)
    {
        string source = pattern.FindString("String") is { Length: > 0 } literal ? Escape(literal) : pattern["Regex"].AsString();
        return Pattern.Compile(source, pattern.File, pattern.Place);
    }

    private static string Escape(string literal) => string.Concat(literal.Select(static character =>
        char.IsAscii(character) && !char.IsLetterOrDigit(character) ? $"\\x{(int)character:X2}" : $"{character}"));

    private static SplitBehavior ReadBehavior(JsonItem behavior) =>
        Enum.TryParse(behavior.AsString(), out SplitBehavior value) && Enum.IsDefined(value)
            ? value
            : throw behavior.Unsupported(behavior.AsString());

    private void ReadByteLevel(JsonItem item)
    {
        ByteLevel = true;
        if (item.FindBool("add_prefix_space", true))
            AddPrefix(item, new PrefixNormalizer(" ", unlessPresent: true, onlyAtStart: false));
        if (item.FindBool("use_regex", true))
            Splitters.Add(new PatternSplitter(Pattern.Compile(PatternFamily.Gpt2)));
    }

    private void ReadMetaspace(JsonItem item)
    {
        string marker = item.FindString("replacement") ?? "\u2581";
        if (marker.Length != 1)
            throw item["replacement"].Error($"expected one character, found {marker.Length}");
        string scheme = item.FindString("prepend_scheme") ?? (item.FindBool("add_prefix_space", true) ? "always" : "never");
        AddPrefix(item, new ReplaceNormalizer(" ", marker));
        if (scheme is "always" or "first")
            AddPrefix(item, new PrefixNormalizer(marker, unlessPresent: true, onlyAtStart: scheme == "first"));
        else if (scheme != "never")
            throw item["prepend_scheme"].Unsupported(scheme);
        if (item.FindBool("split", true))
            Splitters.Add(new PatternSplitter(Pattern.Compile(Escape(marker)), SplitBehavior.MergedWithNext));
    }

    /// <summary>Text is rewritten before it is cut, so what rewrites each piece of an earlier cut is not expressible.</summary>
    private void AddPrefix(JsonItem item, Normalizer prefix)
    {
        if (Splitters.Count > 0)
            throw item.Error("a prefix for every piece of an earlier pre-tokenizer is not supported");
        Prefixes.Add(prefix);
    }
}
