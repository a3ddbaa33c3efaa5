namespace Tools.StoryGrammar;

/// <summary>
/// What happens in a story: beats in order, each told by one of its templates. An empty template leaves the beat out.
/// </summary>
/// <param name="Name">For messages.</param>
/// <param name="Lesson">What the hero may have learned at the end, after "that"; empty for a story that needs no last sentence.</param>
/// <param name="Beats">Alternatives of each beat.</param>
public sealed record Plot(string Name, string Lesson, string[][] Beats)
{
    /// <summary>The hero is at home with the elder all along, so that nobody "went home and told" anything.</summary>
    public bool AtHome { get; init; }
}
