using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Numerics;
using Engine.Sampling;

namespace Host.CommandLine;

/// <summary>The options of <see cref="SamplingOptions"/> on the command line, named after its properties; defaults are its own.</summary>
internal sealed class SamplingOptionSet
{
    private static readonly SamplingOptions Defaults = new();

    private readonly Option<float> temperature =
        Number("--temperature", "Logits are divided by this; 0 takes the likeliest token always.", Defaults.Temperature);

    private readonly Option<int> topK = Number("--top-k", "Keep this many of the likeliest tokens; 0 keeps all.", Defaults.TopK);
    private readonly Option<float> topP = Number("--top-p", "Keep the likeliest tokens up to this probability; 1 keeps all.",
        Defaults.TopP);

    private readonly Option<float> minP =
        Number("--min-p", "Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.", Defaults.MinP);

    private readonly Option<float> typicalP =
        Number("--typical-p", "Keep tokens of typical surprise up to this probability; 1 keeps all.", Defaults.TypicalP);

    private readonly Option<float> repetitionPenalty =
        Number("--repetition-penalty", "Divides positive and multiplies negative logits of recent tokens; 1 is off.",
            Defaults.RepetitionPenalty);

    private readonly Option<int> penaltyWindow =
        Number("--penalty-window", "How many of the last tokens are recent; -1 is all.", Defaults.PenaltyWindow);

    private readonly Option<float> presencePenalty =
        Number("--presence-penalty", "Subtracted from the logits of recent tokens.", Defaults.PresencePenalty);

    private readonly Option<float> frequencyPenalty =
        Number("--frequency-penalty", "Subtracted from the logits of recent tokens for each occurrence.", Defaults.FrequencyPenalty);

    private readonly Option<KeyValuePair<int, float>[]> logitBias = new("--logit-bias")
    {
        Description = "Added to a token's logit; -inf forbids it. May be repeated.",
        HelpName = "ID=BIAS",
        CustomParser = ParseBias,
        Arity = ArgumentArity.ZeroOrMore,
    };

    private readonly Option<ulong?> seed =
        Options.OptionalNumber<ulong>("--seed", "Same seed, same text; without it a random one.", "S", "-s");

    /// <summary>Adds the options to a command.</summary>
    public void AddTo(Command command)
    {
        Option[] all =
        [
            temperature, topK, topP, minP, typicalP, repetitionPenalty, penaltyWindow, presencePenalty, frequencyPenalty, logitBias, seed,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    /// <summary>The options as given. A seed is always set, so that it can be reported and the run repeated.</summary>
    /// <exception cref="UsageException">One is out of range.</exception>
    public SamplingOptions Read(ParseResult parse, int logprobs = 0)
    {
        KeyValuePair<int, float>[] bias = parse.GetValue(logitBias) ?? [];
        SamplingOptions options = new()
        {
            Temperature = parse.GetValue(temperature),
            TopK = parse.GetValue(topK),
            TopP = parse.GetValue(topP),
            MinP = parse.GetValue(minP),
            TypicalP = parse.GetValue(typicalP),
            RepetitionPenalty = parse.GetValue(repetitionPenalty),
            PenaltyWindow = parse.GetValue(penaltyWindow),
            PresencePenalty = parse.GetValue(presencePenalty),
            FrequencyPenalty = parse.GetValue(frequencyPenalty),
            LogitBias = bias.Length == 0 ? null : bias.GroupBy(pair => pair.Key).ToDictionary(same => same.Key, same => same.Last().Value),
            // 32 bits: short to type, and exact in every JSON reader.
            Seed = parse.GetValue(seed) ?? (uint)Random.Shared.NextInt64(1L << 32),
            Logprobs = logprobs,
        };
        UsageException.Check(() => options.Validate());
        return options;
    }

    private static Option<T> Number<T>(string name, string description, T byDefault)
        where T : struct, INumber<T>, IMinMaxValue<T> => Options.Number(name, description, byDefault, "X");

    private static KeyValuePair<int, float>[] ParseBias(ArgumentResult result)
    {
        List<KeyValuePair<int, float>> pairs = [];
        foreach (Token token in result.Tokens)
        {
            string[] parts = token.Value.Split('=');
            bool isInfinite = parts is [_, "-inf"];
            float bias = float.NegativeInfinity;
            if (parts.Length != 2 || !int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int id)
                || !(isInfinite || float.TryParse(parts[1], NumberStyles.Float, CultureInfo.InvariantCulture, out bias)))
            {
                result.AddError($"--logit-bias: expected ID=BIAS, found '{token.Value}'");
                return [];
            }
            pairs.Add(new(id, bias));
        }
        return [.. pairs];
    }
}
