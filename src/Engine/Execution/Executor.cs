using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Execution;

/// <summary>Says how far loading has come.</summary>
/// <param name="BytesLoaded">Packed bytes so far.</param>
/// <param name="Fraction">0 … 1, by steps of the model.</param>
public readonly record struct LoadProgress(long BytesLoaded, double Fraction);

/// <summary>What a model has computed since it was loaded; differences tell what a stretch of time has cost.</summary>
/// <param name="Steps">Forward passes.</param>
/// <param name="SequenceSteps">Sequences that took part, summed over the passes: divided by <paramref name="Steps"/>, the mean batch.</param>
/// <param name="Tokens">Tokens that have gone through the model.</param>
/// <param name="RowsRun">Rows times layers: what tokens that leave early save.</param>
/// <param name="Experts">What mixtures of experts have read.</param>
public readonly record struct WorkDone(long Steps, long SequenceSteps, long Tokens, long RowsRun, ExpertTraffic Experts);

/// <summary>How tokens of a Mixture-of-Recursions model with expert choice are given their depths.</summary>
public enum DepthSelection
{
    /// <summary>Every token by itself, from its router's logit: the same whether it comes in a prompt or is generated. For generation.</summary>
    Causal,
    /// <summary>The best part of all tokens that enter together, as the training code does: depends on later tokens. For comparison with it.</summary>
    Official,
}

/// <summary>
/// The forward pass. There is one: prefill and decode, one sequence and a hundred, every device and every plan go through <see cref="Step"/>.
/// Rows enter, run the layers, and finish. In a model that routes tokens to depths a row goes one depth further in each step, beside rows of any other
/// sequence and depth, and stays inside between steps; in all others it finishes in the step it entered in. Not safe for concurrent use.
/// </summary>
public sealed class Executor : IDisposable
{
    /// <summary>
    /// Tokens whose logits are computed at a time; more are done in turns. Each turn reads the whole head, so a batch that decodes should fit one; rows that are
    /// not used cost no memory.
    /// </summary>
    private const int LogitChunk = 32;

    private readonly IBackend backend;
    private readonly DeviceArena arena;
    private readonly DeviceWeights embedding, finalNorm, head;
    private readonly LayerStack layers;
    private readonly DepthLoop? loop;
    private readonly StreamMixer? mixer;
    private readonly Activations states, mixed, logits;
    private readonly RowSet rows = new();
    private readonly List<LeavingRow> leaving = [];
    private readonly List<int> selected = [];
    private readonly float[] hostLogits;
    private readonly Action<int> deliver;
    private readonly List<Delivery> deliveries = [];
    private FinishedRowConsumer? consumer;
    private long steps, sequenceSteps, tokens;

    private Executor(
        ModelPlan plan, Checkpoint checkpoint, IBackend backend, int maxRows, DepthSelection selection, int? expertsPerToken,
        IProgress<LoadProgress>? progress)
    {
        Plan = plan;
        MaxRows = maxRows;
        Selection = selection;
        this.backend = backend;
        deliver = Deliver;
        arena = new DeviceArena(backend, checkpoint, maxRows);
        int loaded = 0;
        int parts = plan.Layers.Steps.Length + 1;
        void Report() => progress?.Report(new LoadProgress(WeightBytes, (double)++loaded / parts));
        try
        {
            head = arena.Linear(plan.Head);
            embedding = arena.Own(backend.LoadEmbedding(plan.Embedding, plan.HiddenSize, checkpoint, plan.Head, head));
            finalNorm = arena.Norm(plan.FinalNorm, plan.Head.Inputs)!;
            Report();
            layers = new LayerStack(arena, plan, expertsPerToken, Report);
            loop = plan.Layers.Recursion is { Router: not null } recursion ? new DepthLoop(arena, plan, recursion, layers, selection) : null;
            mixer = plan.Streams is null ? null : new StreamMixer(arena, plan, layers, LogitChunk);
            int streams = plan.Streams?.Sets.Max(static set => set.Count) ?? 1;
            states = arena.Allocate(LogitChunk * streams, plan.Head.Inputs);
            mixed = streams == 1 ? states : arena.Allocate(LogitChunk, plan.Head.Inputs);
            logits = arena.Allocate(LogitChunk, plan.VocabularySize);
            hostLogits = new float[LogitChunk * plan.VocabularySize];
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>What is computed.</summary>
    public ModelPlan Plan { get; }

    /// <summary>The most rows that may enter in a step.</summary>
    public int MaxRows { get; }

    /// <summary>How depths are chosen, where the plan has a router that lets depths choose.</summary>
    public DepthSelection Selection { get; }

    /// <summary>Bytes of weights that are packed on the device now.</summary>
    public long WeightBytes => arena.WeightBytes;

    /// <summary>What has been computed so far.</summary>
    public WorkDone Work => new(steps, sequenceSteps, tokens, layers.RowsRun, backend.ExpertTraffic);

    /// <summary>Told what routers of experts choose in every step; null costs nothing.</summary>
    public IExpertObserver? ExpertObserver
    {
        get => layers.ExpertObserver;
        set => layers.ExpertObserver = value;
    }

    /// <summary>Shown what goes into linear maps in every step; null costs nothing.</summary>
    public ILinearObserver? LinearObserver
    {
        get => layers.LinearObserver;
        set => layers.LinearObserver = value;
    }

    /// <summary>Shown the residual stream before and after each layer of every step; null costs nothing.</summary>
    public ILayerObserver? LayerObserver
    {
        get => layers.LayerObserver;
        set => layers.LayerObserver = value;
    }

    /// <summary>Rows stay inside between steps.</summary>
    public bool KeepsRows => loop is not null;

    /// <summary>Packs all weights of a plan.</summary>
    /// <param name="plan">What to compute.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <param name="backend">The device; outlives the executor.</param>
    /// <param name="maxRows">The most rows a step may have.</param>
    /// <param name="progress">Told after each layer.</param>
    /// <param name="selection">How depths choose tokens, where they do.</param>
    /// <param name="expertsPerToken">
    /// Experts that mixtures of experts send a token to, instead of the plan's number; where a layer has fewer, those. Weights that the plan does not
    /// normalise then sum to something else than in training.
    /// </param>
    /// <exception cref="EngineException">A tensor is missing, or its shape or format does not fit. Nothing stays allocated.</exception>
    public static Executor Load(
        ModelPlan plan, Checkpoint checkpoint, IBackend backend, int maxRows = 512, IProgress<LoadProgress>? progress = null,
        DepthSelection selection = DepthSelection.Causal, int? expertsPerToken = null) =>
        new(plan, checkpoint, backend, maxRows, selection, expertsPerToken, progress);

    /// <summary>
    /// Lets the rows of <paramref name="step"/> enter, runs them and the rows inside whose tracks are in the step, and hands every row that finishes to
    /// <paramref name="consume"/>. What was appended to <paramref name="kv"/> is noted in the step.
    /// </summary>
    public void Step(StepPlan step, KvStorage kv, FinishedRowConsumer consume)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(step.Rows.Length, MaxRows);
        if (step.Tracks.Length == 0)
        {
            return;
        }
        steps++;
        foreach (Track track in step.Tracks)
        {
            sequenceSteps += track.Stream == 0 ? 1 : 0;
        }
        backend.BeginStep(step, kv);
        try
        {
            rows.TakeEntering(step);
            leaving.Clear();
            int run = Enter(step);
            if (loop is null)
            {
                RunLayers(run, Plan.Layers.Steps.Length, step);
                ListLeaving(step);
                Finish(consume);
                return;
            }
            RunLayers(run, loop.FirstStep, step);
            loop.Advance(step, rows);
            while (loop.TakeLeaving(step, rows, leaving))
            {
                backend.SelectRows(rows);
                RunLayers(loop.EndStep, Plan.Layers.Steps.Length, step);
                Finish(consume);
                leaving.Clear();
            }
        }
        finally
        {
            backend.EndStep();
        }
    }

    /// <summary>Forgets the rows of a sequence that are inside.</summary>
    public void Drop(int sequence) => loop?.Drop(sequence);

    /// <inheritdoc/>
    public void Dispose() => arena.Dispose();

    /// <summary>Brings the entering rows into the residual stream.</summary>
    /// <returns>The layer step that comes next.</returns>
    private int Enter(StepPlan step)
    {
        layers.Enter(rows.Rows.Length);
        if (rows.Rows.Length == 0)
        {
            return 0;
        }
        if (mixer is null)
        {
            backend.SelectRows(rows);
            backend.Embed(embedding, layers.Residual);
            return 0;
        }
        mixer.Enter(step, rows, embedding);
        layers.FeedForward(0, rows);
        return 1;
    }

    private void RunLayers(int first, int end, StepPlan step)
    {
        if (rows.Rows.Length == 0)
        {
            return;
        }
        for (int i = first; i < end; i++)
        {
            if (rows.SetWritesKv(Plan.Layers.Steps[i].WritesKv))
            {
                backend.SelectRows(rows);
            }
            layers.Run(i, step, rows);
        }
    }

    /// <summary>Without a loop every token that entered leaves: one entry for all its streams.</summary>
    private void ListLeaving(StepPlan step)
    {
        ReadOnlySpan<int> wanted = step.LogitRows;
        int depth = Plan.Layers.Recursion?.Depths ?? 1;
        foreach (RowRun run in rows.Runs)
        {
            Track track = step.Tracks[run.Track];
            if (track.Stream != 0)
            {
                continue;
            }
            for (int i = 0; i < run.RowCount; i++)
            {
                bool wants = !wanted.IsEmpty && wanted[0] == track.FirstRow + i;
                wanted = wants ? wanted[1..] : wanted;
                leaving.Add(new LeavingRow(run.FirstRow + i, run.RowCount, track, rows.Rows[run.FirstRow + i].Position, depth, wants));
            }
        }
    }

    /// <summary>Final norm, mixing and head for those that want logits; a sequence's tokens are handed over in order.</summary>
    private void Finish(FinishedRowConsumer consume)
    {
        int pending = 0, first = 0;
        tokens += leaving.Count;
        for (int i = 0; i < leaving.Count; i++)
        {
            LeavingRow row = leaving[i];
            bool fits = pending == 0
                || (pending < LogitChunk && first + pending == i && leaving[first].Track.StreamSet == row.Track.StreamSet);
            if (pending > 0 && (!fits || !row.WantsLogits))
            {
                ComputeLogits(first, pending, consume);
                pending = 0;
            }
            if (!row.WantsLogits)
            {
                consume(new FinishedRow(row.Track.Sequence, row.Position, row.Depth, []), []);
                continue;
            }
            first = pending == 0 ? i : first;
            pending++;
        }
        if (pending > 0)
        {
            ComputeLogits(first, pending, consume);
        }
    }

    private void ComputeLogits(int first, int count, FinishedRowConsumer consume)
    {
        int vocabulary = Plan.VocabularySize;
        int set = leaving[first].Track.StreamSet;
        int streams = mixer?.StreamsOf(set) ?? 1;
        selected.Clear();
        for (int i = first; i < first + count; i++)
        {
            for (int stream = 0; stream < streams; stream++)
            {
                selected.Add(leaving[i].Row + stream * leaving[i].StreamStride);
            }
        }
        backend.Gather(layers.Residual, System.Runtime.InteropServices.CollectionsMarshal.AsSpan(selected), states);
        backend.Normalize(finalNorm, states, states);
        if (streams > 1)
        {
            mixer!.Mix(set, states, mixed);
        }
        logits.Rows = count;
        backend.Multiply(head, streams == 1 ? states : mixed, logits);
        backend.ReadRows(logits, hostLogits.AsSpan(0, count * vocabulary));
        deliveries.Clear();
        for (int i = 0, end; i < count; i = end)
        {
            end = i + 1;
            while (end < count && leaving[first + end].Track.Sequence == leaving[first + i].Track.Sequence)
            {
                end++;
            }
            deliveries.Add(new Delivery(first + i, end - i, i));
        }
        consumer = consume;
        backend.ForEach(deliveries.Count, deliver);
    }

    private void Deliver(int index)
    {
        Delivery delivery = deliveries[index];
        int vocabulary = Plan.VocabularySize;
        for (int i = 0; i < delivery.Count; i++)
        {
            LeavingRow row = leaving[delivery.FirstLeaving + i];
            int place = delivery.FirstLogits + i;
            ReadOnlySpan<float> weights = mixer is null ? [] : mixer.WeightsOf(row.Track.StreamSet, place);
            consumer!(new FinishedRow(row.Track.Sequence, row.Position, row.Depth, weights), hostLogits.AsSpan(place * vocabulary, vocabulary));
        }
    }

    /// <summary>Tokens of one sequence whose logits were computed together.</summary>
    private readonly record struct Delivery(int FirstLeaving, int Count, int FirstLogits);
}

/// <summary>A token whose layers are all done.</summary>
/// <param name="Row">Row of its first stream in the residual stream.</param>
/// <param name="StreamStride">Rows from a stream to the next.</param>
/// <param name="Track">Track of its first stream.</param>
/// <param name="Position">Position in the sequence.</param>
/// <param name="Depth">Recursions it went through.</param>
/// <param name="WantsLogits">Its logits are asked for.</param>
internal readonly record struct LeavingRow(int Row, int StreamStride, Track Track, int Position, int Depth, bool WantsLogits);
