using System.Buffers;
using System.Text.RegularExpressions;

namespace Tools.StoryGrammar;

/// <summary>Rules that every story must keep; a broken one is a mistake in the grammar.</summary>
internal static partial class SelfCheck
{
    private static readonly SearchValues<char> alphabet =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,!?\"");

    /// <summary>Checks the stories of <paramref name="count"/> seeds and prints what is wrong and how varied they are.</summary>
    /// <returns>The number of stories that break a rule.</returns>
    internal static int Run(ulong firstSeed, int count, TextWriter output)
    {
        var stories = new HashSet<string>(StringComparer.Ordinal);
        var words = new HashSet<string>(StringComparer.Ordinal);
        var openings = new HashSet<string>(StringComparer.Ordinal);
        long wordCount = 0;
        int broken = 0;
        for (int i = 0; i < count; i++)
        {
            ulong seed = firstSeed + (ulong)i;
            IReadOnlyList<string> beats = StoryGenerator.WriteSentences(seed, out Cast cast);
            string story = string.Join(' ', beats);
            string[] problems = [.. Problems(story, beats, cast)];
            if (problems.Length > 0 && ++broken <= 20)
                output.WriteLine($"seed {seed}: {string.Join("; ", problems)}\n  {story}");
            stories.Add(story);
            openings.Add(string.Join(' ', story.Split(' ').Take(3)));
            foreach (Match word in Word().Matches(story))
            {
                words.Add(word.Value.ToLowerInvariant());
                wordCount++;
            }
        }

        output.WriteLine($"{count} stories, {stories.Count} distinct, {wordCount / count} words each, {words.Count} different words, "
            + $"{openings.Count} different first three words; {broken} break a rule.");
        return broken;
    }

    private static IEnumerable<string> Problems(string story, IReadOnlyList<string> beats, Cast cast)
    {
        if (story.AsSpan().ContainsAnyExcept(alphabet))
            yield return "a character that does not belong into a story";
        if (DoubledSpace().Match(story) is { Success: true } space)
            yield return $"spaces and marks: '{space.Value}'";
        if (ArticleBeforeVowel().Match(story) is { Success: true } a)
            yield return $"a before a vowel: '{a.Value}'";
        if (ArticleBeforeConsonant().Match(story) is { Success: true } an)
            yield return $"an before a consonant: '{an.Value}'";
        if (DoubledWord().Match(story) is { Success: true } twice)
            yield return $"a word twice: '{twice.Value}'";
        foreach (string beat in beats)
        {
            if (!SentenceShape().IsMatch(beat))
                yield return $"not a sentence: '{beat}'";
            if (beat.Count(c => c == '"') % 2 != 0)
                yield return $"an open quotation: '{beat}'";
        }

        string[] words = story.Split(' ');
        for (int i = 1; i < words.Length; i++)
        {
            string start = words[i].TrimStart('"');
            if (Template.EndsSentence(words[i - 1], words.AsSpan(i)) && !char.IsUpper(start[0]))
                yield return $"no capital: '{words[i - 1]} {words[i]}'";
        }

        foreach (string problem in Agreement(beats, cast))
            yield return problem;
    }

    /// <summary>Number agreement of the heroes' names and pronouns with the verbs beside them, outside quotations.</summary>
    private static IEnumerable<string> Agreement(IReadOnlyList<string> beats, Cast cast)
    {
        bool pair = cast.Kind == HeroKind.Pair;
        string hero = cast.Words["hero"];
        foreach (string beat in beats)
        {
            string narration = Quotation().Replace(beat, "");
            if (narration.Contains($"{hero} {(pair ? "was" : "were")}", StringComparison.Ordinal))
                yield return $"was or were after '{hero}'";
            if (SingularVerbAfterPlural().Match(narration) is { Success: true } they)
                yield return $"number: '{they.Value}'";
            if (PluralVerbAfterSingular().Match(narration) is { Success: true } he)
                yield return $"number: '{he.Value}'";
        }

        // A story whose characters all share one gender must not use the other one's pronouns.
        string[] genders = [cast.Words["he"], cast.Words["fhe"], cast.Words["ehe"]];
        foreach ((string absent, Regex pronoun) in new[] { ("he", Masculine()), ("she", Feminine()) })
        {
            if (genders.Contains(absent))
                continue;
            string narration = Quotation().Replace(string.Join(' ', beats), "");
            if (pronoun.Match(narration) is { Success: true } stray)
                yield return $"pronoun of nobody: '{stray.Value}'";
        }
    }

    [GeneratedRegex("[A-Za-z]+")]
    private static partial Regex Word();

    [GeneratedRegex("  |^ | $| [,.!?]|[,.!?]{2}|,[^ \"]")]
    private static partial Regex DoubledSpace();

    [GeneratedRegex("\\b[Aa] (?!one\\b|use)[aeiouAEIOU]\\w*")]
    private static partial Regex ArticleBeforeVowel();

    [GeneratedRegex("\\b[Aa]n (?!hour|honest)[^aeiouAEIOU]\\w*")]
    private static partial Regex ArticleBeforeConsonant();

    [GeneratedRegex("\\b(\\w+) \\1\\b")]
    private static partial Regex DoubledWord();

    [GeneratedRegex("^\"?[A-Z].*[.!?]\"?$")]
    private static partial Regex SentenceShape();

    [GeneratedRegex("\"[^\"]*\"")]
    private static partial Regex Quotation();

    [GeneratedRegex("\\b([Tt]hey|[Ww]e) (was|is|has)\\b|\\bI (were|are|is)\\b")]
    private static partial Regex SingularVerbAfterPlural();

    [GeneratedRegex("\\b([Hh]e|[Ss]he|[Ii]t) (were|are|have)\\b")]
    private static partial Regex PluralVerbAfterSingular();

    [GeneratedRegex("\\b([Hh]e|[Hh]im|[Hh]is|[Hh]imself)\\b")]
    private static partial Regex Masculine();

    [GeneratedRegex("\\b([Ss]he|[Hh]er|[Hh]erself)\\b")]
    private static partial Regex Feminine();
}
