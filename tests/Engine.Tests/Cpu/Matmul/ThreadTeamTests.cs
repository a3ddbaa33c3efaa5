// State structs live on the stack of a test that outlives the run, so the addresses of their references stay put.
#pragma warning disable CS8500
using Engine.Cpu;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

public sealed unsafe class ThreadTeamTests
{
    private struct Work
    {
        public ThreadTeam Team;
        public int[] Seen;
        public int[] Cells;
        public int Rounds;
        public int Failing;
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(9)]
    public void EveryThreadRunsOncePerRun(int threads)
    {
        using var team = new ThreadTeam(threads);
        var work = new Work { Team = team, Seen = new int[threads] };
        for (int run = 0; run < 2000; run++)
        {
            team.Run(&Count, &work);
            if (run % 500 == 0)
            {
                team.Rest();
                Thread.Sleep(2); // Long enough to park.
            }
        }
        Assert.All(work.Seen, static count => Assert.Equal(2000, count));

        static void Count(void* state, int thread, int threads)
        {
            Work* work = (Work*)state;
            Assert.Equal(work->Seen.Length, threads);
            work->Seen[thread]++;
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(5)]
    public void BarrierOrdersWritesOfAllThreads(int threads)
    {
        using var team = new ThreadTeam(threads);
        var work = new Work { Team = team, Cells = new int[threads], Rounds = 300 };
        team.Run(&Rounds, &work);
        Assert.All(work.Cells, static cell => Assert.Equal(300, cell));

        static void Rounds(void* state, int thread, int threads)
        {
            Work* work = (Work*)state;
            for (int round = 0; round < work->Rounds; round++)
            {
                work->Cells[thread] = round + 1;
                work->Team.Barrier(thread);
                for (int other = 0; other < threads; other++)
                {
                    Assert.Equal(round + 1, work->Cells[other]);
                }
                work->Team.Barrier(thread);
            }
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void FailureReachesTheCallerAndReleasesTheBarrier(int failing)
    {
        using var team = new ThreadTeam(3);
        var work = new Work { Team = team, Failing = failing, Seen = new int[3], Rounds = 1 };
        for (int repeat = 0; repeat < 50; repeat++)
        {
            DivideByZeroException exception = Assert.Throws<DivideByZeroException>(() => Call(work));
            Assert.Equal($"thread {failing}", exception.Message);
        }
        Call(work with { Failing = -1 });
        Assert.All(work.Seen, static count => Assert.Equal(1, count));

        static void Call(Work work) => work.Team.Run(&Body, &work);

        static void Body(void* state, int thread, int threads)
        {
            Work* work = (Work*)state;
            if (thread == work->Failing)
            {
                throw new DivideByZeroException($"thread {thread}");
            }
            work->Team.Barrier(thread);
            work->Seen[thread]++;
        }
    }

    [Fact]
    public void ASubsetRunsAndItsBarrierCountsOnlyItself()
    {
        using var team = new ThreadTeam(4);
        for (int subset = 1; subset <= 5; subset++)
        {
            var work = new Work { Team = team, Seen = new int[4] };
            team.Run(&Body, &work, subset);
            Assert.Equal(Math.Min(subset, 4), work.Seen.Sum());
        }

        static void Body(void* state, int thread, int threads)
        {
            Work* work = (Work*)state;
            work->Team.Barrier(thread);
            work->Seen[thread]++;
        }
    }

    [Fact]
    public void ARunInsideARunIsRefused()
    {
        using var team = new ThreadTeam(1);
        var work = new Work { Team = team };
        Assert.Throws<InvalidOperationException>(() => Nest(work));

        static void Nest(Work work) => work.Team.Run(&Body, &work);

        static void Body(void* state, int thread, int threads) => ((Work*)state)->Team.Run(&Body, state);
    }

    [Fact]
    public void RunsAllocateNothing()
    {
        using var team = new ThreadTeam(2);
        var work = new Work { Team = team };
        Work* state = &work;
        team.Run(&Body, state);
        Assert.Equal(0, Allocation.Of(() =>
        {
            for (int run = 0; run < 100; run++)
            {
                team.Run(&Body, state);
            }
        }));

        static void Body(void* state, int thread, int threads) => ((Work*)state)->Team.Barrier(thread);
    }
}
