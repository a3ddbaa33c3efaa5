using System.Diagnostics;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul;

namespace Engine.Cpu;

/// <summary>
/// How fast a team reads memory: the ceiling of decoding, because every token reads every weight once.
/// </summary>
public static unsafe class MemoryBandwidth
{
    private const long BytesPerThread = 96L << 20;
    private const int Repetitions = 9;

    /// <summary>Reads a buffer far larger than any cache with a number of threads, several times.</summary>
    /// <returns>Bytes per second of the fastest pass: other work on the machine can only slow a pass down.</returns>
    public static double Measure(int threads)
    {
        using var team = new ThreadTeam(threads);
        return Measure(team);
    }

    internal static double Measure(ThreadTeam team)
    {
        // A quarter of the memory at most; where that binds, it is still far beyond the caches.
        long share = Math.Min(BytesPerThread, GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 4 / team.Threads) & ~4095L;
        long bytes = share * team.Threads;
        using var memory = new PanelMemory(bytes);
        var work = new Work { Address = memory.Address, Bytes = bytes };
        team.Run(&Touch, &work);
        double best = double.MaxValue;
        for (int repetition = 0; repetition < Repetitions; repetition++)
        {
            long start = Stopwatch.GetTimestamp();
            team.Run(&Read, &work);
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
        return bytes / best;
    }

    private struct Work
    {
        public byte* Address;
        public long Bytes;
        public long Sink;
    }

    private static void Touch(void* state, int thread, int threads)
    {
        var work = (Work*)state;
        long share = work->Bytes / threads;
        new Span<byte>(work->Address + thread * share, (int)share).Fill(1);
    }

    private static void Read(void* state, int thread, int threads)
    {
        var work = (Work*)state;
        long share = work->Bytes / threads;
        byte* address = work->Address + thread * share, end = address + share;
        Vector512<long> a = default, b = default, c = default, d = default;
        for (; address < end; address += 256)
        {
            a ^= Vector512.Load((long*)address);
            b ^= Vector512.Load((long*)(address + 64));
            c ^= Vector512.Load((long*)(address + 128));
            d ^= Vector512.Load((long*)(address + 192));
        }
        Interlocked.Add(ref work->Sink, Vector512.Sum(a ^ b ^ c ^ d));
    }
}
