using System.CommandLine;
using Engine;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Host.CommandLine;

namespace Host.Commands;

/// <summary><c>convert</c>: a checkpoint to GGUF, in a chosen format.</summary>
internal sealed class ConvertCommand
{
    private static readonly string formats = string.Join(", ", QuantizationRecipe.All.Select(static recipe => recipe.Name));

    private readonly Option<string?> model = Options.Model();
    private readonly Option<string?> mask = Options.Mask();
    private readonly Option<bool> json = Options.Json();
    private readonly Option<string> output = new("--out", "-o")
    {
        Description = "The GGUF file to write; replaced if it exists.",
        HelpName = "FILE",
        Required = true,
    };

    private readonly Option<string> format = new("--format", "-f")
    {
        Description = $"How matrices are stored: {formats}.",
        HelpName = "FORMAT",
        Required = true,
    };

    public static Command Create() => new ConvertCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("convert", "Write a checkpoint as GGUF in another format.") { model, mask, output, format, json };
        command.SetAction((parse, cancellationToken) => Task.FromResult(Run(parse, cancellationToken)));
        return command;
    }

    private int Run(ParseResult parse, CancellationToken cancellationToken)
    {
        QuantizationRecipe recipe = Recipe(parse.GetValue(format)!, "--format");
        string source = DefaultModel.Resolve(parse.GetValue(model)), target = parse.GetValue(output)!;
        if (Path.GetFullPath(source) == Path.GetFullPath(target))
        {
            throw new EngineException("the file cannot be converted onto itself", target);
        }
        using (Checkpoint checkpoint = CheckpointFile.Open(source, parse.GetValue(mask)))
        {
            GgufConverter.Convert(checkpoint, target, recipe, cancellationToken);
        }
        ConvertResult result = new(source, target, recipe.Name, new FileInfo(target).Length);
        if (parse.GetValue(json))
        {
            Terminal.WriteJson(result, HostJson.Default.ConvertResult);
        }
        else
        {
            Console.Out.WriteLine($"{target}: {result.Format}, {result.Bytes / 1e6:F1} MB");
        }
        return ExitCode.Success;
    }

    /// <summary>Finds a format by name.</summary>
    /// <exception cref="UsageException">There is none of that name.</exception>
    internal static QuantizationRecipe Recipe(string name, string option)
    {
        try
        {
            return QuantizationRecipe.Named(name);
        }
        catch (EngineException unknown)
        {
            throw new UsageException($"{option}: {unknown.Reason}");
        }
    }
}

/// <summary>What <c>convert --json</c> prints.</summary>
/// <param name="Source">What was read.</param>
/// <param name="Path">What was written.</param>
/// <param name="Format">The format.</param>
/// <param name="Bytes">Size of the file written.</param>
internal sealed record ConvertResult(string Source, string Path, string Format, long Bytes);
