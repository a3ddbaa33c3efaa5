namespace Engine.Tests;

/// <summary>What a warm operation allocates.</summary>
internal static class Allocation
{
    private const int Attempts = 10;

    /// <summary>
    /// Bytes that <paramref name="round"/> allocates on the calling thread: the least of several attempts, 0 as soon as one shows it. What the
    /// round itself allocates is in every attempt; what the runtime allocates once, where it compiles a method again, is not.
    /// </summary>
    /// <remarks>
    /// When the garbage collector stops a thread, which any other test may cause, it takes away the rest of the thread's allocation buffer (up
    /// to 8 KiB), and the counter takes that rest for allocated. So a collection comes first: it leaves no buffer, and none is made until the
    /// thread allocates. It also drops what the runtime caches weakly, so a round that needs such a cache is found out.
    /// </remarks>
    public static long Of(Action round)
    {
        long least = long.MaxValue;
        for (int attempt = 0; attempt < Attempts && least > 0; attempt++)
        {
            GC.Collect();
            long before = GC.GetAllocatedBytesForCurrentThread();
            round();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        return least;
    }
}
