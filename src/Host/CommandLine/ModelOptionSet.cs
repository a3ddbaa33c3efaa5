using System.CommandLine;
using Engine;
using Engine.Execution;
using Engine.Plans;

namespace Host.CommandLine;

/// <summary>Which model to load and how: <c>-m</c>, <c>--kv</c>, <c>--routing</c>, <c>--streams</c>, <c>--mask</c>, and what <see cref="RunOptionSet"/> has.</summary>
/// <param name="kvByDefault">How keys and values are stored where <c>--kv</c> does not say.</param>
/// <param name="contextOption">What stands in for <c>--context</c> in a command where it means more; null for the usual one.</param>
internal sealed class ModelOptionSet(KvFormat kvByDefault = KvFormat.F16, Option<int?>? contextOption = null)
{
    private readonly Option<string[]> paths = Options.Models();
    private readonly Option<KvFormat> kv = Options.Kv(kvByDefault);
    private readonly Option<DepthSelection> routing = Options.Routing();
    private readonly Option<int?> streams = Options.Streams();
    private readonly Option<string?> mask = Options.Mask();
    private readonly RunOptionSet run = new(contextOption);

    /// <summary>Adds the options to a command.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[paths, .. run.All, kv, routing, streams, mask])
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
        LanguageModelOptions options = run.Apply(
            parse, new LanguageModelOptions { KvFormat = parse.GetValue(kv), DepthSelection = parse.GetValue(routing) });
        // First what is wrong whatever the model.
        UsageException.Check(options.Validate);
        string[] given = DefaultModel.Resolve(parse.GetValue(paths));
        string? masks = parse.GetValue(mask);
        if (masks is not null && given.Length > 1)
        {
            throw new UsageException($"{mask.Name}: belongs to one model; found {given.Length}");
        }
        Action<ModelPlan, string>? needs = run.Needs(parse);
        if (parse.GetResult(routing) is { Implicit: false })
        {
            needs += (plan, path) => ModelNeeds.ExpertChoice(plan, path, routing.Name);
        }
        if (Streams(parse) is { } count)
        {
            needs += (plan, path) => ModelNeeds.StreamSet(plan, path, streams.Name, count);
        }
        return LoadedModel.Load(() => ModelFiles.Open(given, needs + require, masks), given[0], options, cancellationToken) with { Streams = Streams(parse) };
    }
}
