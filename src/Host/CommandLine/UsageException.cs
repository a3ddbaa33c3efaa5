using System.Text;
using Engine;

namespace Host.CommandLine;

/// <summary>The command line is wrong, whatever the model: <see cref="ExitCode.Usage"/>.</summary>
internal sealed class UsageException(string message) : Exception(message)
{
    /// <summary>Runs a check of the engine on options; what it refuses is wrong usage, and is named as on the command line.</summary>
    public static void Check(Action validate)
    {
        try
        {
            validate();
        }
        catch (EngineException refused) when (refused.Item is not null)
        {
            throw new UsageException($"{OptionName(refused.Item)}: {refused.Reason}");
        }
    }

    /// <summary><c>TopP</c> is <c>--top-p</c>: options are named after the properties they set.</summary>
    private static string OptionName(string property)
    {
        StringBuilder name = new("-");
        foreach (char letter in property)
        {
            name.Append(char.IsUpper(letter) ? "-" : "").Append(char.ToLowerInvariant(letter));
        }
        return name.ToString();
    }
}
