using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Numerics;
using Engine;
using Engine.Checkpoints.Writing;
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

    /// <summary>As <see cref="Model"/>, and several of them as one model.</summary>
    public static Option<string[]> Models() => new("--model", "-m")
    {
        Description = Model().Description + " Given several times: ParScale models over one backbone, of which --streams chooses; tokenizer and"
            + " chat template are the first one's.",
        HelpName = "PATH",
    };

    public static Option<string?> Mask() => new("--mask")
    {
        Description = "Masks for the weights of a Hugging Face folder, a .npz with a bit per weight (MaskLLM); without it mask_compressed.npz in the folder, where there is one.",
        HelpName = "FILE",
    };

    public static Option<int?> Threads() => OptionalNumber<int>("--threads", "Threads; without it one per processor.", "T", "-t");

    public static Option<int?> ContextLength() => OptionalNumber<int>(
        "--context", "The longest sequence in tokens; without it what the model was made for.", "N", "-c", "--context-length");

    public static Option<KvFormat> Kv(KvFormat byDefault)
    {
        Option<KvFormat> option = Choice(
            "--kv", "How keys and values are stored.",
            [.. Enum.GetValues<KvFormat>().Select(static format => (format.ToString(), format))], "--kv-format");
        option.DefaultValueFactory = _ => byDefault;
        return option;
    }

    /// <summary>How activations meet BF16 weights.</summary>
    public static Option<ActivationPrecision> Activations() => Choice(
        "--activations",
        "For weights stored as BF16: activations as they are (f32, the default), or rounded (bf16) for faster prompts with AVX512_BF16.",
        [("f32", ActivationPrecision.Float32), ("bf16", ActivationPrecision.BFloat16)]);

    public static Option<string?> Layers() => new("--layers")
    {
        Description = "The layers to run, in order: 0-5,4-9 overlaps, 0-3,8-11 leaves four out, 3*4 repeats one, "
            + "2=1 runs layer 2 with the weights of layer 1.",
        HelpName = "ORDER",
    };

    /// <summary>How an expert-choice model gives tokens their depths.</summary>
    public static Option<DepthSelection> Routing() => Choice(
        "--routing",
        "For Mixture-of-Recursions with expert choice: each token by itself (causal, the default), or the best part of the tokens that come "
            + "together (official), as in training.",
        [("causal", DepthSelection.Causal), ("official", DepthSelection.Official)]);

    /// <summary>Which of a ParScale model's sets of streams to run.</summary>
    public static Option<int?> Streams()
    {
        const string Name = "--streams";
        Option<int?> option = OptionalNumber<int>(Name, "For ParScale: parallel streams, one of the P that were given; without it the first.", "P");
        option.Validators.Add(static result => RequireAtLeast(result, Name, 1));
        return option;
    }

    /// <summary>How many experts a token is sent to.</summary>
    public static Option<int?> ExpertsPerToken()
    {
        const string Name = "--experts-per-token";
        Option<int?> option = OptionalNumber<int>(Name, "For mixtures of experts: send each token to so many, instead of the model's number.", "K");
        option.Validators.Add(static result => RequireAtLeast(result, Name, 1));
        return option;
    }

    /// <summary>A positive number of bytes; K, M, G and T behind it are powers of 1024.</summary>
    public static Option<long?> Bytes(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "BYTES",
        CustomParser = ParseBytes,
    };

    /// <summary>Load-time quantization.</summary>
    public static Option<string?> Quantize() => new("--quantize")
    {
        Description = $"Quantize matrices while loading: {string.Join(", ", QuantizationRecipe.All.Select(static recipe => recipe.Name))}.",
        HelpName = "FORMAT",
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
        Option<int> option = Number(name, description, byDefault, "N", aliases);
        option.Validators.Add(result => RequireAtLeast(result, name, atLeast));
        return option;
    }

    /// <summary>An integer option with a smallest value that may be absent.</summary>
    public static Option<int?> OptionalCount(string name, string description, int atLeast, params string[] aliases)
    {
        Option<int?> option = OptionalNumber<int>(name, description, "N", aliases);
        option.Validators.Add(result => RequireAtLeast(result, name, atLeast));
        return option;
    }

    /// <summary>A number.</summary>
    public static Option<T> Number<T>(string name, string description, T byDefault, string helpName, params string[] aliases)
        where T : struct, INumber<T>, IMinMaxValue<T> => new(name, aliases)
        {
            Description = description,
            HelpName = helpName,
            DefaultValueFactory = _ => byDefault,
            CustomParser = static result => ParseNumber<T>(result) ?? default,
        };

    /// <summary>A number that may be absent.</summary>
    public static Option<T?> OptionalNumber<T>(string name, string description, string helpName, params string[] aliases)
        where T : struct, INumber<T>, IMinMaxValue<T> => new(name, aliases)
        {
            Description = description,
            HelpName = helpName,
            CustomParser = ParseNumber<T>,
        };

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

    private static T? ParseNumber<T>(ArgumentResult result)
        where T : struct, INumber<T>, IMinMaxValue<T>
    {
        string text = result.Tokens[0].Value;
        if (T.TryParse(text, CultureInfo.InvariantCulture, out T value))
        {
            return value;
        }
        bool halves = !T.IsInteger(T.One / (T.One + T.One));
        string expected = halves ? "a number" : $"a whole number from {T.MinValue} to {T.MaxValue}";
        result.AddError($"{Name(result)}: expected {expected}, found '{text}'");
        return null;
    }

    private static long? ParseBytes(ArgumentResult result)
    {
        string text = result.Tokens[0].Value;
        int power = text.Length == 0 ? 0 : "KMGT".IndexOf(char.ToUpperInvariant(text[^1]), StringComparison.Ordinal) + 1;
        string number = power > 0 ? text[..^1] : text;
        if (long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out long count)
            && count >= 1 && count <= long.MaxValue >> (10 * power))
        {
            return count << (10 * power);
        }
        result.AddError($"{Name(result)}: expected a number of bytes, such as 500M or 4G, found '{text}'");
        return null;
    }

    /// <summary>As <see cref="Choice"/>, and may be absent.</summary>
    public static Option<T?> OptionalChoice<T>(string name, string description, (string Name, T Value)[] choices)
        where T : struct, Enum => new(name)
        {
            Description = description,
            HelpName = string.Join('|', choices.Select(static choice => choice.Name)),
            CustomParser = result => ParseChoice(result, name, choices),
        };

    /// <summary>One of a few values, by the names given here whatever their case; the library's own parser would take numbers too.</summary>
    private static Option<T> Choice<T>(string name, string description, (string Name, T Value)[] choices, params string[] aliases)
        where T : struct, Enum => new(name, aliases)
        {
            Description = description,
            HelpName = string.Join('|', choices.Select(static choice => choice.Name)),
            CustomParser = result => ParseChoice(result, name, choices) ?? default,
        };

    private static T? ParseChoice<T>(ArgumentResult result, string name, (string Name, T Value)[] choices)
        where T : struct, Enum
    {
        string text = result.Tokens[0].Value;
        int found = Array.FindIndex(choices, choice => choice.Name.Equals(text, StringComparison.OrdinalIgnoreCase));
        if (found >= 0)
        {
            return choices[found].Value;
        }
        result.AddError($"{name}: expected one of {string.Join(", ", choices.Select(static choice => choice.Name))}, found '{text}'");
        return null;
    }

    private static string? Name(ArgumentResult result) => (result.Parent as OptionResult)?.Option.Name;

    private static int[]? ParseIds(ArgumentResult result)
    {
        string text = result.Tokens.Count == 0 ? "" : result.Tokens[0].Value;
        string[] parts = text.Split(',', StringSplitOptions.TrimEntries);
        int[] ids = new int[parts.Length];
        for (int i = 0; i < parts.Length; i++)
        {
            if (!int.TryParse(parts[i], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out ids[i]))
            {
                result.AddError($"{Name(result)}: expected integers with commas between, found '{text}'");
                return null;
            }
        }
        return ids;
    }
}
