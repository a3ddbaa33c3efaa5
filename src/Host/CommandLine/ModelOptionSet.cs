using System.CommandLine;
using System.Diagnostics;
using Engine;
using Engine.Execution;
using Spectre.Console;

namespace Host.CommandLine;

/// <summary>Which model to load and how: <c>-m</c>, <c>--threads</c>, <c>--context</c>, <c>--kv</c>, <c>--activations</c>,
/// <c>--layers</c>, <c>--quantize</c>.</summary>
internal sealed class ModelOptionSet(KvFormat kvByDefault = KvFormat.F16)
{
    private readonly Option<string?> path = Options.Model();
    private readonly Option<int?> threads = Options.Threads();
    private readonly Option<int?> contextLength = Options.ContextLength();
    private readonly Option<KvFormat> kv = Options.Kv(kvByDefault);
    private readonly Option<ActivationPrecision> activations = Options.Activations();
    private readonly Option<string?> layers = Options.Layers();
    private readonly Option<string?> quantize = Options.Quantize();

    /// <summary>Adds the options to a command.</summary>
    public void AddTo(Command command)
    {
        command.Add(path);
        command.Add(threads);
        command.Add(contextLength);
        command.Add(kv);
        command.Add(activations);
        command.Add(layers);
        command.Add(quantize);
    }

    /// <summary>Loads the model.</summary>
    /// <exception cref="UsageException">An option is out of range.</exception>
    /// <exception cref="EngineException">The model cannot be loaded.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public LoadedModel Load(ParseResult parse, CancellationToken cancellationToken)
    {
        LanguageModelOptions options = new()
        {
            Threads = parse.GetValue(threads),
            ContextLength = parse.GetValue(contextLength),
            KvFormat = parse.GetValue(kv),
            ActivationPrecision = parse.GetValue(activations),
            Layers = parse.GetValue(layers),
            Quantize = parse.GetValue(quantize),
        };
        // First what is wrong whatever the model.
        UsageException.Check(options.Validate);
        return LoadedModel.Load(DefaultModel.Resolve(parse.GetValue(path)), options, cancellationToken);
    }
}

/// <summary>A model, and how long it took to load.</summary>
internal sealed record LoadedModel(LanguageModel Model, TimeSpan LoadTime) : IDisposable
{
    /// <summary>Loads a model; where standard error is a terminal, a bar shows how far it is.</summary>
    /// <exception cref="UsageException">An option is out of range.</exception>
    /// <exception cref="EngineException">The model cannot be loaded.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static LoadedModel Load(string path, LanguageModelOptions options, CancellationToken cancellationToken)
    {
        UsageException.Check(options.Validate);
        long start = Stopwatch.GetTimestamp();
        LanguageModel model = Console.IsErrorRedirected
            ? LanguageModel.Load(path, options, cancellationToken)
            : LoadWithProgress(path, options, cancellationToken);
        return new LoadedModel(model, Stopwatch.GetElapsedTime(start));
    }

    public void Dispose() => Model.Dispose();

    private static LanguageModel LoadWithProgress(string path, LanguageModelOptions options, CancellationToken cancellationToken) =>
        Terminal.Error.Progress().AutoClear(true).HideCompleted(true).Start(context =>
        {
            ProgressTask task = context.AddTask($"loading {Markup.Escape(Path.GetFileName(path))}", maxValue: 1);
            return LanguageModel.Load(path, options with { Progress = new Report(task) }, cancellationToken);
        });

    /// <summary>Unlike <see cref="Progress{T}"/>, on the calling thread: loading is done when the last report is.</summary>
    private sealed class Report(ProgressTask task) : IProgress<LoadProgress>
    {
        void IProgress<LoadProgress>.Report(LoadProgress value) => task.Value = value.Fraction;
    }
}
