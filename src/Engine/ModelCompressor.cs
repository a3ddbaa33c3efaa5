using Engine.Checkpoints;
using Engine.Compression;
using Engine.Execution;
using Engine.Plans;

namespace Engine;

/// <summary>
/// Makes smaller models of models: leaves layers, heads, experts or neurons out, prunes and quantizes the linear maps of layers, calibrated with a text or not, and writes a Hugging Face folder or a GGUF.
/// Work that is interrupted goes on where it was when it is begun again with the same model, text and options.
/// <code>
/// using var compressor = ModelCompressor.Open("model", "model-24", new() { Prune = SparsityPattern.TwoOfFour });
/// compressor.Run();
/// compressor.Write();
/// </code>
/// </summary>
public sealed class ModelCompressor : IDisposable
{
    private const int RowsPerStep = 256;

    private readonly Checkpoint source;
    private readonly CompressionJob job;
    private readonly IReadOnlyList<int[]> calibration;
    private readonly int? threads;

    private ModelCompressor(Checkpoint source, CompressionJob job, IReadOnlyList<int[]> calibration, int? threads)
    {
        this.source = source;
        this.job = job;
        this.calibration = calibration;
        this.threads = threads;
    }

    /// <summary>Layers that are compressed one after the other.</summary>
    public int Layers => job.Layers;

    /// <summary>Begins a compression, or goes on with one.</summary>
    /// <param name="source">The model: anything that <see cref="CheckpointFile.Open"/> opens.</param>
    /// <param name="output">The folder to make, or the GGUF file where <see cref="CompressionOptions.Gguf"/> says so. Unfinished work lies in a folder beside it.</param>
    /// <param name="options">What is done.</param>
    /// <param name="calibration">Token sequences that calibrated methods look at, each no longer than the model's context; null for none.</param>
    /// <param name="threads">Threads that the model is run with; null: one per processor.</param>
    /// <param name="progress">Told how far it is where the text is run to find what is left out.</param>
    /// <param name="cancellationToken">Ends that.</param>
    /// <exception cref="EngineException">Model, options and output do not go together, or unfinished work of another kind is in the way.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static ModelCompressor Open(
        string source, string output, CompressionOptions options, IReadOnlyList<int[]>? calibration = null, int? threads = null,
        IProgress<CompressionProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(source);
        ArgumentException.ThrowIfNullOrEmpty(output);
        ArgumentNullException.ThrowIfNull(options);
        calibration ??= [];
        CompressionJob.Require(options, calibration);
        Checkpoint checkpoint = CheckpointFile.Open(source);
        try
        {
            CompressedOutput.Require(checkpoint, output, options);
            if (options.ChangesStructure)
            {
                StructureStatistics statistics = Watch(checkpoint, options, calibration, threads, progress, cancellationToken);
                checkpoint = StructureCut.Apply(checkpoint, options, statistics);
            }
            return new ModelCompressor(checkpoint, CompressionJob.Open(checkpoint, output, options, calibration), calibration, threads);
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <summary>Compresses the layers that are not finished.</summary>
    /// <param name="progress">Told how far it is, on the calling thread.</param>
    /// <param name="cancellationToken">Ends it; finished layers are found again the next time.</param>
    /// <exception cref="EngineException">A weight or an activation is not finite, or a file cannot be written.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public void Run(IProgress<CompressionProgress>? progress = null, CancellationToken cancellationToken = default) =>
        job.Run(Calibrate, value => progress?.Report(value), cancellationToken);

    /// <summary>The model as it is now, its finished layers compressed; disposed before this.</summary>
    public Checkpoint OpenCompressed() => job.OpenCompressed();

    /// <summary>Writes the output, which appears when it is complete, and deletes the unfinished work beside it.</summary>
    /// <exception cref="EngineException">A file cannot be written.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled; the layers stay, and nothing else.</exception>
    public void Write(CancellationToken cancellationToken = default) => job.Write(cancellationToken);

    /// <inheritdoc/>
    public void Dispose()
    {
        job.Dispose();
        source.Dispose();
    }

    /// <summary>Runs the calibration text through as much of the model as is needed.</summary>
    private void Calibrate(
        Checkpoint model, LinearStatistics statistics, int? lastStep, Action<double> progress, CancellationToken cancellationToken)
    {
        using LanguageModel loaded = LanguageModel.Load(
            model, Loading(calibration, threads) with { Layers = lastStep is null ? null : $"0-{lastStep}" }, cancellationToken);
        loaded.LinearObserver = statistics;
        Feed(loaded, calibration, statistics.Flush, progress, cancellationToken);
    }

    /// <summary>Runs the calibration text through the whole of a model, to see what each part of it does.</summary>
    private static StructureStatistics Watch(
        Checkpoint checkpoint, CompressionOptions options, IReadOnlyList<int[]> calibration, int? threads, IProgress<CompressionProgress>? progress,
        CancellationToken cancellationToken)
    {
        StructureCut.Require(checkpoint, ModelPlanReader.Read(checkpoint), options);
        using LanguageModel loaded = LanguageModel.Load(checkpoint.Path, Loading(calibration, threads), cancellationToken);
        var statistics = new StructureStatistics(loaded.Plan, checkpoint, options.DropHeads > 0);
        loaded.LayerObserver = options.DropLayers + options.ShareLayers > 0 ? statistics : null;
        loaded.ExpertObserver = options.DropExperts + options.MergeExperts > 0 ? statistics : null;
        loaded.LinearObserver = options.Narrow > 0 || options.DropHeads > 0 || options.MergeExperts > 0 ? statistics : null;
        Feed(loaded, calibration, static () => { }, part => progress?.Report(new CompressionProgress("finding what to leave out", part)), cancellationToken);
        return statistics;
    }

    private static LanguageModelOptions Loading(IReadOnlyList<int[]> calibration, int? threads) => new()
    {
        Threads = threads,
        KvFormat = KvFormat.F32,
        MaxRowsPerStep = RowsPerStep,
        KeepsIdleNeurons = true,
        KvTokens = calibration.Max(static sequence => sequence.Length),
    };

    private static void Feed(
        LanguageModel model, IReadOnlyList<int[]> calibration, Action behindStep, Action<double> progress, CancellationToken cancellationToken)
    {
        foreach ((int index, int[] sequence) in calibration.Index())
        {
            using LogitsSession session = model.CreateLogitsSession();
            foreach (int[] step in sequence.Chunk(RowsPerStep))
            {
                cancellationToken.ThrowIfCancellationRequested();
                session.Feed(step, firstLogits: step.Length, static (_, _) => { });
                behindStep();
            }
            progress((index + 1.0) / calibration.Count);
        }
    }
}
