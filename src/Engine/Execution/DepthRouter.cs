using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// Asks the routers of a recursion about lanes and records what they decide: which depth a token goes to (token choice), or whether a depth takes it (expert choice).
/// </summary>
internal sealed class DepthRouter
{
    private readonly DeviceArena arena;
    private readonly RecursionPlan recursion;
    private readonly DepthRouterPlan plan;
    private readonly DepthSelection selection;
    private readonly RouterWeights[] routers, auxiliaries;
    private readonly Activations stream;
    private readonly Lane[] lanes;
    private float[] outputs = [], candidateWeights = [];
    private bool[] enters = [];

    /// <param name="arena">Where weights and scratch come from.</param>
    /// <param name="recursion">A recursion with a router.</param>
    /// <param name="selection">Who decides under expert choice: each token by itself, or those that entered together.</param>
    /// <param name="stream">x of every lane, [lanes, hidden].</param>
    /// <param name="lanes">The lanes, which decisions are written to.</param>
    public DepthRouter(DeviceArena arena, RecursionPlan recursion, DepthSelection selection, Activations stream, Lane[] lanes)
    {
        this.arena = arena;
        this.recursion = recursion;
        this.selection = selection;
        this.stream = stream;
        this.lanes = lanes;
        plan = recursion.Router!;
        routers = [.. plan.Networks.Select(network => new RouterWeights(arena, network))];
        auxiliaries = [.. plan.Auxiliary.Select(network => new RouterWeights(arena, network))];
    }

    /// <summary>With shared keys and values every token writes those of depth 0, whether or not its output counts.</summary>
    public required bool RunsAllAtFirst { get; init; }

    /// <summary>Token choice: gives lanes that were just admitted, at most a step's rows, their depths.</summary>
    public void ChooseDepths(ReadOnlySpan<int> admitted)
    {
        Span<float> z = Evaluate(routers[0], admitted, plan.Temperature);
        for (int i = 0; i < admitted.Length; i++)
        {
            ref Lane lane = ref lanes[admitted[i]];
            (lane.LastDepth, lane.Weight) = DepthRouting.ChooseDepth(plan, z.Slice(i * recursion.Depths, recursion.Depths));
            lane.State = LaneState.Enters;
        }
    }

    /// <summary>Expert choice: decides which of the lanes that have reached a depth go through it. Those of a track follow one another in position order.</summary>
    public void Route(int depth, ReadOnlySpan<int> candidates)
    {
        for (int first = 0; first < candidates.Length; first += arena.MaxRows)
        {
            Score(depth, candidates.Slice(first, Math.Min(arena.MaxRows, candidates.Length - first)));
        }
        for (int first = 0, end; selection == DepthSelection.Official && first < candidates.Length; first = end)
        {
            Track track = lanes[candidates[first]].Track;
            end = first + 1;
            while (end < candidates.Length && lanes[candidates[end]].Track == track)
            {
                end++;
            }
            SelectBest(depth, candidates[first..end]);
        }
        foreach (int lane in candidates)
        {
            Decide(ref lanes[lane], depth);
        }
    }

    /// <summary>Asks the routers of a depth about some lanes, of any tracks.</summary>
    private void Score(int depth, ReadOnlySpan<int> candidates)
    {
        if (auxiliaries.Length > 0)
        {
            ReadOnlySpan<float> predicted = Evaluate(auxiliaries[depth], candidates, 1f);
            for (int i = 0; i < candidates.Length; i++)
            {
                lanes[candidates[i]].Auxiliary = predicted[i];
            }
        }
        ReadOnlySpan<float> z = Evaluate(routers[depth], candidates, plan.Temperature);
        for (int i = 0; i < candidates.Length; i++)
        {
            ref Lane lane = ref lanes[candidates[i]];
            lane.Weight = DepthRouting.Weight(plan, z[i]);
            lane.Chosen = DepthRouting.Enters(plan, depth, z[i], lane.Auxiliary);
        }
    }

    /// <summary>The tokens of a track that entered together compete for the places of a depth.</summary>
    private void SelectBest(int depth, ReadOnlySpan<int> candidates)
    {
        if (candidateWeights.Length < candidates.Length)
        {
            candidateWeights = new float[candidates.Length];
            enters = new bool[candidates.Length];
        }
        for (int i = 0; i < candidates.Length; i++)
        {
            candidateWeights[i] = lanes[candidates[i]].Weight;
        }
        DepthRouting.Best(plan.Capacities[depth], lanes[candidates[0]].Together, candidateWeights.AsSpan(0, candidates.Length), enters);
        for (int i = 0; i < candidates.Length; i++)
        {
            lanes[candidates[i]].Chosen = enters[i];
        }
    }

    private void Decide(ref Lane lane, int depth)
    {
        bool runsUnseen = !lane.Chosen && depth == 0 && RunsAllAtFirst;
        lane.State = lane.Chosen || runsUnseen ? LaneState.Enters : LaneState.Through;
        lane.Unseen = runsUnseen;
        lane.Weight = runsUnseen ? 0 : plan.Weighted ? lane.Weight : 1;
    }

    /// <summary>Runs a router on x of some lanes; the result, [lanes, outputs], is valid until the next call.</summary>
    private Span<float> Evaluate(RouterWeights network, ReadOnlySpan<int> candidates, float temperature)
    {
        Activations input = arena.Scratch('r', stream.Width, candidates.Length);
        arena.Backend.Gather(stream, candidates, input);
        if (temperature != 1)
        {
            arena.Backend.Scale(input, 1 / temperature);
        }
        Activations z = arena.Scratch('z', network.In.Outputs, candidates.Length);
        arena.Backend.Multiply(network.InWeights, input, z);
        if (network.Out is not null)
        {
            arena.Backend.Activate(Activation.Gelu, z, z);
            Activations second = arena.Scratch('Z', network.Out.Outputs, candidates.Length);
            arena.Backend.Multiply(network.OutWeights!, z, second);
            z = second;
        }
        int count = candidates.Length * z.Width;
        if (outputs.Length < count)
        {
            outputs = new float[Math.Max(count, arena.MaxRows * z.Width)];
        }
        arena.Backend.ReadRows(z, outputs.AsSpan(0, count));
        return outputs.AsSpan(0, count);
    }

    private sealed class RouterWeights(DeviceArena arena, RouterNetwork network)
    {
        public LinearPlan In => network.In;

        public LinearPlan? Out => network.Out;

        public DeviceWeights InWeights { get; } = arena.Linear(network.In);

        public DeviceWeights? OutWeights { get; } = network.Out is null ? null : arena.Linear(network.Out);
    }
}
