using Engine.Execution;
using Engine.Plans;
using Engine.Reference;

namespace Engine.Tests.Cpu;

/// <summary>
/// Some sequences with random queries, keys and values, fed to a backend in any portions; what attention gives for every token is collected. The
/// same scenario gives the same numbers to every backend, however it is cut.
/// </summary>
internal sealed class AttentionScenario
{
    private readonly float[][] qkv;
    private readonly AttentionPlan plan;
    private readonly RopePlan? rope;

    /// <param name="seed">Decides all numbers.</param>
    /// <param name="heads">Query heads.</param>
    /// <param name="kvHeads">Key heads.</param>
    /// <param name="headDim">Elements of a head.</param>
    /// <param name="lengths">Tokens of each sequence.</param>
    /// <param name="window">Sliding window, or null.</param>
    /// <param name="rope">Rotation, or null.</param>
    /// <param name="latent">Values are the first so many elements of the keys; null where they are their own.</param>
    /// <param name="sinks">Whether heads have sinks; some outweigh all tokens.</param>
    public AttentionScenario(
        int seed, int heads, int kvHeads, int headDim, int[] lengths, int? window = null, RopePlan? rope = null, int? latent = null, bool sinks = false)
    {
        var random = new Random(seed);
        Lengths = lengths;
        plan = new AttentionPlan
        {
            Heads = heads,
            KvHeads = kvHeads,
            HeadDim = headDim,
            Scale = (float)(1.5 / Math.Sqrt(headDim)),
            Qkv = Unused,
            Output = Unused,
            SlidingWindow = window,
            Latent = latent is not { } rank ? null : new LatentPlan
            {
                Rank = rank,
                Query = Unused,
                KeyUp = new HeadLinearPlan(heads, 1, rank, headDim - rank, new WeightRef("up"), 1),
                ValueUp = new HeadLinearPlan(heads, rank, 1, 0, new WeightRef("up"), 1),
            },
            Sinks = sinks ? [.. Enumerable.Range(0, heads).Select(_ => 12 * random.NextSingle() - 4)] : [],
        };
        this.rope = rope;
        qkv = [.. lengths.Select(length => TestRows.Normal(random, length * Width))];
    }

    public int[] Lengths { get; }

    private static LinearPlan Unused { get; } = new(1, [new LinearPart(1, new WeightRef("unused"))]);

    private int Width => plan.QkvWidth;

    private int OutputWidth => plan.Heads * plan.ValueDim;

    public static RopePlan Rope(RopePairing pairing, int dimensions, float magnitude = 1) =>
        new(pairing, [.. Enumerable.Range(0, dimensions / 2).Select(i => Math.Pow(10000, -2.0 * i / dimensions))], magnitude);

    /// <summary>What the reference gives, and how far float32 may be from it; as <see cref="Run"/> returns it.</summary>
    public (float[][] Values, float[][] Tolerances) Expected(KvFormat format, int pageTokens)
    {
        using var reference = new ReferenceBackend();
        var rotated = new List<float>();
        float[][] values = Feed(reference, format, pageTokens, cut: null, rotated);
        float[] rows = [.. rotated];
        int end = 0;
        float[][] tolerances = [.. Lengths.Select(length =>
            AttentionRounding.Tolerances(plan, rows.AsSpan(((end += length) - length) * Width, length * Width), rope is not null))];
        return (values, tolerances);
    }

    /// <summary>Feeds everything and returns the outputs, per sequence [tokens × heads × valueDim].</summary>
    /// <param name="backend">Where.</param>
    /// <param name="format">KV format.</param>
    /// <param name="pageTokens">Tokens of a page.</param>
    /// <param name="cut">Decides which sequences take part in a step and with how many tokens; null: one step with everything.</param>
    public float[][] Run(IBackend backend, KvFormat format, int pageTokens, Random? cut = null) => Feed(backend, format, pageTokens, cut, rotated: null);

    private float[][] Feed(IBackend backend, KvFormat format, int pageTokens, Random? cut, List<float>? rotated)
    {
        int[] pagesOf = [.. Lengths.Select(length => (length + pageTokens - 1) / pageTokens)];
        int pageCount = 2 * pagesOf.Sum() + 3;
        int[] pool = [.. Enumerable.Range(0, pageCount)];
        (cut ?? new Random(1)).Shuffle(pool);
        int used = 0;
        int[][] unused = [.. pagesOf.Select(count => pool[used..(used += count)])];
        int[][] tables = [.. pagesOf.Select(count => pool[used..(used += count)])];

        // Two slots of different shapes, so that neither pages nor views of the one that is used are where they would be if it were alone.
        KvSlotPlan shape = plan.KvSlot;
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 32), shape], format, pageCount, pageTokens);
        using DeviceWeights? rotation = rope is null ? null : backend.LoadRope(rope, Lengths.Max());
        float[][] outputs = [.. Lengths.Select(length => new float[length * OutputWidth])];
        var done = new int[Lengths.Length];
        var step = new StepPlan(2);
        var taken = new int[Lengths.Length];
        while (Enumerable.Range(0, done.Length).Any(s => done[s] < Lengths[s]))
        {
            step.Clear();
            var rows = new List<float>();
            int[] order = [.. Enumerable.Range(0, Lengths.Length)];
            cut?.Shuffle(order);
            foreach (int s in order)
            {
                int left = Lengths[s] - done[s];
                taken[s] = cut is null ? left : cut.Next(3) switch
                {
                    0 => 0,
                    1 => Math.Min(left, 1),
                    _ => cut.Next(Math.Min(left, 3 * pageTokens) + 1),
                };
                if (taken[s] == 0)
                {
                    continue;
                }
                step.AddTrack(s, 0);
                step.SetSlot(0, unused[s], done[s]);
                step.SetSlot(1, tables[s], done[s]);
                for (int t = done[s]; t < done[s] + taken[s]; t++)
                {
                    step.AddRow(t, 0, logits: false);
                }
                rows.AddRange(qkv[s].AsSpan(done[s] * Width, taken[s] * Width));
            }
            if (step.Rows.Length > 0)
            {
                float[] result = RunStep(backend, kv, rotation, step, [.. rows], rotated);
                int row = 0;
                foreach (int s in order.Where(s => taken[s] > 0))
                {
                    result.AsSpan(row * OutputWidth, taken[s] * OutputWidth).CopyTo(outputs[s].AsSpan(done[s] * OutputWidth));
                    row += taken[s];
                    done[s] += taken[s];
                }
            }
        }
        return outputs;
    }

    private float[] RunStep(IBackend backend, KvStorage kv, DeviceWeights? rotation, StepPlan step, float[] values, List<float>? rotated)
    {
        using Activations input = TestRows.Make(backend, values, Width);
        using Activations output = TestRows.Make(backend, input.Rows, OutputWidth);
        TestRows.Begin(backend, step, kv);
        backend.RotateAndAppend(plan, rotation, input, slot: 1);
        rotated?.AddRange(TestRows.Read(backend, input));
        backend.Attend(plan, input, slot: 1, prefixes: null, output);
        backend.EndStep();
        return TestRows.Read(backend, output);
    }
}
