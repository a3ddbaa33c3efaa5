namespace Engine.Tests.Sampling;

/// <summary>Random logits of several characters, from a fresh seed that failures print.</summary>
internal static class Logits
{
    public static int FreshSeed() => Random.Shared.Next();

    /// <summary>Gaussian, peaked, flat, with many ties, or with forbidden tokens; chosen by the generator.</summary>
    public static float[] Any(Random random, int count)
    {
        float spread = (float)Math.Pow(10, random.NextDouble() * 2.5 - 1);
        float[] logits = [.. Enumerable.Range(0, count).Select(_ => (float)Gaussian(random) * spread)];
        switch (random.Next(4))
        {
            case 0:
                for (int i = 0; i < count; i++)
                {
                    logits[i] = MathF.Round(logits[i]);
                }
                break;
            case 1:
                for (int i = 0; i < count; i++)
                {
                    logits[i] = random.Next(3) == 0 && i != count / 2 ? float.NegativeInfinity : logits[i];
                }
                break;
        }
        return logits;
    }

    public static double Gaussian(Random random) =>
        Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
}
