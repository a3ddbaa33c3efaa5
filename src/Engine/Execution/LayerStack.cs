using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// The packed layers and how one of them runs over the selected rows of a step. Weights are loaded once per plan instance: steps that share a block, and
/// blocks that share only attention or only the feed-forward, share them here.
/// </summary>
internal sealed class LayerStack
{
    private readonly DeviceArena arena;
    private readonly IBackend backend;
    private readonly ModelPlan plan;
    private readonly Layer[] layers;
    private readonly Dictionary<AttentionPlan, AttentionWeights> attentions = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<FeedForwardPlan, FeedForwardWeights> feedForwards = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<LinearPlan, LinearWeights> linears = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<ExpertsPlan, ExpertsWeights> experts = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<RecurrentCellPlan, RouterCell> cells = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<int, ExpertSelection> selections = [];
    private readonly int? expertsPerToken;
    private readonly Dictionary<RopePlan, DeviceWeights> ropes = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<(NormPlan Norm, int Width), DeviceWeights> norms = [];
    private readonly LinearReports reports;
    private readonly ResidualStream stream;

    /// <param name="arena">Holds what is loaded.</param>
    /// <param name="plan">What to compute.</param>
    /// <param name="expertsPerToken">Experts that a token is sent to, instead of the plan's.</param>
    /// <param name="loaded">Called after each step's weights.</param>
    public LayerStack(DeviceArena arena, ModelPlan plan, int? expertsPerToken, Action loaded)
    {
        this.arena = arena;
        this.plan = plan;
        this.expertsPerToken = expertsPerToken;
        backend = arena.Backend;
        reports = new LinearReports(arena);
        stream = new ResidualStream(arena, plan.HiddenSize);
        layers = new Layer[plan.Layers.Steps.Length];
        for (int i = 0; i < layers.Length; i++)
        {
            layers[i] = Load(i);
            loaded();
        }
    }

    /// <summary>The residual stream of the selected rows, [rows, hiddenSize], or of another width where the plan has matrices between sublayers.</summary>
    public Activations Residual => stream.Current;

    /// <summary>Told what routers of experts choose, where there is one.</summary>
    public IExpertObserver? ExpertObserver { get; set; }

    /// <summary>Shown what goes into linear maps.</summary>
    public ILinearObserver? LinearObserver { get; set; }

    /// <summary>Shown the residual stream before and after each step.</summary>
    public ILayerObserver? LayerObserver { get; set; }

    /// <summary>Rows times steps that have run: what the layers have cost so far.</summary>
    public long RowsRun { get; private set; }

    /// <summary>Begins a pass: rows enter the residual stream, at the width of the embedding.</summary>
    public void Enter(int rows) => stream.Enter(rows);

    /// <summary>Runs a step of the <see cref="LayerMap"/> on the residual stream of the selected rows.</summary>
    public void Run(int index, StepPlan step, RowSet rows)
    {
        float[]? before = LayerObserver is null ? null : ReadResidual();
        if (layers[index].Attention is not null)
        {
            Attend(index, step, rows, Project(index, Residual));
        }
        else if (layers[index].AttentionLinear is { } linear)
        {
            Map(linear, layers[index].AttentionNorm!, layers[index].AttentionResidual);
        }
        FeedForward(index, rows);
        if (before is not null)
        {
            LayerObserver?.Ran(index, before, ReadResidual());
        }
    }

    private float[] ReadResidual()
    {
        float[] rows = new float[Residual.Rows * Residual.Width];
        backend.ReadRows(Residual, rows);
        return rows;
    }

    /// <summary>The feed-forward half of a step, where it has one.</summary>
    public void FeedForward(int index, RowSet rows)
    {
        Layer layer = layers[index];
        if (layer.FeedForward is { } feedForward)
        {
            FeedForwardPlan shape = feedForward.Plan;
            Activations normed = Normalize(layer.FeedForwardNorm!, Residual);
            Activations inner = arena.Scratch('i', shape.In.Outputs, normed.Rows);
            Activations activated = arena.Scratch('f', shape.Width, normed.Rows);
            Multiply(shape.In, feedForward.In, normed, inner);
            backend.Activate(shape.Activation, inner, activated, shape.Clamp);
            stream.Change(layer.FeedForwardResidual);
            Multiply(shape.Down, feedForward.Down, activated, Residual, accumulate: true);
        }
        else if (layer.Experts is { } mixture)
        {
            Activations normed = Normalize(layer.FeedForwardNorm!, Residual);
            stream.Change(layer.FeedForwardResidual);
            Mix(index, mixture, normed);
        }
        else if (layer.FeedForwardLinear is { } linear)
        {
            Map(linear, layer.FeedForwardNorm!, layer.FeedForwardResidual);
        }
        RowsRun += rows.Rows.Length;
    }

    /// <summary>A sublayer that is one matrix.</summary>
    private void Map(LinearWeights linear, DeviceWeights norm, LinearWeights? residual)
    {
        Activations normed = Normalize(norm, Residual);
        stream.Change(residual);
        Multiply(linear.Plan, linear.Weights, normed, Residual, accumulate: true);
    }

    private void Mix(int index, ExpertsWeights mixture, Activations normed)
    {
        Activations logits = mixture.Router.Logits(index, normed);
        backend.SelectExperts(mixture.Plan, logits, mixture.PerToken, mixture.Selection);
        if (ExpertObserver is { } observer)
        {
            Report(observer, index, mixture.Selection);
        }
        if (LinearObserver is { } watching)
        {
            reports.Report(watching, mixture.Plan, normed, mixture.Selection);
        }
        backend.ApplyExperts(mixture.Slots, normed, mixture.Selection, Residual);
    }

    private void Multiply(LinearPlan linear, DeviceWeights weights, Activations input, Activations output, bool accumulate = false)
    {
        if (LinearObserver is { } observer)
        {
            reports.Report(observer, linear, input);
        }
        backend.Multiply(weights, input, output, accumulate);
    }

    private void Report(IExpertObserver observer, int index, ExpertSelection selection)
    {
        int count = selection.Rows * selection.Most;
        int[] slots = new int[count];
        float[] weights = new float[count];
        backend.ReadSelection(selection, slots, weights);
        observer.Chosen(index, selection.Most, slots, weights);
    }

    /// <summary>First half of attention: from the residual stream to rotated q, with k and v appended. The result lives until the next projection.</summary>
    public Activations Project(int index, Activations residual)
    {
        AttentionWeights weights = layers[index].Attention!;
        Activations normed = Normalize(layers[index].AttentionNorm!, residual);
        Activations qkv = arena.Scratch('q', weights.Plan.QkvWidth, normed.Rows);
        if (weights.Latent is { } latent)
        {
            ProjectLatent(weights, latent, normed, qkv);
        }
        else
        {
            Multiply(weights.Plan.Qkv, weights.Qkv, normed, qkv);
        }
        if (weights.QueryNorm is not null || weights.KeyNorm is not null || weights.Plan.ClipQkv is not null)
        {
            backend.NormalizeHeads(weights.Plan, weights.QueryNorm, weights.KeyNorm, qkv);
        }
        backend.RotateAndAppend(weights.Plan, weights.Rope, qkv, plan.Layers.Steps[index].KvSlot);
        return qkv;
    }

    /// <summary>Queries brought to the latent's width, and behind them the key that all heads share.</summary>
    private void ProjectLatent(AttentionWeights weights, LatentWeights latent, Activations normed, Activations qkv)
    {
        Activations source = normed;
        if (latent.QueryDown is not null)
        {
            source = arena.Scratch('d', latent.Plan.QueryDown!.Outputs, normed.Rows);
            Multiply(latent.Plan.QueryDown, latent.QueryDown, normed, source);
            if (latent.QueryDownNorm is not null)
            {
                backend.Normalize(latent.QueryDownNorm, source, source);
            }
        }
        Activations queries = arena.Scratch('h', latent.Plan.Query.Outputs, normed.Rows);
        Activations key = arena.Scratch('c', weights.Plan.Qkv.Outputs, normed.Rows);
        Multiply(latent.Plan.Query, latent.Query, source, queries);
        Multiply(weights.Plan.Qkv, weights.Qkv, normed, key);
        backend.MultiplyHeads(latent.KeyUp, queries, key, qkv);
    }

    /// <summary>Second half of attention: what the queries of the selected rows see is added to the residual stream.</summary>
    public void Attend(int index, StepPlan step, RowSet rows, Activations qkv)
    {
        AttentionWeights weights = layers[index].Attention!;
        int slot = plan.Layers.Steps[index].KvSlot;
        Activations mixed = arena.Scratch('a', weights.Plan.Heads * weights.Plan.ValueDim, qkv.Rows);
        backend.Attend(weights.Plan, qkv, slot, layers[index].Prefixes, mixed);
        foreach (RowRun run in rows.Runs)
        {
            if (run.WritesKv)
            {
                step.CountAppended(run.Track, slot + run.SlotShift, run.RowCount);
            }
        }
        if (weights.Latent is { } latent)
        {
            Activations values = arena.Scratch('v', weights.Plan.Output.Inputs, qkv.Rows);
            backend.MultiplyHeads(latent.ValueUp, mixed, tail: null, values);
            mixed = values;
        }
        stream.Change(layers[index].AttentionResidual);
        Multiply(weights.Plan.Output, weights.Output, mixed, Residual, accumulate: true);
    }

    private Activations Normalize(DeviceWeights norm, Activations residual)
    {
        Activations normed = arena.Scratch('n', residual.Width, residual.Rows);
        backend.Normalize(norm, residual, normed);
        return normed;
    }

    private Layer Load(int index)
    {
        LayerStep step = plan.Layers.Steps[index];
        BlockPlan block = plan.Layers.Blocks[step.Block];
        (int width, LinearWeights? attentionResidual) = stream.Load(step.AttentionResidual);
        (int between, LinearWeights? feedForwardResidual) = stream.Load(step.FeedForwardResidual);
        return new Layer(
            block.Attention is null ? null : LoadAttention(block.Attention),
            block.FeedForward is null ? null : LoadFeedForward(block.FeedForward),
            block.Experts is null ? null : LoadExperts(block.Experts, index),
            LoadLinear(block.AttentionLinear),
            LoadLinear(block.FeedForwardLinear),
            attentionResidual,
            feedForwardResidual,
            LoadNorm(step.AttentionNorm, width),
            LoadNorm(step.FeedForwardNorm, between),
            block.Attention is null ? null : LoadPrefixes(index, plan.Layers.KvSlots[step.KvSlot]));
    }

    private LinearWeights? LoadLinear(LinearPlan? linear)
    {
        if (linear is null)
        {
            return null;
        }
        if (!linears.TryGetValue(linear, out LinearWeights? weights))
        {
            linears[linear] = weights = new LinearWeights(linear, arena.Linear(linear));
        }
        return weights;
    }

    private AttentionWeights LoadAttention(AttentionPlan attention)
    {
        if (!attentions.TryGetValue(attention, out AttentionWeights? weights))
        {
            arena.Scratch('q', attention.QkvWidth);
            arena.Scratch('a', attention.Heads * attention.ValueDim);
            attentions[attention] = weights = new AttentionWeights(
                attention,
                arena.Linear(attention.Qkv),
                arena.Linear(attention.Output),
                arena.Norm(attention.QueryNorm, attention.QueryNormWidth),
                arena.Norm(attention.KeyNorm, attention.KeyNormWidth),
                attention.Rope is null ? null : LoadRope(attention.Rope),
                attention.Latent is null ? null : LoadLatent(attention, attention.Latent));
        }
        return weights;
    }

    private LatentWeights LoadLatent(AttentionPlan attention, LatentPlan latent)
    {
        if (latent.QueryDown is not null)
        {
            arena.Scratch('d', latent.QueryDown.Outputs);
        }
        arena.Scratch('h', latent.Query.Outputs);
        arena.Scratch('c', attention.Qkv.Outputs);
        arena.Scratch('v', attention.Output.Inputs);
        return new LatentWeights(
            latent,
            latent.QueryDown is null ? null : arena.Linear(latent.QueryDown),
            arena.Norm(latent.QueryDownNorm, latent.Query.Inputs),
            arena.Linear(latent.Query),
            arena.Own(backend.LoadHeads(latent.KeyUp, arena.Checkpoint)),
            arena.Own(backend.LoadHeads(latent.ValueUp, arena.Checkpoint)));
    }

    private FeedForwardWeights LoadFeedForward(FeedForwardPlan feedForward)
    {
        if (!feedForwards.TryGetValue(feedForward, out FeedForwardWeights? weights))
        {
            arena.Scratch('i', feedForward.In.Outputs);
            arena.Scratch('f', feedForward.Width);
            feedForwards[feedForward] = weights = new FeedForwardWeights(
                feedForward, arena.Linear(feedForward.In), arena.Linear(feedForward.Down));
        }
        return weights;
    }

    private ExpertsWeights LoadExperts(ExpertsPlan mixture, int index)
    {
        if (!experts.TryGetValue(mixture, out ExpertsWeights? weights))
        {
            int perToken = mixture.PerToken(expertsPerToken), most = perToken + mixture.Shared.Length;
            if (!selections.TryGetValue(most, out ExpertSelection? selection))
            {
                selections[most] = selection = arena.Own(backend.AllocateSelection(arena.MaxRows, most));
            }
            var router = new ExpertRouter(arena, mixture, mixture.Router.Recurrence is { } recurrence ? LoadCell(recurrence.Cell, index) : null);
            experts[mixture] = weights = new ExpertsWeights(
                mixture, router, arena.Own(backend.LoadExperts(mixture, arena.Checkpoint)), selection, perToken);
        }
        return weights;
    }

    /// <summary>Routers that share a cell share its state, which begins at the first of their steps.</summary>
    private RouterCell LoadCell(RecurrentCellPlan plan, int index)
    {
        if (!cells.TryGetValue(plan, out RouterCell? cell))
        {
            cells[plan] = cell = new RouterCell(arena, plan, index);
        }
        return cell;
    }

    /// <summary>Layers that share a rotation share its table.</summary>
    private DeviceWeights LoadRope(RopePlan rope)
    {
        if (!ropes.TryGetValue(rope, out DeviceWeights? weights))
        {
            ropes[rope] = weights = arena.Own(backend.LoadRope(rope, plan.ContextLength));
        }
        return weights;
    }

    /// <summary>Steps that share a norm share its weights.</summary>
    private DeviceWeights? LoadNorm(NormPlan? norm, int width)
    {
        if (norm is null)
        {
            return null;
        }
        if (!norms.TryGetValue((norm, width), out DeviceWeights? weights))
        {
            norms[(norm, width)] = weights = arena.Norm(norm, width)!;
        }
        return weights;
    }

    private DeviceWeights? LoadPrefixes(int index, KvSlotPlan shape)
    {
        if (plan.Streams is null || plan.Streams.Sets.All(static set => set.Count == 1))
        {
            return null;
        }
        return arena.Own(backend.LoadPrefixes(
            [.. plan.Streams.Sets.Select(set => set.Count == 1
                ? ((StreamPrefixPlan, int, int)?)null
                : (set.Prefixes[index], set.Count, set.PrefixTokens))],
            shape, arena.Checkpoint));
    }

    /// <summary>Packed weights of a step; null where it has no such part.</summary>
    private sealed record Layer(
        AttentionWeights? Attention, FeedForwardWeights? FeedForward, ExpertsWeights? Experts, LinearWeights? AttentionLinear,
        LinearWeights? FeedForwardLinear, LinearWeights? AttentionResidual, LinearWeights? FeedForwardResidual, DeviceWeights? AttentionNorm,
        DeviceWeights? FeedForwardNorm, DeviceWeights? Prefixes);

    private sealed record AttentionWeights(
        AttentionPlan Plan, DeviceWeights Qkv, DeviceWeights Output, DeviceWeights? QueryNorm, DeviceWeights? KeyNorm, DeviceWeights? Rope,
        LatentWeights? Latent);

    private sealed record LatentWeights(
        LatentPlan Plan, DeviceWeights? QueryDown, DeviceWeights? QueryDownNorm, DeviceWeights Query, DeviceWeights KeyUp, DeviceWeights ValueUp);

    private sealed record FeedForwardWeights(FeedForwardPlan Plan, DeviceWeights In, DeviceWeights Down);

    private sealed record ExpertsWeights(
        ExpertsPlan Plan, ExpertRouter Router, DeviceWeights Slots, ExpertSelection Selection, int PerToken);
}
