namespace Engine.Text.Tokenization.Loading;

/// <summary>
/// Reads the <c>decoder</c> of a <c>tokenizer.json</c> into the one question that matters: which bytes does a token stand for?
/// </summary>
internal static class DecoderReader
{
    /// <summary>Reads a decoder.</summary>
    /// <param name="decoder">The decoder, if there is one.</param>
    /// <param name="byteLevel">What the pre-tokenizer says of the vocabulary.</param>
    /// <exception cref="EngineException">It is malformed or not supported.</exception>
    public static TokenSpelling Read(JsonItem? decoder, bool byteLevel)
    {
        var spelling = new TokenSpelling { ByteLevel = byteLevel };
        return decoder is { } item ? Apply(item, spelling) : spelling;
    }

    private static TokenSpelling Apply(JsonItem item, TokenSpelling spelling)
    {
        string type = item["type"].AsString();
        switch (type)
        {
            case "Sequence":
                return item["decoders"].AsArray().Aggregate(spelling, static (whole, part) => Apply(part, whole));
            case "ByteLevel":
                return spelling with { ByteLevel = true };
            case "ByteFallback":
                return spelling with { ByteTokens = true };
            case "Fuse":
                return spelling;
            case "Replace":
                JsonItem pattern = item["pattern"];
                string from = pattern["String"].AsString();
                if (from.Length == 0)
                    throw pattern.Error("expected a string that is not empty");
                return spelling with { Replacements = [.. spelling.Replacements, (from, item["content"].AsString())] };
            case "Strip":
                (string content, long start, long stop) = (item["content"].AsString(), item["start"].AsInteger(), item["stop"].AsInteger());
                return content == " " && start is 0 or 1 && stop == 0
                    ? spelling with { StripLeadingSpace = start == 1 }
                    : throw item.Error("only one leading space can be stripped");
            case "Metaspace":
                string scheme = item.FindString("prepend_scheme") ?? (item.FindBool("add_prefix_space", true) ? "always" : "never");
                return spelling with
                {
                    Replacements = [.. spelling.Replacements, (item.FindString("replacement") ?? "\u2581", " ")],
                    StripLeadingSpace = scheme != "never",
                };
            default:
                throw item.Unsupported(type);
        }
    }
}
