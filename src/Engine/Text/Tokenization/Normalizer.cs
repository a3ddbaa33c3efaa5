using System.Text;
using Engine.Text.Tokenization.Patterns;
using Engine.Text.Tokenization.Unicode;

namespace Engine.Text.Tokenization;

/// <summary>A rewriting of the text before it is cut into pieces.</summary>
internal abstract class Normalizer
{
    /// <summary>Rewrites one stretch of text between special tokens, never empty.</summary>
    /// <param name="text">The stretch.</param>
    /// <param name="atStart">It is the beginning of the whole text.</param>
    public abstract string Apply(string text, bool atStart);
}

/// <summary>Unicode Normalization Form C.</summary>
internal sealed class ComposingNormalizer : Normalizer
{
    public override string Apply(string text, bool atStart) => CanonicalComposition.Normalize(text);
}

/// <summary>Lower case.</summary>
internal sealed class LowercaseNormalizer : Normalizer
{
    public override string Apply(string text, bool atStart) => text.ToLowerInvariant();
}

/// <summary>One string for another, wherever it occurs.</summary>
internal sealed class ReplaceNormalizer(string from, string to) : Normalizer
{
    public override string Apply(string text, bool atStart) => text.Replace(from, to, StringComparison.Ordinal);
}

/// <summary>One string for every match of a pattern.</summary>
internal sealed class PatternNormalizer(Pattern pattern, string to) : Normalizer
{
    public override string Apply(string text, bool atStart)
    {
        StringBuilder? result = null;
        int done = 0;
        Pattern.Scan scan = pattern.Over(text);
        while (scan.MoveNext(out int start, out int end))
        {
            result ??= new StringBuilder(text.Length);
            result.Append(text, done, start - done).Append(to);
            done = end;
        }
        return result is null ? text : result.Append(text, done, text.Length - done).ToString();
    }
}

/// <summary>Removes white space at the ends.</summary>
internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override string Apply(string text, bool atStart) => (left, right) switch
    {
        (true, true) => text.Trim(),
        (true, false) => text.TrimStart(),
        (false, true) => text.TrimEnd(),
        _ => text,
    };
}

/// <summary>Puts a prefix before the text: SentencePiece's dummy prefix, which makes a first word look like any other.</summary>
/// <param name="prefix">The prefix.</param>
/// <param name="unlessPresent">A text that already begins with it is left alone.</param>
/// <param name="onlyAtStart">Only the beginning of the whole text gets it, not what follows a special token.</param>
internal sealed class PrefixNormalizer(string prefix, bool unlessPresent, bool onlyAtStart) : Normalizer
{
    public override string Apply(string text, bool atStart) =>
        (onlyAtStart && !atStart) || (unlessPresent && text.StartsWith(prefix, StringComparison.Ordinal)) ? text : prefix + text;
}

/// <summary>SentencePiece's remove_extra_whitespaces: no spaces at the ends, single ones between.</summary>
internal sealed class ExtraSpaceNormalizer : Normalizer
{
    public override string Apply(string text, bool atStart)
    {
        string trimmed = text.Trim(' ');
        if (!trimmed.Contains("  ", StringComparison.Ordinal))
            return trimmed;
        return string.Join(' ', trimmed.Split(' ', StringSplitOptions.RemoveEmptyEntries));
    }
}
