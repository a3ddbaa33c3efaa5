namespace Engine.Tests;

/// <summary>What a warm operation allocates.</summary>
internal static class Allocation
{
    private const int Attempts = 10;

    /// <summary>
    /// Bytes that <paramref name="round"/> allocates on the calling thread: the least of several attempts, 0 as soon as one shows it. What the
    /// round itself allocates is in every attempt. What is not the round's own is in one or two of them: when the garbage collector stops this
    /// thread, which any other test may cause, it takes away the rest of the thread's allocation buffer (up to 8 KiB), and the counter takes
    /// the rest for allocated; and the runtime may allocate once where it compiles a method again.
    /// </summary>
    public static long Of(Action round)
    {
        long least = long.MaxValue;
        for (int attempt = 0; attempt < Attempts && least > 0; attempt++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            round();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        return least;
    }
}
