using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// Parallel scaling's two ends (Chen et al. 2025): one row per token becomes a row per stream on the way in, and a gate makes one hidden state of them on the
/// way out. Between the two a stream is a row like any other.
/// </summary>
internal sealed class StreamMixer
{
    private readonly IBackend backend;
    private readonly int hidden;
    private readonly LayerStack layers;
    private readonly Gate?[] gates;
    private readonly RowSet first = new();
    private readonly List<int> expansion = [];
    private readonly Activations entering, expandedQkv;
    private readonly float[] hostWeights;

    /// <param name="arena">Holds what is loaded.</param>
    /// <param name="plan">What to compute; has streams.</param>
    /// <param name="layers">Its layers.</param>
    /// <param name="tokens">The most tokens mixed at a time.</param>
    public StreamMixer(DeviceArena arena, ModelPlan plan, LayerStack layers, int tokens)
    {
        this.layers = layers;
        backend = arena.Backend;
        hidden = plan.HiddenSize;
        entering = arena.Allocate(arena.MaxRows, hidden);
        // What a token computes before the first prefix is the same in every stream, and computed once.
        expandedQkv = arena.Allocate(arena.MaxRows, plan.Layers.Blocks[plan.Layers.Steps[0].Block].Attention!.QkvWidth);
        gates = [.. plan.Streams!.Sets.Select(set => set.Gate is null ? null : new Gate(arena, set.Gate, set.Count, hidden, tokens))];
        hostWeights = new float[tokens * plan.Streams.Sets.Max(static set => set.Count)];
    }

    /// <summary>Streams of a set.</summary>
    public int StreamsOf(int set) => gates[set]?.Streams ?? 1;

    /// <summary>Embeds the entering tokens and runs the first step's attention; afterwards <paramref name="all"/> is selected.</summary>
    public void Enter(StepPlan step, RowSet all, DeviceWeights embedding)
    {
        first.TakeEntering(step, firstStreamsOnly: true);
        entering.Rows = first.Rows.Length;
        backend.SelectRows(first);
        backend.Embed(embedding, entering);
        Activations qkv = layers.Project(0, entering);

        expansion.Clear();
        int leader = -1;
        foreach (RowRun run in all.Runs)
        {
            leader += step.Tracks[run.Track].Stream == 0 ? 1 : 0;
            for (int i = 0; i < run.RowCount; i++)
            {
                expansion.Add(first.Runs[leader].FirstRow + i);
            }
        }
        ReadOnlySpan<int> rows = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(expansion);
        backend.Gather(qkv, rows, expandedQkv);
        backend.Gather(entering, rows, layers.Residual);
        backend.SelectRows(all);
        layers.Attend(0, step, all, expandedQkv);
    }

    /// <summary>Mixes the streams of some tokens.</summary>
    /// <param name="set">Their set, of more than one stream.</param>
    /// <param name="states">Final hidden states after the final norm, [tokens × P, hidden], the streams of a token together.</param>
    /// <param name="mixed">[tokens, hidden].</param>
    public void Mix(int set, Activations states, Activations mixed)
    {
        Gate gate = gates[set]!;
        int tokens = states.Rows / gate.Streams;
        gate.SideBySide.Rows = gate.Inner.Rows = gate.Weights.Rows = mixed.Rows = tokens;
        backend.Interleave(states, gate.Streams, gate.SideBySide);
        backend.Multiply(gate.In, gate.SideBySide, gate.Inner);
        backend.Activate(Activation.Silu, gate.Inner, gate.Inner);
        backend.Multiply(gate.Out, gate.Inner, gate.Weights);
        backend.MixStreams(gate.Weights, states, gate.Smoothing, mixed);
        backend.ReadRows(gate.Weights, hostWeights.AsSpan(0, tokens * gate.Streams));
    }

    /// <summary>What each stream of a token was given in the last <see cref="Mix"/>, [P]; empty where the set has one stream.</summary>
    public ReadOnlySpan<float> WeightsOf(int set, int token) =>
        gates[set] is { } gate ? hostWeights.AsSpan(token * gate.Streams, gate.Streams) : [];

    private sealed class Gate(DeviceArena arena, StreamGatePlan plan, int streams, int hidden, int tokens)
    {
        public int Streams { get; } = streams;

        public float Smoothing { get; } = plan.Smoothing;

        public DeviceWeights In { get; } = arena.Linear(plan.In);

        public DeviceWeights Out { get; } = arena.Linear(plan.Out);

        public Activations SideBySide { get; } = arena.Allocate(tokens, hidden * streams);

        public Activations Inner { get; } = arena.Allocate(tokens, plan.In.Outputs);

        public Activations Weights { get; } = arena.Allocate(tokens, streams);
    }
}
