namespace Engine.Cpu.Kernels;

/// <summary>Which part of the work a thread does: contiguous parts whose sizes differ by one at most.</summary>
internal static class Share
{
    public static (long First, long End) Of(long items, int thread, int threads) => (items * thread / threads, items * (thread + 1) / threads);
}
