using System.CommandLine;
using Engine;
using Engine.Execution;
using Engine.Plans;

namespace Host.CommandLine;

/// <summary>Which model to load and how: <c>-m</c>, <c>--threads</c>, <c>--context</c>, <c>--kv</c>, <c>--activations</c>,
/// <c>--layers</c>, <c>--routing</c>, <c>--streams</c>, <c>--quantize</c>, and what <see cref="ExpertOptionSet"/> has.</summary>
/// <param name="kvByDefault">How keys and values are stored where <c>--kv</c> does not say.</param>
/// <param name="contextOption">What stands in for <c>--context</c> in a command where it means more; null for the usual one.</param>
internal sealed class ModelOptionSet(KvFormat kvByDefault = KvFormat.F16, Option<int?>? contextOption = null)
{
    private readonly Option<string[]> paths = Options.Models();
    private readonly Option<int?> threads = Options.Threads();
    private readonly Option<int?> contextLength = contextOption ?? Options.ContextLength();
    private readonly Option<KvFormat> kv = Options.Kv(kvByDefault);
    private readonly Option<ActivationPrecision> activations = Options.Activations();
    private readonly Option<string?> layers = Options.Layers();
    private readonly Option<DepthSelection> routing = Options.Routing();
    private readonly Option<int?> streams = Options.Streams();
    private readonly Option<string?> quantize = Options.Quantize();
    private readonly ExpertOptionSet experts = new();

    /// <summary>Adds the options to a command.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[paths, threads, contextLength, kv, activations, layers, routing, streams, quantize, .. experts.All])
        {
            command.Add(option);
        }
    }

    /// <summary>The streams asked for, or null.</summary>
    public int? Streams(ParseResult parse) => parse.GetValue(streams);

    /// <summary>Loads the model.</summary>
    /// <param name="parse">The command line.</param>
    /// <param name="cancellationToken">Ends the loading.</param>
    /// <param name="require">Refuses a model (its plan, its path) that the command's own options do not fit, before weights are loaded.</param>
    /// <exception cref="UsageException">An option is out of range.</exception>
    /// <exception cref="EngineException">The model cannot be loaded, or an option does not fit it.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public LoadedModel Load(ParseResult parse, CancellationToken cancellationToken, Action<ModelPlan, string>? require = null)
    {
        LanguageModelOptions options = experts.Apply(parse, new LanguageModelOptions
        {
            Threads = parse.GetValue(threads),
            ContextLength = parse.GetValue(contextLength),
            KvFormat = parse.GetValue(kv),
            ActivationPrecision = parse.GetValue(activations),
            Layers = parse.GetValue(layers),
            DepthSelection = parse.GetValue(routing),
            Quantize = parse.GetValue(quantize),
        });
        // First what is wrong whatever the model.
        UsageException.Check(options.Validate);
        string[] given = DefaultModel.Resolve(parse.GetValue(paths));
        Action<ModelPlan, string>? needs = experts.Needs(parse);
        if (parse.GetResult(routing) is { Implicit: false })
        {
            needs += (plan, path) => ModelNeeds.ExpertChoice(plan, path, routing.Name);
        }
        if (Streams(parse) is { } count)
        {
            needs += (plan, path) => ModelNeeds.StreamSet(plan, path, streams.Name, count);
        }
        return LoadedModel.Load(() => ModelFiles.Open(given, needs + require), given[0], options, cancellationToken) with { Streams = Streams(parse) };
    }
}
