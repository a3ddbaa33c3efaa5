namespace Tools.StoryGrammar;

/// <summary>The indefinite article by sound, for the words this grammar can put after it.</summary>
public static class Articles
{
    private static readonly string[] vowelLettersConsonantSounds = ["one", "use", "uni"];
    private static readonly string[] silentH = ["hour", "honest"];

    /// <summary>Whether <paramref name="word"/> begins with a vowel sound.</summary>
    public static bool TakesAn(string word)
    {
        string lower = word.TrimStart('"').ToLowerInvariant();
        if (lower.Length == 0)
            return false;
        if (silentH.Any(prefix => lower.StartsWith(prefix, StringComparison.Ordinal)))
            return true;
        return "aeiou".Contains(lower[0], StringComparison.Ordinal)
            && !vowelLettersConsonantSounds.Any(prefix => lower.StartsWith(prefix, StringComparison.Ordinal));
    }
}
