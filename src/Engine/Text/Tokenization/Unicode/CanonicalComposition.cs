using System.Globalization;
using System.Text;

namespace Engine.Text.Tokenization.Unicode;

/// <summary>
/// Normalization Form C. <see cref="string.Normalize()"/> needs ICU and returns its input unchanged under InvariantGlobalization, which
/// this library's hosts use, so the canonical forms are a resource here. Source: Unicode Standard Annex 15, and section 3.12 of the
/// standard for Hangul.
/// </summary>
internal sealed class CanonicalComposition
{
    private const string ResourceName = "Engine.Text.CanonicalForms.txt";

    // Every character below this is its own Form C and composes with nothing before it.
    private const char FirstCombining = '\u0300';

    private const int SyllableBase = 0xAC00, LeadBase = 0x1100, VowelBase = 0x1161, TrailBase = 0x11A7;
    private const int LeadCount = 19, VowelCount = 21, TrailCount = 28, SyllableCount = LeadCount * VowelCount * TrailCount;

    private static readonly Lazy<CanonicalComposition> Shared = new(static () => new CanonicalComposition());

    private readonly Dictionary<int, (int First, int Second)> decompositions = [];
    private readonly Dictionary<(int First, int Second), int> compositions = [];
    private readonly Dictionary<int, byte> classes = [];

    private CanonicalComposition()
    {
        using Stream stream = typeof(CanonicalComposition).Assembly.GetManifestResourceStream(ResourceName)
            ?? throw new InvalidOperationException($"the resource {ResourceName} is missing from the assembly");
        using var reader = new StreamReader(stream);
        while (reader.ReadLine() is { } line)
        {
            string[] fields = line.Split(' ');
            if (fields[0] == "D")
                AddDecomposition(fields);
            else if (fields[0] == "C")
                AddClass(Hexadecimal(fields[1]), Hexadecimal(fields[2]), byte.Parse(fields[3], CultureInfo.InvariantCulture));
        }
    }

    /// <summary>Brings a text into Form C; returns the same string where it already is beyond doubt.</summary>
    public static string Normalize(string text) =>
        text.AsSpan().ContainsAnyInRange(FirstCombining, char.MaxValue) ? Shared.Value.Compose(text) : text;

    private static int Hexadecimal(string digits) => int.Parse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);

    private void AddDecomposition(string[] fields)
    {
        int composed = Hexadecimal(fields[1]), first = Hexadecimal(fields[2]), second = fields.Length > 3 ? Hexadecimal(fields[3]) : -1;
        decompositions.Add(composed, (first, second));
        if (second >= 0 && fields.Length == 4)
            compositions.Add((first, second), composed);
    }

    private void AddClass(int first, int last, byte combiningClass)
    {
        for (int codePoint = first; codePoint <= last; codePoint++)
            classes.Add(codePoint, combiningClass);
    }

    private string Compose(string text)
    {
        var points = new List<(int CodePoint, byte Class)>(text.Length + 16);
        foreach (Rune rune in text.EnumerateRunes())
            Decompose(rune.Value, points);
        Reorder(points);
        Recompose(points);
        var result = new StringBuilder(points.Count);
        Span<char> units = stackalloc char[2];
        foreach ((int codePoint, _) in points)
            result.Append(units[..new Rune(codePoint).EncodeToUtf16(units)]);
        return result.ToString();
    }

    private void Decompose(int codePoint, List<(int CodePoint, byte Class)> points)
    {
        int syllable = codePoint - SyllableBase;
        if (syllable is >= 0 and < SyllableCount)
        {
            points.Add((LeadBase + syllable / (VowelCount * TrailCount), 0));
            points.Add((VowelBase + syllable % (VowelCount * TrailCount) / TrailCount, 0));
            if (syllable % TrailCount != 0)
                points.Add((TrailBase + syllable % TrailCount, 0));
        }
        else if (decompositions.TryGetValue(codePoint, out (int First, int Second) parts))
        {
            Decompose(parts.First, points);
            if (parts.Second >= 0)
                Decompose(parts.Second, points);
        }
        else
        {
            points.Add((codePoint, classes.GetValueOrDefault(codePoint)));
        }
    }

    /// <summary>Sorts each stretch of combining marks by class, keeping the order of equals.</summary>
    private static void Reorder(List<(int CodePoint, byte Class)> points)
    {
        for (int start = 0; start < points.Count; start++)
        {
            int end = start;
            while (end < points.Count && points[end].Class != 0)
                end++;
            if (end - start > 1)
            {
                (int CodePoint, byte Class)[] sorted = [.. points[start..end].OrderBy(static point => point.Class)];
                for (int i = 0; i < sorted.Length; i++)
                    points[start + i] = sorted[i];
            }
            start = end;
        }
    }

    /// <summary>Joins each starter with the marks that compose with it and are not blocked by one of an equal or higher class.</summary>
    private void Recompose(List<(int CodePoint, byte Class)> points)
    {
        int kept = 0, starter = -1, lastClass = -1;
        foreach ((int codePoint, byte combiningClass) in points.ToArray())
        {
            if (starter >= 0 && lastClass < combiningClass && TryJoin(points[starter].CodePoint, codePoint, out int joined))
            {
                points[starter] = (joined, 0);
                continue;
            }
            if (combiningClass == 0)
            {
                starter = kept;
                lastClass = -1;
            }
            else
            {
                lastClass = combiningClass;
            }
            points[kept++] = (codePoint, combiningClass);
        }
        points.RemoveRange(kept, points.Count - kept);
    }

    private bool TryJoin(int first, int second, out int joined)
    {
        int lead = first - LeadBase, vowel = second - VowelBase;
        if (lead is >= 0 and < LeadCount && vowel is >= 0 and < VowelCount)
        {
            joined = SyllableBase + (lead * VowelCount + vowel) * TrailCount;
            return true;
        }
        int syllable = first - SyllableBase, trail = second - TrailBase;
        if (syllable is >= 0 and < SyllableCount && syllable % TrailCount == 0 && trail is > 0 and < TrailCount)
        {
            joined = first + trail;
            return true;
        }
        return compositions.TryGetValue((first, second), out joined);
    }
}
