using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Engine.Cpu;

/// <summary>
/// A fixed team of threads that runs one body on all of them at a time: the caller is thread 0, the others wait for it between runs.
/// A waiting thread first spins (a run starts within a microsecond), then yields, then parks, so an idle team costs no processor time and a team
/// with more threads than processors makes progress. Nothing is allocated by a run. One caller at a time; a body must not start a run.
/// </summary>
internal sealed unsafe class ThreadTeam : IDisposable
{
    // Alone on the processors, spinning bridges the serial code between two runs of a step. Where threads outnumber processors the thread
    // that is waited for may need this very processor, so the wait yields almost at once.
    private static readonly long SpinTicks = Stopwatch.Frequency * 60 / 1_000_000;
    private static readonly long CrowdedSpinTicks = Stopwatch.Frequency * 2 / 1_000_000;
    private static readonly long ParkTicks = Stopwatch.Frequency * 180 / 1_000_000;
    private const int PausesBetweenClockReads = 32;
    private const int CacheLine = 64;

    private readonly Seat[] seats;
    private readonly Scratch[] scratch;
    private readonly long spinTicks;
    private delegate*<void*, int, int, void> body;
    private void* state;
    private int active;
    private Exception? failure;
    private volatile bool failed;
    private volatile bool resting;
    private volatile bool stopping;
    private bool busy;
    private Signals signals;

    /// <summary>Starts the team.</summary>
    /// <param name="threads">Threads in all, the caller included; at least 1.</param>
    public ThreadTeam(int threads)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threads, 1);
        Threads = threads;
        active = threads;
        spinTicks = threads > Environment.ProcessorCount ? CrowdedSpinTicks : SpinTicks;
        scratch = new Scratch[threads + 1];
        seats = new Seat[threads];
        for (int thread = 0; thread < threads; thread++)
        {
            seats[thread] = new Seat();
        }
        for (int thread = 1; thread < threads; thread++)
        {
            int index = thread;
            new Thread(() => Work(index)) { IsBackground = true, Name = $"engine {index}" }.Start();
        }
    }

    /// <summary>Threads in all, the caller included.</summary>
    public int Threads { get; }

    /// <summary>Calls <c>body(state, thread, threads)</c> on every thread and returns when all have finished.</summary>
    /// <exception cref="Exception">The first exception thrown by a body; the others are dropped.</exception>
    public void Run(delegate*<void*, int, int, void> body, void* state) => Run(body, state, Threads);

    /// <summary>As the other overload, on the first <paramref name="threads"/> threads only: work too small to share.</summary>
    public void Run(delegate*<void*, int, int, void> body, void* state, int threads)
    {
        ObjectDisposedException.ThrowIf(stopping, this);
        if (busy)
        {
            throw new InvalidOperationException("The team is already running; a body must not start a run and callers must take turns.");
        }
        busy = true;
        active = Math.Clamp(threads, 1, Threads);
        if (active == 1)
        {
            try
            {
                body(state, 0, 1);
            }
            finally
            {
                busy = false;
            }
            return;
        }

        this.body = body;
        this.state = state;
        resting = false;
        signals.Running = Threads - 1;
        Publish(ref signals.Epoch, signals.Epoch + 1);
        Execute(0);
        Await(ref signals.Running, 0, seats[0], barrier: false);
        busy = false;
        if (failed)
        {
            Exception first = failure!;
            failure = null;
            failed = false;
            signals.Arrived = 0;
            ExceptionDispatchInfo.Throw(first);
        }
    }

    /// <summary>Inside a body: waits until every thread of the run has come here. What was written before is visible after.</summary>
    /// <exception cref="OperationCanceledException">Another thread's body failed and will never come.</exception>
    public void Barrier(int thread)
    {
        if (active == 1)
        {
            return;
        }
        int next = Volatile.Read(ref signals.Phase) + 1;
        if (Interlocked.Increment(ref signals.Arrived) == active)
        {
            signals.Arrived = 0;
            Publish(ref signals.Phase, next);
        }
        else if (!Await(ref signals.Phase, next, seats[thread], barrier: true))
        {
            throw new OperationCanceledException("Another thread of the team failed.");
        }
    }

    /// <summary>Nothing will run soon: waiting threads park at once. The next run wakes them.</summary>
    public void Rest() => resting = true;

    /// <summary>
    /// Memory that belongs to one thread of the team, 64-byte aligned, grown once and kept. Its content is undefined, and a later call for the
    /// same thread may move it.
    /// </summary>
    public byte* ThreadScratch(int thread, nuint bytes) => scratch[thread].Ensure(bytes);

    /// <summary>Memory for all threads of a run; to be asked for by the caller before the run.</summary>
    public byte* SharedScratch(nuint bytes) => scratch[Threads].Ensure(bytes);

    /// <summary>Ends the threads and frees their scratch memory.</summary>
    public void Dispose()
    {
        if (stopping)
        {
            return;
        }
        stopping = true;
        signals.Running = Threads - 1;
        Publish(ref signals.Epoch, signals.Epoch + 1);
        Await(ref signals.Running, 0, seats[0], barrier: false);
        foreach (Seat seat in seats)
        {
            seat.Dispose();
        }
        foreach (ref Scratch memory in scratch.AsSpan())
        {
            memory.Free();
        }
    }

    private void Work(int thread)
    {
        for (int epoch = 1; ; epoch++)
        {
            Await(ref signals.Epoch, epoch, seats[thread], barrier: false);
            bool last = stopping;
            if (!last && thread < active)
            {
                Execute(thread);
            }
            if (Interlocked.Decrement(ref signals.Running) == 0)
            {
                seats[0].Wake();
            }
            if (last)
            {
                return;
            }
        }
    }

    private void Execute(int thread)
    {
        try
        {
            body(state, thread, active);
        }
        catch (Exception exception)
        {
            // The first cause wins: it is stored before failed is set, and only failed makes others throw at the barrier.
            Interlocked.CompareExchange(ref failure, exception, null);
            failed = true;
            Interlocked.MemoryBarrier();
            WakeAll();
        }
    }

    /// <summary>Makes a word visible, and wakes whoever parked before seeing it.</summary>
    private void Publish(ref int word, int value)
    {
        // A full fence between writing the word and reading the parked flags; Await has its mirror image.
        Interlocked.Exchange(ref word, value);
        WakeAll();
    }

    private void WakeAll()
    {
        foreach (Seat seat in seats)
        {
            seat.Wake();
        }
    }

    /// <summary>Waits for a word to have a value; false when a barrier was given up because a body failed.</summary>
    private bool Await(ref int word, int wanted, Seat seat, bool barrier)
    {
        for (int pause = 0; pause < PausesBetweenClockReads; pause++)
        {
            if (Volatile.Read(ref word) == wanted)
            {
                return true;
            }
            Pause();
        }
        return AwaitLong(ref word, wanted, seat, barrier);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool AwaitLong(ref int word, int wanted, Seat seat, bool barrier)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            for (int pause = 0; pause < PausesBetweenClockReads; pause++)
            {
                if (Volatile.Read(ref word) == wanted)
                {
                    return true;
                }
                if (barrier && failed)
                {
                    return Volatile.Read(ref word) == wanted;
                }
                Pause();
            }
            long waited = Stopwatch.GetTimestamp() - start;
            if (waited >= ParkTicks || resting)
            {
                seat.Prepare();
                if (Volatile.Read(ref word) == wanted || (barrier && failed))
                {
                    seat.Cancel();
                }
                else
                {
                    seat.Park();
                }
            }
            else if (waited >= spinTicks)
            {
                Thread.Yield();
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Pause()
    {
        if (X86Base.IsSupported)
        {
            X86Base.Pause();
        }
        else if (ArmBase.IsSupported)
        {
            ArmBase.Yield();
        }
        else
        {
            Thread.SpinWait(1);
        }
    }

    /// <summary>Words that several threads write, each on lines of its own (two: the neighbour line is prefetched with it).</summary>
    [StructLayout(LayoutKind.Explicit, Size = 10 * CacheLine)]
    private struct Signals
    {
        /// <summary>Counts runs; workers wait for the next number.</summary>
        [FieldOffset(2 * CacheLine)]
        public int Epoch;

        /// <summary>Workers that have not finished this run.</summary>
        [FieldOffset(4 * CacheLine)]
        public int Running;

        /// <summary>Threads that have come to the barrier.</summary>
        [FieldOffset(6 * CacheLine)]
        public int Arrived;

        /// <summary>Counts barriers passed.</summary>
        [FieldOffset(8 * CacheLine)]
        public int Phase;
    }

    /// <summary>
    /// Where a thread parks. The waiter announces itself, looks once more and sleeps; the waker publishes, then looks for announcements. Both put
    /// a full fence between their two steps, so one of them always sees the other.
    /// </summary>
    private sealed class Seat : IDisposable
    {
        private readonly AutoResetEvent signal = new(false);
        private int parked;

        public void Prepare() => Interlocked.Exchange(ref parked, 1);

        public void Cancel()
        {
            if (Interlocked.Exchange(ref parked, 0) == 0)
            {
                signal.WaitOne(); // A waker was faster: its signal must not stay behind.
            }
        }

        public void Park() => signal.WaitOne();

        public void Wake()
        {
            if (Volatile.Read(ref parked) != 0 && Interlocked.Exchange(ref parked, 0) == 1)
            {
                signal.Set();
            }
        }

        public void Dispose() => signal.Dispose();
    }

    private struct Scratch
    {
        private byte* memory;
        private nuint capacity;

        public byte* Ensure(nuint bytes)
        {
            if (bytes > capacity)
            {
                Free();
                nuint rounded = (bytes + 4095) & ~(nuint)4095;
                memory = (byte*)NativeMemory.AlignedAlloc(rounded, 4096);
                capacity = rounded;
            }
            return memory;
        }

        public void Free()
        {
            NativeMemory.AlignedFree(memory);
            memory = null;
            capacity = 0;
        }
    }
}
