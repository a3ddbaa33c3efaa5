using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Tests;

/// <summary>A model without the front door: a checkpoint, its plan, an executor and a small page pool, for tests that build their own steps.</summary>
public sealed class ModelHarness : IDisposable
{
    private readonly Checkpoint checkpoint;
    private readonly IBackend backend;

    /// <summary>Loads a checkpoint for a backend; owns both. The plan is the checkpoint's own where none is given.</summary>
    public ModelHarness(
        Checkpoint checkpoint, IBackend backend, KvFormat format = KvFormat.F32, int maxRows = 512, int pageTokens = 16, int pagesPerSlot = 512,
        ModelPlan? plan = null, int? expertsPerToken = null)
    {
        this.checkpoint = checkpoint;
        this.backend = backend;
        Plan = plan ?? ModelPlanReader.Read(checkpoint);
        Executor = Executor.Load(Plan, checkpoint, backend, maxRows, expertsPerToken: expertsPerToken);
        Cache = new KvCache(backend, Plan.Layers.KvSlots, format, pagesPerSlot * Plan.Layers.KvSlots.Length, pageTokens);
    }

    public ModelPlan Plan { get; }

    public Executor Executor { get; }

    public KvCache Cache { get; }

    /// <summary>The model that the repository ships: present on every machine.</summary>
    public static string ShippedModel => Path.Combine(SharedFiles.RepositoryRoot, "src", "Host", "default-model.gguf");

    public KvTrack NewTrack() => new(Cache.SlotCount);

    /// <summary>Lets each track's next tokens enter together, runs until all have finished, and returns the logits of every token, by track.</summary>
    public float[][][] Step(params (KvTrack Track, int[] Tokens)[] parts)
    {
        StepPlan plan = new(Cache.SlotCount);
        float[][][] result = [.. parts.Select(static part => new float[part.Tokens.Length][])];
        int[] starts = [.. parts.Select(static part => part.Track.Length(0))];
        int left = parts.Sum(static part => part.Tokens.Length);
        for (bool enter = true; left > 0; enter = false)
        {
            plan.Clear();
            for (int part = 0; part < parts.Length; part++)
            {
                (KvTrack track, int[] tokens) = parts[part];
                if (enter)
                {
                    Assert.True(Cache.TryReserve(track, tokens.Length), "the test's pool is too small");
                }
                Cache.AddTrack(plan, track, tokens.Length, sequence: part);
                for (int i = 0; enter && i < tokens.Length; i++)
                {
                    plan.AddRow(starts[part] + i, tokens[i], logits: true);
                }
            }
            Executor.Step(plan, Cache.Storage, (in FinishedRow row, Span<float> logits) =>
            {
                result[row.Sequence][row.Position - starts[row.Sequence]] = logits.ToArray();
                Interlocked.Decrement(ref left);
            });
            for (int part = 0; part < parts.Length; part++)
            {
                Cache.Advance(parts[part].Track, plan, part);
            }
        }
        return result;
    }

    /// <summary>Feeds one sequence in chunks of the given size and returns all its logits.</summary>
    public float[][] Run(int[] tokens, int chunk)
    {
        KvTrack track = NewTrack();
        List<float[]> logits = [];
        foreach (int[] part in tokens.Chunk(chunk))
        {
            logits.AddRange(Step((track, part))[0]);
        }
        Cache.Release(track);
        return [.. logits];
    }

    public void Dispose()
    {
        Cache.Dispose();
        Executor.Dispose();
        backend.Dispose();
        checkpoint.Dispose();
    }
}
