using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Engine;
using Engine.Execution;

namespace Host.CommandLine;

/// <summary>Options that several commands share; each call makes a new one, because an option belongs to one command.</summary>
internal static class Options
{
    public static Option<string?> Model() => new("--model", "-m")
    {
        Description =
            "A GGUF file, a Hugging Face folder, a .safetensors or a llama2.c .bin file; without it the small model of the program.",
        HelpName = "PATH",
    };

    public static Option<int?> Threads() =>
        new("--threads", "-t") { Description = "Threads; without it one per processor.", HelpName = "T" };

    public static Option<int?> ContextLength() => new("--context", "-c", "--context-length")
    {
        Description = "The longest sequence in tokens; without it what the model was made for.",
        HelpName = "N",
    };

    public static Option<KvFormat> Kv(KvFormat byDefault) => new("--kv", "--kv-format")
    {
        Description = "How keys and values are stored.",
        DefaultValueFactory = _ => byDefault,
    };

    public static Option<string?> Layers() => new("--layers")
    {
        Description = "The layers to run, in order: 0-5,4-9 overlaps, 0-3,8-11 leaves four out, 3*4 repeats one, "
            + "2=1 runs layer 2 with the weights of layer 1.",
        HelpName = "ORDER",
    };

    public static Option<bool> Json() => new("--json") { Description = "Print one JSON object and nothing else." };

    /// <summary>Comma-separated integers.</summary>
    public static Option<int[]?> Ids(string name, string description, params string[] aliases) => new(name, aliases)
    {
        Description = description,
        HelpName = "1,2,3",
        CustomParser = ParseIds,
    };

    /// <summary>An integer option with a smallest value.</summary>
    public static Option<int> Count(string name, string description, int byDefault, int atLeast, params string[] aliases)
    {
        Option<int> option = new(name, aliases) { Description = description, DefaultValueFactory = _ => byDefault, HelpName = "N" };
        option.Validators.Add(result => RequireAtLeast(result, name, atLeast));
        return option;
    }

    /// <summary>An integer option with a smallest value that may be absent.</summary>
    public static Option<int?> OptionalCount(string name, string description, int atLeast, params string[] aliases)
    {
        Option<int?> option = new(name, aliases) { Description = description, HelpName = "N" };
        option.Validators.Add(result => RequireAtLeast(result, name, atLeast));
        return option;
    }

    /// <summary>The integers given, or null where the option is absent (the parser's own answer is then an empty array).</summary>
    public static int[]? GetIds(this ParseResult parse, Option<int[]?> option) =>
        parse.GetValue(option) is { Length: > 0 } ids ? ids : null;

    private static void RequireAtLeast(OptionResult result, string name, int atLeast)
    {
        if (result.Tokens is [{ } token] && int.TryParse(token.Value, CultureInfo.InvariantCulture, out int value) && value < atLeast)
        {
            result.AddError($"{name}: expected at least {atLeast}, found {value}");
        }
    }

    private static int[]? ParseIds(ArgumentResult result)
    {
        string text = result.Tokens.Count == 0 ? "" : result.Tokens[0].Value;
        string[] parts = text.Split(',', StringSplitOptions.TrimEntries);
        int[] ids = new int[parts.Length];
        for (int i = 0; i < parts.Length; i++)
        {
            if (!int.TryParse(parts[i], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out ids[i]))
            {
                result.AddError($"{(result.Parent as OptionResult)?.Option.Name}: expected integers with commas between, found '{text}'");
                return null;
            }
        }
        return ids;
    }
}
