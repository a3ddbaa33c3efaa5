using System.CommandLine;
using Engine;
using Engine.Execution;
using Engine.Plans;

namespace Host.CommandLine;

/// <summary>How a model is loaded and run, whatever a command does with it: <c>--threads</c>, <c>--context</c>, <c>--activations</c>, <c>--layers</c>,
/// <c>--quantize</c>, and what <see cref="ExpertOptionSet"/> has.</summary>
/// <param name="contextOption">What stands in for <c>--context</c> in a command where it means more; null for the usual one.</param>
internal sealed class RunOptionSet(Option<int?>? contextOption = null)
{
    private readonly Option<int?> threads = Options.Threads();
    private readonly Option<int?> contextLength = contextOption ?? Options.ContextLength();
    private readonly Option<ActivationPrecision> activations = Options.Activations();
    private readonly Option<string?> layers = Options.Layers();
    private readonly Option<string?> quantize = Options.Quantize();
    private readonly ExpertOptionSet experts = new();

    /// <summary>The options.</summary>
    public IReadOnlyList<Option> All => [threads, contextLength, activations, layers, quantize, .. experts.All];

    /// <summary>Adds what was asked for.</summary>
    public LanguageModelOptions Apply(ParseResult parse, LanguageModelOptions options) => experts.Apply(parse, options with
    {
        Threads = parse.GetValue(threads),
        ContextLength = parse.GetValue(contextLength),
        ActivationPrecision = parse.GetValue(activations),
        Layers = parse.GetValue(layers),
        Quantize = parse.GetValue(quantize),
    });

    /// <summary>Refuses a model that what was asked for does not fit; null where nothing was.</summary>
    public Action<ModelPlan, string>? Needs(ParseResult parse) => experts.Needs(parse);
}
