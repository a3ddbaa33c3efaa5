namespace Engine.Sampling;

/// <summary>
/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a block cipher of few rounds over a counter.
/// The n-th number depends on the seed and n alone, so a sequence draws the same numbers whatever runs beside it, and can be resumed
/// anywhere.
/// </summary>
internal static class CounterRandom
{
    private const uint MultiplierA = 0xD2511F53, MultiplierB = 0xCD9E8D57;
    private const uint KeyStepA = 0x9E3779B9, KeyStepB = 0xBB67AE85;
    private const int Rounds = 10;

    /// <summary>The n-th number of a seed's stream, uniform in [0, 1) with 53 bits.</summary>
    public static double Uniform(ulong seed, ulong n)
    {
        (uint a, uint b, _, _) = Block((uint)n, (uint)(n >> 32), 0, 0, (uint)seed, (uint)(seed >> 32));
        return ((((ulong)b << 32) | a) >> 11) * (1.0 / (1UL << 53));
    }

    /// <summary>128 random bits from a 128-bit counter and a 64-bit key.</summary>
    public static (uint A, uint B, uint C, uint D) Block(uint a, uint b, uint c, uint d, uint keyA, uint keyB)
    {
        for (int round = 0; round < Rounds; round++)
        {
            ulong productA = (ulong)MultiplierA * a;
            ulong productB = (ulong)MultiplierB * c;
            (a, b, c, d) = ((uint)(productB >> 32) ^ b ^ keyA, (uint)productB, (uint)(productA >> 32) ^ d ^ keyB, (uint)productA);
            keyA += KeyStepA;
            keyB += KeyStepB;
        }
        return (a, b, c, d);
    }
}
