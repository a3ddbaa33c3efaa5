using Engine.Checkpoints.Writing;
using Host.CommandLine;

namespace Host.Commands;

/// <summary>
/// <c>bench --synthetic SHAPE:FORMAT</c>: a GGUF of random weights in the shape of a real model; or a folder in one of the shapes of
/// Mixture-of-Recursions. The same arguments give the same file.
/// </summary>
internal static class SyntheticFile
{
    private const int Seed = 1;

    public static int Write(string description, string path, bool asJson, CancellationToken cancellationToken)
    {
        if (SyntheticRecursion.Presets.TryGetValue(description, out (int Layers, int Recursions) recursive))
        {
            SyntheticRecursion.WriteFolder(path, recursive.Layers, recursive.Recursions, Seed);
            return Report(new SyntheticResult(path, description, "BF16", Directory.GetFiles(path).Sum(static file => new FileInfo(file).Length)), asJson);
        }
        if (description.Split(':') is not [{ } shapeName, { } formatName]
            || !SyntheticShape.Presets.TryGetValue(shapeName, out SyntheticShape? shape))
        {
            string shapes = string.Join(", ", SyntheticShape.Presets.Keys.Order(StringComparer.Ordinal));
            throw new UsageException($"--synthetic: expected SHAPE:FORMAT with a shape of {shapes}, or one of "
                + $"{string.Join(", ", SyntheticRecursion.Presets.Keys.Order(StringComparer.Ordinal))}; found '{description}'");
        }
        QuantizationRecipe recipe = ConvertCommand.Recipe(formatName, "--synthetic");
        SyntheticModel.WriteGguf(path, shape, recipe, Seed, cancellationToken);
        return Report(new SyntheticResult(path, shapeName, recipe.Name, new FileInfo(path).Length), asJson);
    }

    private static int Report(SyntheticResult result, bool asJson)
    {
        if (asJson)
        {
            Terminal.WriteJson(result, HostJson.Default.SyntheticResult);
        }
        else
        {
            Console.Out.WriteLine($"{result.Path}: {result.Shape} in {result.Format}, {result.Bytes / 1e6:F1} MB");
        }
        return ExitCode.Success;
    }
}

/// <summary>What <c>bench --synthetic --json</c> prints.</summary>
internal sealed record SyntheticResult(string Path, string Shape, string Format, long Bytes);
