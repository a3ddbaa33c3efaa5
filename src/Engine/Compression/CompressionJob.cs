using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;

namespace Engine.Compression;

/// <summary>
/// Runs a model over the calibration text.
/// </summary>
/// <param name="model">The model, its finished layers compressed; the callee disposes it.</param>
/// <param name="statistics">Watches; flushed after every step.</param>
/// <param name="lastStep">The last step that must run, or null for all.</param>
/// <param name="progress">Told which part of the text has run, 0 … 1.</param>
/// <param name="cancellationToken">Ends it.</param>
internal delegate void Calibration(
    Checkpoint model, LinearStatistics statistics, int? lastStep, Action<double> progress, CancellationToken cancellationToken);

/// <summary>How far a compression has come.</summary>
/// <param name="Stage">What is done now, for people.</param>
/// <param name="Fraction">0 … 1 of all.</param>
public readonly record struct CompressionProgress(string Stage, double Fraction);

/// <summary>
/// Compresses a checkpoint layer by layer. One layer is in memory at a time; finished ones lie in a folder beside the output until it is complete.
/// </summary>
internal sealed class CompressionJob : IDisposable
{
    /// <summary>What the names of matrices end with that can be quantized.</summary>
    public const string WeightSuffix = ".weight";

    private const int SampleBytes = 4096;

    private readonly Checkpoint source, raw;
    private readonly CompressionOptions options;
    private readonly CompressionTargets targets;
    private readonly LayerStore store;
    private readonly CompressedMatrices matrices;
    private readonly string output;

    private CompressionJob(Checkpoint source, string output, CompressionOptions options, CompressionTargets targets, LayerStore store)
    {
        this.source = source;
        raw = source is GgufVocabulary vocabulary ? vocabulary.Source : source;
        this.output = output;
        this.options = options;
        this.targets = targets;
        this.store = store;
        matrices = new CompressedMatrices(store, targets, options.Quantize);
    }

    /// <summary>Layers in all.</summary>
    public int Layers => targets.Layers.Count;

    /// <summary>Begins, or goes on with what was begun.</summary>
    /// <param name="source">The model; not owned.</param>
    /// <param name="output">The folder or GGUF file to make.</param>
    /// <param name="options">What is done.</param>
    /// <param name="calibration">The sequences of the calibration text; empty where none is needed.</param>
    /// <exception cref="EngineException">Options, model and output do not go together, or unfinished work of another kind is in the way.</exception>
    public static CompressionJob Open(Checkpoint source, string output, CompressionOptions options, IReadOnlyList<int[]> calibration)
    {
        Require(options, calibration);
        output = Path.TrimEndingDirectorySeparator(Path.GetFullPath(output));
        CompressedOutput.Require(source, output, options);
        Func<string, DType>? types = options.Gguf is null ? null : GgufConverter.Types(source, options.Gguf);
        CompressionTargets targets = CompressionTargets.Find(source, options.ChangesWeights, options.Method == RoundingMethod.Gptq ? types : null);
        RequireFit(source, targets, options);
        IReadOnlyList<int[]> text = options.NeedsCalibration ? calibration : [];
        LayerStore store = LayerStore.Open(output + ".partial", options.ToString(), Fingerprint(source, options, text));
        return new CompressionJob(source, output, options, targets, store);
    }

    /// <summary>Checks that options and text go together.</summary>
    /// <exception cref="EngineException">They do not.</exception>
    public static void Require(CompressionOptions options, IReadOnlyList<int[]> calibration)
    {
        options.Validate();
        if ((options.NeedsCalibration || options.ChangesStructure) && calibration.Sum(static sequence => sequence.Length) == 0)
        {
            throw new EngineException("a method that is calibrated needs a text, and it has no tokens", item: "calibration");
        }
    }

    /// <summary>The model with its finished layers compressed; the caller disposes it before this.</summary>
    /// <param name="layers">Only so many from the first on; null for all.</param>
    public Checkpoint OpenCompressed(int? layers = null)
    {
        var compressed = new CompressedCheckpoint(
            raw, matrices, layers ?? Layers, source is GgufVocabulary vocabulary ? vocabulary.RawName : static name => name);
        return source is GgufVocabulary ? new GgufVocabulary(compressed) : compressed;
    }

    /// <summary>Compresses the layers that are not finished.</summary>
    /// <param name="calibrate">Runs the calibration text.</param>
    /// <param name="report">Told how far it is.</param>
    /// <param name="cancellationToken">Ends it; finished layers stay.</param>
    /// <exception cref="EngineException">A weight or an activation is not finite, or a file cannot be written.</exception>
    public void Run(Calibration calibrate, Action<CompressionProgress> report, CancellationToken cancellationToken)
    {
        var compressor = new MatrixCompressor(options, source);
        int perPass = options.NeedsCalibration ? options.LayersPerPass : 1;
        foreach (int[] together in Enumerable.Range(0, Layers).Chunk(perPass))
        {
            int[] pass = [.. together.Where(layer => !store.Has(layer))];
            if (pass.Length == 0)
            {
                continue;
            }
            // What is done weighs as much as finding out what to do.
            double width = options.NeedsCalibration ? 0.5 : 0;
            LinearStatistics? statistics = options.NeedsCalibration ? Observe(pass, together[0], width) : null;
            foreach ((int index, int layer) in pass.Index())
            {
                report(new CompressionProgress($"layer {layer + 1} of {Layers}", (pass[0] + pass.Length * (width + (1 - width) * index / pass.Length)) / Layers));
                List<TensorSource> tensors = [];
                foreach (TargetInput input in targets.Layers[layer].Inputs)
                {
                    tensors.AddRange(compressor.Compress(input, statistics, cancellationToken));
                }
                store.Save(layer, tensors, cancellationToken);
            }
        }
        report(new CompressionProgress("done", 1));

        // What of the pass is finished already counts as it was before, as if there had been no interruption.
        LinearStatistics Observe(int[] pass, int first, double width)
        {
            var statistics = new LinearStatistics(pass.SelectMany(layer => targets.Layers[layer].Inputs), options.NeedsMoments);
            int? last = targets.CanStopEarly ? pass.Max(layer => targets.Layers[layer].LastStep) : null;
            string stage = $"calibrating layer {pass[0] + 1} of {Layers}";
            calibrate(
                OpenCompressed(first), statistics, last,
                part => report(new CompressionProgress(stage, (pass[0] + pass.Length * width * part) / Layers)), cancellationToken);
            return statistics;
        }
    }

    /// <summary>Writes the output, which appears when it is complete, and deletes what lay beside it.</summary>
    /// <exception cref="EngineException">A layer is not finished, or a file cannot be written.</exception>
    public void Write(CancellationToken cancellationToken)
    {
        if (Enumerable.Range(0, Layers).FirstOrDefault(layer => !store.Has(layer), -1) is >= 0 and var missing)
        {
            throw new InvalidOperationException($"layer {missing} is not finished");
        }
        using (Checkpoint compressed = OpenCompressed())
        {
            if (options.Gguf is { } recipe)
            {
                // In the folder first, which is deleted whatever a process that is killed leaves in it.
                string written = Path.Combine(store.Folder, "result.gguf");
                GgufConverter.Convert(compressed, written, recipe, cancellationToken);
                AtomicFile.Move(written, output);
            }
            else
            {
                CompressedOutput.WriteFolder(
                    compressed, Path.Combine(store.Folder, "result"), output, options, matrices, targets.Plan, cancellationToken);
            }
        }
        store.Delete();
    }

    /// <inheritdoc/>
    public void Dispose() => store.Dispose();

    private static void RequireFit(Checkpoint source, CompressionTargets targets, CompressionOptions options)
    {
        foreach (TargetMatrix matrix in targets.Matrices)
        {
            string tensor = matrix.Place.Tensor;
            DType type = source[tensor].DType;
            if (options.Gguf is null && type is not (DType.F32 or DType.F16 or DType.BF16))
            {
                throw new EngineException($"expected F32, F16 or BF16, found {type}: it is quantized already", source.Path, tensor);
            }
            try
            {
                options.Prune?.RequireFit(matrix.Columns, tensor);
                options.Quantize?.RequireFit(matrix.Columns, tensor);
            }
            catch (EngineException misfit)
            {
                throw new EngineException(misfit.Reason, source.Path, tensor, misfit);
            }
            bool named = matrix.Place.Slice is null && !matrix.Transposed && tensor.EndsWith(WeightSuffix, StringComparison.Ordinal);
            if (options.Quantize is not null && !named)
            {
                throw new EngineException(
                    "expected a matrix [outputs, inputs] with a name of its own, found several in one tensor, or one that is stored transposed: "
                    + "such models can be pruned, but not be stored as integers", source.Path, tensor);
            }
        }
    }

    /// <summary>A digest of all that the result depends on; of tensors, of a few bytes of each.</summary>
    private static string Fingerprint(Checkpoint source, CompressionOptions options, IReadOnlyList<int[]> calibration)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Append(options.ToString());
        Append(source.Config.ToJsonString());
        foreach (string name in source.TensorNames)
        {
            TensorView tensor = source[name];
            Append($"{name} {tensor.DType} {tensor.DescribeShape()}");
            tensor = tensor.Coded?.Parts[0] ?? tensor;
            int length = (int)Math.Min(SampleBytes, tensor.ByteLength);
            hash.AppendData(tensor.Slice(0, length));
            hash.AppendData(tensor.Slice((tensor.ByteLength - length) / 2, length));
            hash.AppendData(tensor.Slice(tensor.ByteLength - length, length));
        }
        foreach (int[] sequence in calibration)
        {
            Append($"{sequence.Length}");
            hash.AppendData(MemoryMarshal.AsBytes<int>(sequence));
        }
        return Convert.ToHexString(hash.GetHashAndReset());

        void Append(string text)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text), length = new byte[sizeof(int)];
            BinaryPrimitives.WriteInt32LittleEndian(length, bytes.Length);
            hash.AppendData(length);
            hash.AppendData(bytes);
        }
    }
}
