using System.Diagnostics;
using Engine;
using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;
using Spectre.Console;

namespace Host.CommandLine;

/// <summary>A model, and how long it took to load.</summary>
internal sealed record LoadedModel(LanguageModel Model, TimeSpan LoadTime) : IDisposable
{
    /// <summary>The streams that requests ask for; null for the model's first set.</summary>
    public int? Streams { get; init; }

    /// <summary>Loads a model; where standard error is a terminal, a bar shows how far it is.</summary>
    /// <exception cref="UsageException">An option is out of range.</exception>
    /// <exception cref="EngineException">The model cannot be loaded.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static LoadedModel Load(
        string path, LanguageModelOptions options, CancellationToken cancellationToken, Action<ModelPlan, string>? require = null) =>
        Load(() => ModelFiles.Open([path], require), path, options, cancellationToken);

    /// <summary>Likewise, from a checkpoint that is opened within the time that is measured; the model owns it.</summary>
    public static LoadedModel Load(Func<Checkpoint> open, string path, LanguageModelOptions options, CancellationToken cancellationToken)
    {
        UsageException.Check(options.Validate);
        long start = Stopwatch.GetTimestamp();
        LanguageModel model = Console.IsErrorRedirected
            ? LanguageModel.Load(open(), options, cancellationToken)
            : LoadWithProgress(open, path, options, cancellationToken);
        TimeSpan time = Stopwatch.GetElapsedTime(start);
        ExpertOptionSet.Note(model, options);
        return new LoadedModel(model, time);
    }

    public void Dispose() => Model.Dispose();

    private static LanguageModel LoadWithProgress(
        Func<Checkpoint> open, string path, LanguageModelOptions options, CancellationToken cancellationToken) =>
        Terminal.Error.Progress().AutoClear(true).HideCompleted(true).Start(context =>
        {
            ProgressTask task = context.AddTask($"loading {Markup.Escape(Path.GetFileName(path))}", maxValue: 1);
            return LanguageModel.Load(open(), options with { Progress = new Report(task) }, cancellationToken);
        });

    /// <summary>Unlike <see cref="Progress{T}"/>, on the calling thread: loading is done when the last report is.</summary>
    private sealed class Report(ProgressTask task) : IProgress<LoadProgress>
    {
        void IProgress<LoadProgress>.Report(LoadProgress value) => task.Value = value.Fraction;
    }
}
