using System.CommandLine;
using Engine;
using Engine.Plans;

namespace Host.CommandLine;

/// <summary>How mixtures of experts are run: <c>--experts-per-token</c>, <c>--expert-memory</c>.</summary>
internal sealed class ExpertOptionSet
{
    private readonly Option<int?> perToken = Options.ExpertsPerToken();
    private readonly Option<long?> memory = Options.Bytes(
        "--expert-memory",
        "For mixtures of experts: bytes that experts may take in memory, such as 4G; those not used for longest are read again from the file. "
            + "Without it all are kept, where memory holds them.");

    /// <summary>The options.</summary>
    public IReadOnlyList<Option> All => [perToken, memory];

    /// <summary>Adds what was asked for.</summary>
    public LanguageModelOptions Apply(ParseResult parse, LanguageModelOptions options) =>
        options with { ExpertsPerToken = parse.GetValue(perToken), ExpertBytes = parse.GetValue(memory) };

    /// <summary>Refuses a model that what was asked for does not fit; null where nothing was.</summary>
    public Action<ModelPlan, string>? Needs(ParseResult parse)
    {
        Action<ModelPlan, string>? needs = null;
        if (parse.GetValue(perToken) is { } count)
        {
            needs += (plan, path) => Mixtures.RequirePerToken(plan, count, path, perToken.Name);
        }
        if (parse.GetValue(memory) is not null)
        {
            needs += (plan, path) => ModelNeeds.Experts(plan, path, memory.Name);
        }
        return needs;
    }

    /// <summary>Says what a user should know about how a model's experts are run.</summary>
    public static void Note(LanguageModel model, LanguageModelOptions options)
    {
        if (options.ExpertsPerToken is { } count && Mixtures.ChangesSumOfWeights(model.Plan, count))
        {
            Terminal.Note($"this model does not normalise the weights of experts: with {count} per token they sum to something else than in training");
        }
        if (options.ExpertBytes is null && model.ExpertBytesLimit is { } limit)
        {
            Terminal.Note(
                $"not all experts fit into memory: {limit / 1e9:F1} GB are kept, the others are read when a token needs them (--expert-memory)");
        }
    }
}
