namespace Engine.Text.Tokenization.Loading;

/// <summary>Reads the <c>post_processor</c> of a <c>tokenizer.json</c>: the tokens around a single text.</summary>
internal static class PostProcessorReader
{
    /// <summary>Reads a post-processor.</summary>
    /// <exception cref="EngineException">It is malformed, not supported, or names an id outside the vocabulary.</exception>
    public static (int[] Before, int[] After) Read(JsonItem? processor, int vocabularySize)
    {
        var before = new List<int>();
        var after = new List<int>();
        if (processor is { } item)
            Apply(item, vocabularySize, before, after);
        return ([.. before], [.. after]);
    }

    private static void Apply(JsonItem item, int vocabularySize, List<int> before, List<int> after)
    {
        string type = item["type"].AsString();
        switch (type)
        {
            case "Sequence":
                foreach (JsonItem part in item["processors"].AsArray())
                    Apply(part, vocabularySize, before, after);
                break;
            case "ByteLevel":
                // It only moves the offsets that the reference reports.
                break;
            case "TemplateProcessing":
                ApplyTemplate(item, vocabularySize, before, after);
                break;
            case "BertProcessing" or "RobertaProcessing":
                before.Insert(0, Id(item["cls"].AsArray().ElementAtOrDefault(1), item, vocabularySize));
                after.Add(Id(item["sep"].AsArray().ElementAtOrDefault(1), item, vocabularySize));
                break;
            default:
                throw item.Unsupported(type);
        }
    }

    private static void ApplyTemplate(JsonItem item, int vocabularySize, List<int> before, List<int> after)
    {
        var leading = new List<int>();
        var trailing = new List<int>();
        List<int> side = leading;
        bool sawText = false;
        foreach (JsonItem piece in item["single"].AsArray())
        {
            if (piece.Find("Sequence") is not null)
            {
                if (sawText)
                    throw piece.Error("a template that repeats the text is not supported");
                sawText = true;
                side = trailing;
                continue;
            }
            string name = piece["SpecialToken"]["id"].AsString();
            foreach (JsonItem id in item["special_tokens"][name]["ids"].AsArray())
                side.Add(Id(id, item, vocabularySize));
        }
        if (!sawText)
            throw item.Error("the template has no place for the text");
        before.InsertRange(0, leading);
        after.AddRange(trailing);
    }

    private static int Id(JsonItem id, JsonItem owner, int vocabularySize)
    {
        if (id.File is null)
            throw owner.Error("expected a token and its id");
        long value = id.AsInteger();
        return value >= 0 && value < vocabularySize ? (int)value : throw id.Error($"the id is {value}, expected 0 to {vocabularySize - 1}");
    }
}
