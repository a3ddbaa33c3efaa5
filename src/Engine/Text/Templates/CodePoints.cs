using System.Text;

namespace Engine.Text.Templates;

/// <summary>
/// Strings as Python sees them: sequences of code points. A surrogate pair is one, a lone surrogate (JSON can carry them) is one too.
/// </summary>
internal static class CodePoints
{
    public static int Count(string text)
    {
        if (!HasSurrogates(text)) return text.Length;
        int count = 0;
        for (int at = 0; at < text.Length; at += LengthAt(text, at)) count++;
        return count;
    }

    /// <summary>The code points, each as a string of its own.</summary>
    public static IEnumerable<string> Split(string text)
    {
        for (int at = 0; at < text.Length;)
        {
            int length = LengthAt(text, at);
            yield return text.Substring(at, length);
            at += length;
        }
    }

    /// <summary>The code points from <paramref name="start"/> on, each <paramref name="step"/> behind the last, so many of them.</summary>
    public static string Slice(string text, int start, int step, int count)
    {
        if (!HasSurrogates(text))
        {
            if (step == 1) return text.Substring(start, count);
            return string.Create(count, (text, start, step), static (result, from) =>
            {
                for (int i = 0; i < result.Length; i++) result[i] = from.text[from.start + i * from.step];
            });
        }
        string[] points = [.. Split(text)];
        var slice = new StringBuilder();
        for (int i = 0; i < count; i++) slice.Append(points[start + i * step]);
        return slice.ToString();
    }

    /// <summary>The number of code points before a UTF-16 position.</summary>
    public static int IndexOf(string text, int position)
    {
        int index = 0;
        for (int at = 0; at < position; at += LengthAt(text, at)) index++;
        return index;
    }

    public static bool HasSurrogates(string text) => text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF');

    private static int LengthAt(string text, int at) =>
        char.IsHighSurrogate(text[at]) && at + 1 < text.Length && char.IsLowSurrogate(text[at + 1]) ? 2 : 1;
}
