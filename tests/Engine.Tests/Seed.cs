namespace Engine.Tests;

/// <summary>Fresh random numbers whose seed is in the test's output, which a failure prints.</summary>
internal static class Seed
{
    /// <summary>A generator with a new seed.</summary>
    public static Random Fresh()
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        return new Random(seed);
    }
}
