using Engine.Checkpoints.Writing;
using Host.CommandLine;

namespace Host.Commands;

/// <summary>
/// <c>bench --synthetic SHAPE:FORMAT</c>: a GGUF of random weights in the shape of a real model. The same arguments give the same file.
/// </summary>
internal static class SyntheticFile
{
    private const int Seed = 1;

    public static int Write(string description, string path, bool asJson, CancellationToken cancellationToken)
    {
        if (description.Split(':') is not [{ } shapeName, { } formatName]
            || !SyntheticShape.Presets.TryGetValue(shapeName, out SyntheticShape? shape))
        {
            string shapes = string.Join(", ", SyntheticShape.Presets.Keys.Order(StringComparer.Ordinal));
            throw new UsageException($"--synthetic: expected SHAPE:FORMAT with a shape of {shapes}, found '{description}'");
        }
        QuantizationRecipe recipe = ConvertCommand.Recipe(formatName, "--synthetic");
        SyntheticModel.WriteGguf(path, shape, recipe, Seed, cancellationToken);
        SyntheticResult result = new(path, shapeName, recipe.Name, new FileInfo(path).Length);
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
}

/// <summary>What <c>bench --synthetic --json</c> prints.</summary>
internal sealed record SyntheticResult(string Path, string Shape, string Format, long Bytes);
