using Engine.Checkpoints.Writing;
using Engine.Execution;

namespace Engine.Tests.Checkpoints;

/// <summary>The random models for measurements route tokens as their names say.</summary>
public sealed class SyntheticRecursionTests
{
    [Fact]
    public void Every_depth_takes_its_share_of_the_tokens()
    {
        using var folder = new TemporaryFolder();
        SyntheticRecursion.WriteFolder(folder.Path, layers: 5, recursions: 3, seed: 1);
        using LanguageModel model = LanguageModel.Load(folder.Path, new LanguageModelOptions { KvFormat = KvFormat.F16, ContextLength = 700 });
        using LogitsSession session = model.CreateLogitsSession();
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        session.Feed([.. Enumerable.Range(0, 600).Select(_ => random.Next(model.Plan.VocabularySize))]);
        // Binomial with n = 600: a standard deviation of 0.02, five of which are 0.1.
        Assert.True(session.Depths.All(static depth => depth is >= 1 and <= 3), $"seed {seed}");
        Assert.InRange(session.Depths.Count(static depth => depth >= 2) / 600.0, 0.567, 0.767);
        Assert.InRange(session.Depths.Count(static depth => depth == 3) / 600.0, 0.233, 0.433);
    }
}
