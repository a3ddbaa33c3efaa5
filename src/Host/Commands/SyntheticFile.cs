using Engine;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Pruning;
using Host.CommandLine;

namespace Host.Commands;

/// <summary>
/// <c>bench --synthetic SHAPE[:FORMAT[:ZEROS]]</c>: random weights in the shape of a real model, as a GGUF or, for models that GGUF has no names for, as a
/// Hugging Face folder. The same arguments give the same files.
/// </summary>
internal static class SyntheticFile
{
    private const int Seed = 1;

    private static readonly DType[] FolderFormats = [DType.BF16, DType.F16, DType.F32];

    /// <summary>The shapes, for help: those of files, then those of folders.</summary>
    public static string Shapes { get; } =
        $"{Names(SyntheticShape.Presets.Keys)} (a GGUF; with :FORMAT, and :{SparsityPattern.TwoOfFour} for two zeros in every four weights of the layers, or :0.7 for such a part of them), {Names(SyntheticFolderShape.Presets.Keys)} (a folder)";

    public static int Write(string description, string path, bool asJson, CancellationToken cancellationToken)
    {
        string[] parts = description.Split(':', 3);
        SyntheticResult result = parts switch
        {
            [{ } name, { } format] when SyntheticShape.Presets.TryGetValue(name, out SyntheticShape? shape) =>
                WriteFile(name, shape, format, path, cancellationToken),
            [{ } name, { } format, { } zeros] when SyntheticShape.Presets.TryGetValue(name, out SyntheticShape? shape) =>
                WriteFile(name, shape with { Sparsity = Zeros(zeros) }, format, path, cancellationToken),
            [{ } name] when SyntheticFolderShape.Presets.TryGetValue(name, out SyntheticFolderShape? shape) =>
                WriteFolder(name, shape, DType.BF16, path, cancellationToken),
            [{ } name, { } format] when SyntheticFolderShape.Presets.TryGetValue(name, out SyntheticFolderShape? shape) =>
                WriteFolder(name, shape, FolderFormat(format), path, cancellationToken),
            _ => throw new UsageException($"--synthetic: expected SHAPE:FORMAT with a shape of {Shapes}; found '{description}'"),
        };
        if (asJson)
        {
            Terminal.WriteJson(result, HostJson.Default.SyntheticResult);
        }
        else
        {
            Console.Out.WriteLine($"{path}: {result.Shape} in {result.Format}, {result.Bytes / 1e6:F1} MB");
        }
        return ExitCode.Success;
    }

    private static SyntheticResult WriteFile(string name, SyntheticShape shape, string format, string path, CancellationToken cancellationToken)
    {
        QuantizationRecipe recipe = ConvertCommand.Recipe(format, "--synthetic");
        SyntheticModel.WriteGguf(path, shape, recipe, Seed, cancellationToken);
        return new SyntheticResult(path, name, recipe.Name, new FileInfo(path).Length);
    }

    private static SyntheticResult WriteFolder(
        string name, SyntheticFolderShape shape, DType format, string path, CancellationToken cancellationToken)
    {
        if (File.Exists(path))
        {
            throw new EngineException("the shape is written as a folder, and there is a file of that name", path);
        }
        SyntheticFolder.Write(path, shape, format, Seed, cancellationToken);
        return new SyntheticResult(
            path, name, format.ToString(), new DirectoryInfo(path).EnumerateFiles().Sum(static file => file.Length));
    }

    private static SparsityPattern Zeros(string text)
    {
        try
        {
            return SparsityPattern.Parse(text);
        }
        catch (EngineException refused)
        {
            throw new UsageException($"--synthetic: {refused.Reason}");
        }
    }

    private static DType FolderFormat(string name)
    {
        int found = Array.FindIndex(FolderFormats, format => format.ToString().Equals(name, StringComparison.OrdinalIgnoreCase));
        return found >= 0
            ? FolderFormats[found]
            : throw new UsageException(
                $"--synthetic: a folder is written in {string.Join(", ", FolderFormats)}, and quantized when it is loaded (--quantize); found '{name}'");
    }

    private static string Names(IEnumerable<string> names) => string.Join(", ", names.Order(StringComparer.Ordinal));
}

/// <summary>What <c>bench --synthetic --json</c> prints.</summary>
internal sealed record SyntheticResult(string Path, string Shape, string Format, long Bytes);
