using System.Buffers;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>The parts of Python's <c>str</c> that .NET does differently: whitespace, searching, splitting, case.</summary>
internal static class PythonStrings
{
    /// <summary>What <c>str.isspace</c> accepts, which is what <c>strip</c> and <c>split</c> remove.</summary>
    public const string Whitespace =
        "\t\n\v\f\r\u001c\u001d\u001e\u001f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
        + "\u2028\u2029\u202f\u205f\u3000";

    /// <summary>What <c>str.splitlines</c> takes as the end of a line; <c>\r\n</c> counts once.</summary>
    private const string LineEnds = "\n\r\v\f\u001c\u001d\u001e\u0085\u2028\u2029";

    // The built-in search may compare the whole needle at every position; beyond this length a linear one is used.
    private const int LongNeedle = 64;

    private static readonly SearchValues<char> LineEndSearch = SearchValues.Create(LineEnds);

    public static bool IsWhitespace(char c) => Whitespace.Contains(c);

    /// <summary>Strips whitespace, or the given characters, from the chosen ends.</summary>
    public static string Strip(string text, string? characters, bool start, bool end)
    {
        ReadOnlySpan<char> rest = text, strip = characters ?? Whitespace;
        if (characters is not null && CodePoints.HasSurrogates(characters)) return StripCodePoints(text, characters, start, end);
        if (start) rest = rest.TrimStart(strip);
        if (end) rest = rest.TrimEnd(strip);
        return characters is "" ? text : rest.ToString(); // .NET takes no characters to mean whitespace
    }

    private static string StripCodePoints(string text, string characters, bool start, bool end)
    {
        var strip = CodePoints.Split(characters).ToHashSet();
        string[] points = [.. CodePoints.Split(text)];
        int from = 0, to = points.Length;
        while (start && from < to && strip.Contains(points[from])) from++;
        while (end && to > from && strip.Contains(points[to - 1])) to--;
        return string.Concat(points[from..to]);
    }

    /// <summary>Where the needle begins in the text, in UTF-16 positions and in order; takes time linear in the text.</summary>
    public static IEnumerable<int> Matches(string text, string needle)
    {
        if (needle.Length <= LongNeedle)
        {
            for (int at = 0; (at = text.IndexOf(needle, at, StringComparison.Ordinal)) >= 0; at += needle.Length) yield return at;
            yield break;
        }

        // Knuth, Morris, Pratt: borders[i] is how much of the needle's start ends at i.
        var borders = new int[needle.Length];
        for (int i = 1, border = 0; i < needle.Length; i++)
        {
            while (border > 0 && needle[i] != needle[border]) border = borders[border - 1];
            if (needle[i] == needle[border]) border++;
            borders[i] = border;
        }
        for (int i = 0, matched = 0; i < text.Length; i++)
        {
            while (matched > 0 && text[i] != needle[matched]) matched = borders[matched - 1];
            if (text[i] == needle[matched]) matched++;
            if (matched < needle.Length) continue;
            yield return i + 1 - needle.Length;
            matched = 0;
        }
    }

    public static int IndexOf(string text, string needle) => needle.Length == 0 ? 0 : Matches(text, needle).FirstOrDefault(-1);

    public static int LastIndexOf(string text, string needle)
    {
        int reversed = IndexOf(Reverse(text), Reverse(needle));
        return reversed < 0 ? -1 : text.Length - needle.Length - reversed;
    }

    public static bool Contains(string text, string needle) => IndexOf(text, needle) >= 0;

    /// <summary><c>str.replace</c>; an empty <paramref name="old"/> stands between all code points. A negative count is no limit.</summary>
    public static string Replace(string text, string old, string replacement, int count, Budget budget)
    {
        budget.Scan(text.Length);
        if (count == 0) return text;
        List<int> at = [.. (old.Length == 0 ? Boundaries(text) : Matches(text, old)).Take(count < 0 ? int.MaxValue : count)];
        budget.Text(text.Length + (long)at.Count * (replacement.Length - old.Length));
        var result = new StringBuilder();
        int copied = 0;
        foreach (int match in at)
        {
            result.Append(text, copied, match - copied).Append(replacement);
            copied = match + old.Length;
        }
        return result.Append(text, copied, text.Length - copied).ToString();
    }

    private static IEnumerable<int> Boundaries(string text)
    {
        int at = 0;
        foreach (string point in CodePoints.Split(text))
        {
            yield return at;
            at += point.Length;
        }
        yield return at;
    }

    /// <summary><c>str.split(separator, maxSplits)</c>; a negative maximum is no limit.</summary>
    public static List<string> Split(string text, string separator, int maxSplits)
    {
        var parts = new List<string>();
        int start = 0;
        foreach (int at in Matches(text, separator).Take(maxSplits < 0 ? int.MaxValue : maxSplits))
        {
            parts.Add(text[start..at]);
            start = at + separator.Length;
        }
        parts.Add(text[start..]);
        return parts;
    }

    /// <summary><c>str.split(None, maxSplits)</c>: at runs of whitespace; what follows the last split stays as it is.</summary>
    public static List<string> SplitAtWhitespace(string text, int maxSplits)
    {
        var parts = new List<string>();
        int at = SkipWhitespace(0);
        while (at < text.Length)
        {
            if (maxSplits >= 0 && parts.Count == maxSplits)
            {
                parts.Add(text[at..]);
                break;
            }
            int end = at;
            while (end < text.Length && !IsWhitespace(text[end])) end++;
            parts.Add(text[at..end]);
            at = SkipWhitespace(end);
        }
        return parts;

        int SkipWhitespace(int from)
        {
            while (from < text.Length && IsWhitespace(text[from])) from++;
            return from;
        }
    }

    /// <summary><c>str.rsplit</c>: as <c>split</c>, counting the splits from the end; a null separator is whitespace.</summary>
    public static List<string> SplitFromEnd(string text, string? separator, int maxSplits)
    {
        string reversed = Reverse(text);
        List<string> parts = separator is null ? SplitAtWhitespace(reversed, maxSplits) : Split(reversed, Reverse(separator), maxSplits);
        parts.Reverse();
        return parts.ConvertAll(Reverse);
    }

    public static List<string> SplitLines(string text, bool keepEnds)
    {
        var lines = new List<string>();
        for (int start = 0; start < text.Length;)
        {
            int end = text.AsSpan(start).IndexOfAny(LineEndSearch);
            end = end < 0 ? text.Length : start + end;
            int next = end;
            if (next < text.Length) next += text[next] == '\r' && next + 1 < text.Length && text[next + 1] == '\n' ? 2 : 1;
            lines.Add(text[start..(keepEnds ? next : end)]);
            start = next;
        }
        return lines;
    }

    /// <summary>Whether the text is not empty and every code point satisfies the predicate.</summary>
    public static bool All(string text, Func<Rune, bool> predicate) => text.Length > 0 && text.EnumerateRunes().All(predicate);

    /// <summary>The text without HTML's special characters, as markupsafe escapes them.</summary>
    public static string Escape(string text) => new StringBuilder(text)
        .Replace("&", "&amp;").Replace(">", "&gt;").Replace("<", "&lt;").Replace("'", "&#39;").Replace("\"", "&#34;").ToString();

    public static string Reverse(string text) => CodePoints.Slice(text, CodePoints.Count(text) - 1, -1, CodePoints.Count(text));
}
