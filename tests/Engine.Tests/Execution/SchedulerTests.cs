using Engine.Execution;
using Engine.Plans;
using Engine.Reference;

namespace Engine.Tests.Execution;

/// <summary>The scheduler's policy, on snapshots without a model.</summary>
public sealed class SchedulerTests
{
    [Fact]
    public void Random_sequences_are_planned_fairly_and_completely()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using ReferenceBackend backend = new();
        using KvCache cache = new(backend, [new KvSlotPlan(1, 4), new KvSlotPlan(1, 4)], KvFormat.F32, pageCount: 4000, pageTokens: 4);
        StepPlan plan = new(cache.SlotCount);
        List<Sequence> planned = [];
        List<Sequence> sequences = [.. Enumerable.Range(0, 12).Select(id =>
        {
            int length = random.Next(1, 60);
            KvTrack track = new(cache.SlotCount);
            Assert.True(cache.TryReserve(track, 120));
            return new Sequence(id, [.. Enumerable.Range(0, length).Select(_ => random.Next(1000))], [track]);
        })];

        for (int step = 0; step < 60; step++)
        {
            int maxRows = random.Next(1, 40);
            int decoding = sequences.Count(static sequence => sequence.Pending == 1);
            Scheduler.Assign(sequences, maxRows);
            Scheduler.Fill(plan, cache, sequences, planned);
            Validate(plan, cache, planned, maxRows, $"seed {seed}, step {step}");
            Assert.Equal(Math.Min(maxRows, decoding), planned.Count(static sequence => sequence.Pending == 1));
            Assert.Equal(Math.Min(maxRows, sequences.Sum(static sequence => sequence.Pending)), plan.Rows.Length);
            for (int track = 0; track < plan.Tracks.Length; track++)
            {
                for (int slot = 0; slot < plan.SlotCount; slot++)
                {
                    plan.CountAppended(track, slot, plan.Tracks[track].RowCount);
                }
            }
            Scheduler.Complete(plan, cache, planned);
            foreach (Sequence sequence in planned)
            {
                while (sequence.InFlight > 0)
                {
                    sequence.Finish();
                }
                if (sequence.Pending == 0 && sequence.Count < 100)
                {
                    sequence.Append(random.Next(1000));
                }
            }
            sequences.RemoveAll(static sequence => sequence.Pending == 0);
        }
    }

    /// <summary>What every step plan must satisfy, whoever built it.</summary>
    private static void Validate(StepPlan plan, KvCache cache, List<Sequence> planned, int maxRows, string what)
    {
        Assert.True(plan.Rows.Length <= maxRows, what);
        Assert.Equal(planned.Count, plan.Tracks.Length);
        int row = 0;
        List<int> logitRows = [];
        for (int t = 0; t < plan.Tracks.Length; t++)
        {
            Track track = plan.Tracks[t];
            Assert.Equal(row, track.FirstRow);
            Assert.True(track.RowCount > 0, what);
            for (int i = 0; i < track.RowCount; i++, row++)
            {
                Row current = plan.Rows[row];
                Assert.Equal(t, current.Track);
                Assert.Equal(planned[t].Entered + i, current.Position);
                Assert.Equal(planned[t].Tokens[current.Position], current.Token);
                if (current.Position == planned[t].Count - 1)
                {
                    logitRows.Add(row);
                }
            }
            for (int slot = 0; slot < plan.SlotCount; slot++)
            {
                KvView view = plan.View(t, slot);
                Assert.Equal(planned[t].Entered, view.Length);
                Assert.True(view.PageCount * cache.PageTokens >= view.Length + track.RowCount, what);
                Assert.True(plan.Pages.Slice(view.FirstPage, view.PageCount).SequenceEqual(planned[t].Tracks[0].Pages(slot)[..view.PageCount]), what);
            }
        }
        Assert.Equal(row, plan.Rows.Length);
        Assert.Equal(logitRows, plan.LogitRows.ToArray());
    }
}
