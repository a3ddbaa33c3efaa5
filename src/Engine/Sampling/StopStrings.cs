using System.Text;

namespace Engine.Sampling;

/// <summary>
/// Finds stop strings in text that arrives in pieces, and holds back just what could still become one. The match is the one that ends
/// first; of several that end together, the longest. So the outcome does not depend on how the text was cut. Each character costs one
/// step of Knuth–Morris–Pratt per stop string.
/// </summary>
public sealed class StopStrings
{
    private readonly string[] patterns;
    private readonly int[][] borders;
    private readonly int[] progress;
    private readonly StringBuilder held = new();

    /// <summary>Prepares the search.</summary>
    /// <param name="stops">The stop strings; none is allowed.</param>
    /// <exception cref="EngineException">A stop string is empty.</exception>
    public StopStrings(IReadOnlyList<string> stops)
    {
        Check(stops);
        patterns = [.. stops];
        borders = [.. patterns.Select(Borders)];
        progress = new int[patterns.Length];
    }

    /// <summary>Checks stop strings before they are used.</summary>
    /// <exception cref="EngineException">A stop string is empty.</exception>
    public static void Check(IReadOnlyList<string> stops)
    {
        int empty = Enumerable.Range(0, stops.Count).FirstOrDefault(i => string.IsNullOrEmpty(stops[i]), -1);
        if (empty >= 0)
        {
            throw new EngineException("expected a text of one character or more, found an empty one", item: $"stop string {empty}");
        }
    }

    /// <summary>The stop string that was found, or null so far.</summary>
    public string? Match { get; private set; }

    /// <summary>Takes the next piece of text.</summary>
    /// <param name="piece">What follows the text so far.</param>
    /// <param name="matched">A stop string was found, now or before; <see cref="Match"/> is which.</param>
    /// <returns>Text that certainly comes before any stop string and was not returned before; empty after a match.</returns>
    public string Append(string piece, out bool matched)
    {
        string text = Advance(piece);
        matched = Match is not null;
        return text;
    }

    /// <summary>Ends the text: what was held back is no stop string after all.</summary>
    /// <returns>The text held back; empty after a match.</returns>
    public string Flush()
    {
        Array.Clear(progress);
        return Release(0, keep: false);
    }

    private string Advance(string piece)
    {
        if (patterns.Length == 0 || Match is not null)
        {
            return Match is null ? piece : "";
        }
        for (int i = 0; i < piece.Length; i++)
        {
            if (Step(piece[i]) is { } stop)
            {
                Match = stop;
                held.Append(piece, 0, i + 1);
                return Release(stop.Length, keep: false);
            }
        }
        int possible = progress.Max();
        if (possible == 0 && held.Length == 0)
        {
            return piece;
        }
        held.Append(piece);
        return Release(possible, keep: true);
    }

    /// <summary>Takes all held text but the last <paramref name="tail"/> characters, which stay held or are dropped.</summary>
    private string Release(int tail, bool keep)
    {
        string text = held.ToString(0, held.Length - tail);
        held.Remove(0, keep ? text.Length : held.Length);
        return text;
    }

    /// <summary>Advances every pattern by a character; the longest one that this completes, or null.</summary>
    private string? Step(char next)
    {
        string? complete = null;
        for (int p = 0; p < patterns.Length; p++)
        {
            string pattern = patterns[p];
            int length = progress[p];
            while (length > 0 && pattern[length] != next)
            {
                length = borders[p][length - 1];
            }
            length += pattern[length] == next ? 1 : 0;
            progress[p] = length;
            if (length == pattern.Length && !(complete?.Length >= length))
            {
                complete = pattern;
            }
        }
        return complete;
    }

    /// <summary>For every prefix of a pattern, the length of its longest proper prefix that is also its suffix.</summary>
    private static int[] Borders(string pattern)
    {
        int[] borders = new int[pattern.Length];
        for (int end = 1, length = 0; end < pattern.Length; end++)
        {
            while (length > 0 && pattern[length] != pattern[end])
            {
                length = borders[length - 1];
            }
            length += pattern[length] == pattern[end] ? 1 : 0;
            borders[end] = length;
        }
        return borders;
    }
}
