using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Coded;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>Writes a compressed model as a Hugging Face folder, completely or not at all.</summary>
internal static class CompressedOutput
{
    private const string QuantizationKey = "quantization_config";

    /// <summary>What is copied beside the weights: configurations, tokenizers, templates, texts.</summary>
    private static readonly string[] copied = [".json", ".txt", ".model", ".jinja", ".md"];

    /// <summary>Checks, before work is begun, that the output can be written where it is asked for.</summary>
    /// <exception cref="EngineException">Something is there, or the model cannot become a folder.</exception>
    public static void Require(Checkpoint source, string output, CompressionOptions options)
    {
        if (Path.GetFullPath(source.Path) == Path.GetFullPath(output))
        {
            throw new EngineException("the model cannot be compressed onto itself", output);
        }
        if (options.Gguf is not null)
        {
            AtomicFile.Check(output);
            return;
        }
        if (File.Exists(output) || (Directory.Exists(output) && Directory.EnumerateFileSystemEntries(output).Any()))
        {
            throw new EngineException("the folder exists already, and nothing in it is overwritten: give another, or delete it", output);
        }
        if (source is GgufVocabulary or Llama2cFile)
        {
            throw new EngineException(
                "this format has no tokenizer that a folder could hold: give a format of GGUF to write that, or the Hugging Face folder of the model", source.Path);
        }
    }

    /// <summary>Writes the folder.</summary>
    /// <param name="compressed">The model, all layers compressed.</param>
    /// <param name="workplace">Where it is written first; what is there is an earlier try.</param>
    /// <param name="output">Where it appears.</param>
    /// <param name="options">What was done.</param>
    /// <param name="matrices">The compressed matrices.</param>
    /// <param name="plan">The model's plan.</param>
    /// <param name="cancellationToken">Ends it; nothing appears.</param>
    /// <exception cref="EngineException">A file cannot be written, or something has appeared at the output.</exception>
    public static void WriteFolder(
        Checkpoint compressed, string workplace, string output, CompressionOptions options, CompressedMatrices matrices, ModelPlan plan,
        CancellationToken cancellationToken)
    {
        try
        {
            if (Directory.Exists(workplace))
            {
                Directory.Delete(workplace, recursive: true);
            }
            SafetensorsWriter.WriteFolder(
                workplace, [.. compressed.TensorNames.SelectMany(name => Sources(compressed, name, options, matrices))],
                new Dictionary<string, string> { ["format"] = "pt" }, cancellationToken: cancellationToken);
            foreach (string name in compressed.AssetNames.Where(IsCopied))
            {
                byte[] content = compressed.ReadAsset(name) ?? throw new EngineException("the file is gone", compressed.Path, name);
                AtomicFile.Write(Path.Combine(workplace, name), stream => stream.Write(content), cancellationToken);
            }
            AtomicFile.Write(Path.Combine(workplace, HfAssets.ConfigName), stream =>
            {
                using var writer = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true });
                Config(compressed, options, matrices, plan).WriteTo(writer);
            }, cancellationToken);
            if (Directory.Exists(output))
            {
                Directory.Delete(output); // empty, or this fails
            }
            Directory.Move(workplace, output);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the folder cannot be written: {exception.Message}", output, inner: exception);
        }
    }

    private static IReadOnlyList<TensorSource> Sources(
        Checkpoint compressed, string name, CompressionOptions options, CompressedMatrices matrices)
    {
        if (options.Quantize is not null && matrices.Covers(name))
        {
            return matrices.Packed(name, options);
        }
        TensorView tensor = compressed[name];
        // Looked up again when its turn comes: a tensor that is made of several need not be kept until then.
        return [new TensorSource(name, tensor.DType, tensor.Shape, stream => TensorSource.From(compressed[name]).WriteTo(stream))];
    }

    /// <summary>Not what describes the weights that were read.</summary>
    private static bool IsCopied(string name) =>
        name != HfAssets.ConfigName && !HfFolder.IsIndex(name) && !QuantizedFolder.IsSettings(name) && (copied.Contains(Path.GetExtension(name)) || name.StartsWith("LICENSE", StringComparison.Ordinal));

    private static JsonObject Config(Checkpoint compressed, CompressionOptions options, CompressedMatrices matrices, ModelPlan plan)
    {
        var config = (JsonObject)compressed.Config.DeepClone();
        if (options.Quantize is { } format)
        {
            config[QuantizationKey] = CompressedTensors.Config(format, options.Prune, Ignored(compressed, matrices, plan), options.OrdersInputs);
        }
        return config;
    }

    /// <summary>Modules whose matrices stay as they were; a tied head is one, too.</summary>
    private static IEnumerable<string> Ignored(Checkpoint compressed, CompressedMatrices matrices, ModelPlan plan)
    {
        string[] tables = [plan.Embedding.Tokens.Tensor, plan.Embedding.Positions?.Tensor ?? ""];
        return compressed.TensorNames
            .Where(name => !matrices.Covers(name) && !tables.Contains(name) && name.EndsWith(CompressionJob.WeightSuffix, StringComparison.Ordinal))
            .Where(name => compressed[name].Shape.Length == 2)
            .Select(static name => name[..^CompressionJob.WeightSuffix.Length])
            .Append("lm_head").Distinct();
    }
}
