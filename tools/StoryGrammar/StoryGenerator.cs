using Tools.StoryGrammar.Plots;

namespace Tools.StoryGrammar;

/// <summary>Writes a story per seed: a cast, an opening, a plot told beat by beat, an ending. The same seed gives the same story.</summary>
public static class StoryGenerator
{
    /// <summary>Every plot.</summary>
    public static IReadOnlyList<Plot> AllPlots { get; } =
        [.. FriendshipPlots.All, .. HomePlots.All, .. OutdoorPlots.All, .. WonderPlots.All];

    private static readonly string[] homeEndings =
        [.. Openings.Endings.Where(static ending => !ending.Contains("went home", StringComparison.Ordinal))];

    /// <summary>The story of <paramref name="seed"/>: one paragraph, no line breaks.</summary>
    public static string Write(ulong seed) => string.Join(' ', WriteSentences(seed, out _));

    /// <summary>As <see cref="Write"/>, beat by beat, with the cast for checks.</summary>
    internal static IReadOnlyList<string> WriteSentences(ulong seed, out Cast cast)
    {
        var dice = new Dice(seed);
        Cast chosen = cast = Cast.Choose(dice);
        var draws = new Dictionary<string, string>(StringComparer.Ordinal);
        bool plural = chosen.Kind == HeroKind.Pair;
        var sentences = new List<string>();

        // A few stories start in the middle, so that a model can go on from a first sentence that introduces nobody.
        if (dice.Chance(0.95))
            Tell(dice.Pick(Openings.Introductions[chosen.Kind]));
        if (dice.Chance(0.6))
            Tell(dice.Pick(Openings.Descriptions));
        Plot plot = dice.Pick(AllPlots);
        foreach (string[] beat in plot.Beats)
            Tell(dice.Pick(beat));
        if (plot.Lesson.Length > 0 && dice.Chance(0.85))
        {
            draws["lesson"] = plot.Lesson;
            Tell(dice.Pick(plot.AtHome ? homeEndings : Openings.Endings));
        }

        return sentences;

        void Tell(string template)
        {
            if (template.Length > 0)
                sentences.Add(Template.Expand(template, dice, plural, name => Resolve(name, dice, chosen, draws)));
        }
    }

    private static string Resolve(string name, Dice dice, Cast cast, Dictionary<string, string> draws)
    {
        if (cast.Words.TryGetValue(name, out string? word))
            return word;
        int dot = name.IndexOf('.', StringComparison.Ordinal);
        string variable = dot < 0 ? name : name[..dot];
        if (!draws.TryGetValue(variable, out string? entry))
            draws[variable] = entry = Draw(variable, dice, draws);
        string[] fields = entry.Split(';');
        if (dot < 0)
            return fields[0];
        string key = name[(dot + 1)..] + "=";
        return fields.FirstOrDefault(field => field.StartsWith(key, StringComparison.Ordinal))?[key.Length..]
            ?? throw new FormatException($"{{{name}}}: '{fields[0]}' has no field '{key}'.");
    }

    private static string Draw(string variable, Dice dice, Dictionary<string, string> draws)
    {
        string pool = variable.TrimEnd('2', '3');
        if (!Lexicon.Pools.TryGetValue(pool, out string[]? items))
            throw new FormatException($"{{{variable}}} is neither a character's word nor a pool.");
        string drawn = dice.Pick(items);
        while (IsTaken(drawn))
            drawn = dice.Pick(items);
        return drawn;

        bool IsTaken(string item) => draws.Any(pair => pair.Key.TrimEnd('2', '3') == pool && pair.Value == item);
    }
}
