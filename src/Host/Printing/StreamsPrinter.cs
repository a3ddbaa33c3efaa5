using Engine.Generation;
using Host.CommandLine;

namespace Host.Printing;

/// <summary>
/// A line for each generated token: what the gate gave each stream at the row that the token was chosen from, as a bar and as numbers.
/// </summary>
/// <param name="output">Where to.</param>
/// <param name="texts">Texts of the sequence's tokens, at its beginning.</param>
/// <param name="promptIds">The prompt.</param>
internal sealed class StreamsPrinter(TextWriter output, TokenTexts texts, IReadOnlyList<int> promptIds) : ITokenPrinter
{
    private const string Levels = "▁▂▃▄▅▆▇█";

    public void Begin() => output.WriteLine(string.Concat(promptIds.Select(texts.Append)));

    public void Add(in GeneratedToken token)
    {
        string bar = string.Concat(token.StreamWeights.Select(Level));
        string numbers = string.Join(' ', token.StreamWeights.Select(static weight => $"{weight:F3}"));
        output.WriteLine($"{bar}  {numbers}  {Terminal.Visible(texts.Append(token.Id))}");
    }

    public void End()
    {
    }

    private static char Level(float weight) => Levels[Math.Clamp((int)(weight * Levels.Length), 0, Levels.Length - 1)];
}
