using Engine.Execution;

namespace Engine.Tests.Execution;

/// <summary>
/// Feeds several sequences as a server would: they begin at different steps, new tokens enter while earlier ones are still inside, some steps leave
/// sequences out.
/// </summary>
internal sealed class DepthwiseFlow(ModelHarness model, int[][] sequences, Random random)
{
    private readonly int[] entered = new int[sequences.Length];
    private readonly int[] finished = new int[sequences.Length];

    /// <summary>Steps that it took.</summary>
    public int Steps { get; private set; }

    /// <summary>Runs everything; returns the logits of every token, by sequence. All pages are free again afterwards.</summary>
    public float[][][] Run()
    {
        float[][][] logits = [.. sequences.Select(static tokens => new float[tokens.Length][])];
        KvTrack[] tracks = [.. sequences.Select(_ => model.NewTrack())];
        StepPlan plan = new(model.Cache.SlotCount);
        while (Enumerable.Range(0, sequences.Length).Any(s => finished[s] < sequences[s].Length))
        {
            Steps++;
            plan.Clear();
            List<int> taking = [];
            int room = model.Executor.MaxRows - entered.Zip(finished, static (e, f) => e - f).Sum();
            for (int s = 0; s < sequences.Length; s++)
            {
                if (finished[s] == sequences[s].Length || random.Next(4) == 0)
                {
                    continue;
                }
                int count = Math.Min(Math.Min(room, sequences[s].Length - entered[s]), random.Next(3) == 0 ? 0 : random.Next(1, 9));
                room -= count;
                Assert.True(model.Cache.TryReserve(tracks[s], entered[s] - finished[s] + count));
                model.Cache.AddTrack(plan, tracks[s], entered[s] - finished[s] + count, sequence: s);
                for (int i = 0; i < count; i++)
                {
                    plan.AddRow(entered[s], sequences[s][entered[s]], logits: true);
                    entered[s]++;
                }
                taking.Add(s);
            }
            model.Executor.Step(plan, model.Cache.Storage, (in FinishedRow row, Span<float> values) =>
            {
                Assert.Equal(finished[row.Sequence]++, row.Position);
                logits[row.Sequence][row.Position] = values.ToArray();
            });
            for (int track = 0; track < taking.Count; track++)
            {
                model.Cache.Advance(tracks[taking[track]], plan, track);
                model.Cache.Trim(tracks[taking[track]]);
            }
        }
        foreach (KvTrack track in tracks)
        {
            model.Cache.Release(track);
        }
        return logits;
    }
}
