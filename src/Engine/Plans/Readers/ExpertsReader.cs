using System.Collections.Immutable;
using System.Globalization;
using System.Text.RegularExpressions;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>In what families with mixtures of experts differ.</summary>
internal sealed record ExpertsTraits
{
    /// <summary>Names for the number of experts; files that were saved by newer libraries have another of them than the family's own.</summary>
    public static ImmutableArray<string> CountKeys { get; } = ["num_experts", "num_local_experts", "n_routed_experts"];

    /// <summary>The family's own of <see cref="CountKeys"/>.</summary>
    public string CountKey { get; init; } = "num_experts";

    /// <summary>The key for the experts that a token is sent to.</summary>
    public const string PerTokenKey = "num_experts_per_tok";

    /// <summary>What stands for <c>mlp</c> in the names of the mixture's tensors.</summary>
    public string Module { get; init; } = "mlp";

    /// <summary>What an expert's linears are called.</summary>
    public FeedForwardNames Names { get; init; } = FeedForwardNames.Usual;

    /// <summary>The key for the width of an expert, which matters only where no tensor tells it.</summary>
    public string WidthKey { get; init; } = "moe_intermediate_size";

    /// <summary>The key for it where that one has no value, or null.</summary>
    public string? OtherWidthKey { get; init; }

    /// <summary>Which layers are mixtures; given the configuration and the number of layers.</summary>
    public Func<ConfigReader, int, bool[]> Layers { get; init; } = static (_, layers) => [.. Enumerable.Repeat(true, layers)];

    /// <summary>Completes a router that has its logits and counts.</summary>
    public required Func<RouterSource, RouterPlan, RouterPlan> Router { get; init; }

    /// <summary>The router's logits have a bias.</summary>
    public bool RouterBias { get; init; }

    /// <summary>The cell of recurrent routers (<see cref="RecurrentRouterReader"/>), or null where routers read the layer's input.</summary>
    public Func<ConfigReader, RecurrentCell?> Cell { get; init; } = static _ => null;

    /// <summary>The mixture has a <c>bias</c> [hidden] that is added to what its experts output together. It needs weights that sum to one.</summary>
    public Func<ConfigReader, bool> OutputBias { get; init; } = static _ => false;

    /// <summary>Experts that are stored together are so as <see cref="InterleavedExperts"/> reads them.</summary>
    public bool Interleaved { get; init; }

    /// <summary>The feed-forward that every token goes through besides, or null.</summary>
    public Func<ConfigReader, SharedExpertTraits?> Shared { get; init; } = static _ => null;

    /// <summary>Keys of <see cref="NeutralFields"/> that the family reads itself.</summary>
    public ImmutableArray<string> Obeys { get; init; } = [.. CountKeys, PerTokenKey];
}

/// <summary>A feed-forward that every token goes through besides those that the router chooses.</summary>
/// <param name="Module">Its name inside the mixture.</param>
/// <param name="Gate">The name of its gate inside the mixture, hidden → 1, or null where it counts <see cref="Weight"/>.</param>
/// <param name="Width">Its width where no tensor tells it.</param>
internal sealed record SharedExpertTraits(string Module, string? Gate, Func<int> Width)
{
    /// <summary>See <see cref="SharedExpert.Weight"/>.</summary>
    public float Weight { get; init; } = 1f;

    /// <summary>It stands beside the mixture, not in it: <see cref="Module"/> is its name inside the layer.</summary>
    public bool IsBesideMixture { get; init; }
}

/// <summary>What a router is read from.</summary>
/// <param name="Config">The configuration.</param>
/// <param name="Tensors">The tensors.</param>
/// <param name="Name">What the names of its tensors begin with: <c>model.layers.3.mlp.gate</c>.</param>
internal sealed record RouterSource(ConfigReader Config, TensorCatalog Tensors, string Name);

/// <summary>
/// Reads mixtures of experts in the layouts that files have:
/// <list type="bullet">
/// <item>a feed-forward per expert, <c>mlp.experts.M.gate_proj.weight</c> [width, hidden] and so on, or <c>w1</c>, <c>w3</c>, <c>w2</c> (Mixtral);
/// their widths may differ, and each may be compressed (<see cref="LowRankReader"/>);</item>
/// <item>fused, as transformers 5 holds them: <c>mlp.experts.gate_up_proj</c> [experts, 2 × width, hidden], gate rows first, and
/// <c>mlp.experts.down_proj</c> [experts, hidden, width];</item>
/// <item>stacked, as GGUF has them: <c>mlp.experts.{gate,up}_proj.weight</c> [experts, width, hidden] and <c>down_proj</c> [experts, hidden, width].</item>
/// </list>
/// The router's rows say how many experts a layer has: of pruned models, layers may have kept fewer than the configuration says (REAP). A file beside the model
/// may say which of them are one and which were dropped (<see cref="ExpertMapFile"/>).
/// </summary>
internal sealed partial class ExpertsReader
{
    private readonly ExpertsTraits traits;
    private readonly ConfigReader config;
    private readonly FeedForwardReader feedForwards;
    private readonly TensorCatalog tensors;
    private readonly RecurrentRouterReader? recurrent;
    private readonly bool[] mixtures;
    private readonly int[] counts;
    private readonly int[] perToken;
    private readonly int[]? widths;
    private readonly ExpertMapFile map;
    private readonly Dictionary<string, SortedSet<int>> numbersOf = [];

    /// <summary>Reads what is not particular to a layer.</summary>
    /// <exception cref="EngineException">A key is missing or malformed.</exception>
    public ExpertsReader(ExpertsTraits traits, ConfigReader config, FeedForwardReader feedForwards, int layers)
    {
        this.traits = traits;
        this.config = config;
        this.feedForwards = feedForwards;
        tensors = feedForwards.Tensors;
        mixtures = traits.Layers(config, layers);
        counts = Needed(config.Alias([traits.CountKey, .. ExpertsTraits.CountKeys]));
        perToken = Needed(ExpertsTraits.PerTokenKey);
        widths = config.CountPerLayer(traits.OtherWidthKey is { } other ? config.Alias(traits.WidthKey, other) : traits.WidthKey, layers);
        recurrent = traits.Cell(config) is { } cell ? new RecurrentRouterReader(config, tensors, feedForwards.Hidden, cell) : null;
        map = ExpertMapFile.Read(tensors.Checkpoint);
        foreach (string name in tensors.Checkpoint.TensorNames)
        {
            if (Expert().Match(name) is { Success: true } match
                && int.TryParse(match.Groups["number"].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out int number))
            {
                string module = match.Groups["module"].Value;
                if (!numbersOf.TryGetValue(module, out SortedSet<int>? numbers))
                {
                    numbersOf[module] = numbers = [];
                }
                numbers.Add(number);
            }
        }

        int[] Needed(string key) => config.CountPerLayer(key, layers) ?? throw config.Error(key, "the key is missing");
    }

    /// <summary>The layer is a mixture of experts.</summary>
    public bool Has(int layer) => mixtures[layer];

    /// <summary>Reads a layer's mixture.</summary>
    /// <param name="layerName">What the names of the layer's tensors begin with.</param>
    /// <param name="layer">Its index.</param>
    /// <exception cref="EngineException">
    /// Shapes do not fit each other, or the router's choices or the map do not fit the experts that there are.
    /// </exception>
    public ExpertsPlan Read(string layerName, int layer)
    {
        string module = Module(layerName);
        string router = recurrent is null ? First($"{module}.gate.weight", $"{module}.router.weight") : RecurrentRouterReader.Logits(module);
        // Without a router nothing tells how many experts there are; it alone is missed then, before anyone sees the plan.
        int experts = tensors.ShapeOf(router) is [<= ConfigReader.LargestCount and var rows, _] ? (int)rows : counts[layer];
        string routerName = recurrent is null ? router[..^".weight".Length] : router;
        WeightRef? bias = traits.RouterBias ? tensors.Vector(routerName + ".bias", experts) : null;
        int inputs = recurrent?.Width ?? feedForwards.Hidden;
        LinearPlan logits = new(inputs, [new LinearPart(experts, tensors.Matrix(router, experts, inputs), bias)]);
        var plan = new RouterPlan { Logits = logits, Experts = experts, PerToken = perToken[layer], Recurrence = recurrent?.Read(module) };
        if (!tensors.Has(router))
        {
            return new ExpertsPlan { Router = plan, Slots = [], Map = [] };
        }
        ExpertGroups? groups = map.Labels(module, experts) is { IsDefault: false } labels ? new ExpertGroups(labels) : null;
        int kept = groups?.Labels.Count(static label => label >= 0) ?? experts;
        if (perToken[layer] > kept)
        {
            throw config.Error(
                ExpertsTraits.PerTokenKey, $"expected at most the {kept} experts of layer {layer}; found {perToken[layer]}");
        }
        IReadOnlyList<FeedForwardPlan?> stored = Experts(module, router, layer, experts, groups);
        (List<FeedForwardPlan> slots, ImmutableArray<int> slotOf) = groups?.Join(stored, module, tensors.Checkpoint)
            ?? ([.. stored.Select(static slot => slot!)], [.. Enumerable.Range(0, experts)]);
        if (traits.OutputBias(config))
        {
            AddBias($"{module}.bias", slots);
        }
        ImmutableArray<SharedExpert> shared = [];
        if (traits.Shared(config) is { } besides)
        {
            string name = besides.IsBesideMixture ? $"{layerName}.{besides.Module}" : $"{module}.{besides.Module}";
            slots.Add(feedForwards.Read(name, feedForwards.StoredWidth(name, FeedForwardNames.Usual) ?? besides.Width()));
            int? gate = null;
            if (besides.Gate is not null)
            {
                gate = experts; // the logit behind those of the experts
                var row = new LinearPart(1, tensors.Matrix($"{module}.{besides.Gate}.weight", 1, feedForwards.Hidden));
                logits = new LinearPlan(feedForwards.Hidden, logits.Parts.Add(row));
            }
            shared = [new SharedExpert(slots.Count - 1, gate, besides.Weight)];
        }
        return new ExpertsPlan
        {
            Router = traits.Router(new RouterSource(config, tensors, routerName), plan with { Logits = logits }),
            Slots = [.. slots],
            Map = slotOf,
            Shared = shared,
        };
    }

    /// <summary>Complains about mixtures that only the map knows.</summary>
    /// <exception cref="EngineException">There is one.</exception>
    public void Complete() => map.Complete();

    /// <summary>Weights that sum to one add a bias once where every expert has it.</summary>
    private void AddBias(string name, List<FeedForwardPlan> slots)
    {
        WeightRef bias = tensors.Vector(name, feedForwards.Hidden);
        for (int expert = 0; expert < slots.Count; expert++)
        {
            FeedForwardPlan slot = slots[expert];
            LinearPart down = slot.Down.Parts[0];
            if (slot.Width == 0 || down.Bias is not null)
            {
                string found = slot.Width == 0 ? "has no elements, and outputs nothing that it could be added to" : "has one of its own";
                throw new EngineException($"the bias is added by every expert, and expert {expert} {found}", tensors.Checkpoint.Path, name);
            }
            slots[expert] = slot with { Down = new LinearPlan(slot.Width, [down with { Bias = bias }]) };
        }
    }

    /// <summary>The mixture's name: the family's own, unless the file has another family's (transformers 5 calls all of them <c>mlp</c>).</summary>
    private string Module(string layerName)
    {
        string own = $"{layerName}.{traits.Module}", other = $"{layerName}.mlp";
        return !Exists(own) && Exists(other) ? other : own;

        bool Exists(string module) => tensors.Has($"{module}.gate.weight") || tensors.Has($"{module}.router.weight")
            || tensors.Has(RecurrentRouterReader.Logits(module)) || numbersOf.ContainsKey(module) || HasAny($"{module}.experts", "gate_up_proj", "down_proj");
    }

    /// <summary>The experts of a layer; null for one that is not stored, its group having others.</summary>
    private IReadOnlyList<FeedForwardPlan?> Experts(string module, string router, int layer, int experts, ExpertGroups? groups)
    {
        if (!numbersOf.TryGetValue(module, out SortedSet<int>? numbers))
        {
            string all = $"{module}.experts";
            return HasAny(all, "gate_proj", "up_proj") ? Stacked(all, layer, experts)
                : traits.Interleaved && InterleavedExperts.Read(feedForwards, all, experts, () => Width(layer)) is { } interleaved ? interleaved
                : HasAny(all, "gate_up_proj", "down_proj") ? Fused(all, layer, experts)
                : Single(module, router, layer, experts, traits.Names, null);
        }
        if (numbers.Max >= experts)
        {
            throw new EngineException(
                $"expected a row for each of the experts, the last of which is number {numbers.Max}; found {experts} rows",
                tensors.Checkpoint.Path, router);
        }
        string stored = $"{module}.experts.{numbers.Min}";
        return Single(module, router, layer, experts, FeedForwardNames.All.FirstOrDefault(names => feedForwards.StoredWidth(stored, names) is not null)
            ?? traits.Names, groups?.Wanted(numbers));
    }

    private FeedForwardPlan?[] Single(string module, string router, int layer, int experts, FeedForwardNames names, SortedSet<int>? wanted)
    {
        if ((wanted?.Count ?? experts) > tensors.Checkpoint.TensorNames.Count)
        {
            throw new EngineException(
                $"{experts} experts need more than the {tensors.Checkpoint.TensorNames.Count} tensors that exist", tensors.Checkpoint.Path, router);
        }
        var slots = new FeedForwardPlan?[experts];
        foreach (int expert in wanted ?? (IEnumerable<int>)Enumerable.Range(0, experts))
        {
            string name = $"{module}.experts.{expert}";
            slots[expert] = feedForwards.Read(name, feedForwards.StoredWidth(name, names) ?? Width(layer), names: names);
        }
        return slots;
    }

    private List<FeedForwardPlan> Fused(string all, int layer, int experts)
    {
        string suffix = Suffix(all, "gate_up_proj", "down_proj"), gateUp = $"{all}.gate_up_proj{suffix}", down = $"{all}.down_proj{suffix}";
        int width = feedForwards.Agreed(gateUp, Rows(gateUp) / 2, widths?[layer], Columns(down)) ?? Width(layer);
        WeightRef gateUps = Stack(gateUp, experts, 2 * width, feedForwards.Hidden), downs = Stack(down, experts, feedForwards.Hidden, width);
        return Slots(experts, width, expert => (
            gateUps with { FirstRow = 2 * width * expert }, gateUps with { FirstRow = 2 * width * expert + width }, downs));
    }

    private List<FeedForwardPlan> Stacked(string all, int layer, int experts)
    {
        string suffix = Suffix(all, "gate_proj", "up_proj", "down_proj");
        string gate = $"{all}.gate_proj{suffix}", up = $"{all}.up_proj{suffix}", down = $"{all}.down_proj{suffix}";
        int width = feedForwards.Agreed(gate, Rows(gate), Rows(up), Columns(down)) ?? Width(layer);
        WeightRef gates = Stack(gate, experts, width, feedForwards.Hidden), ups = Stack(up, experts, width, feedForwards.Hidden);
        WeightRef downs = Stack(down, experts, feedForwards.Hidden, width);
        WeightRef? gateBias = Bias("gate_proj", width), upBias = Bias("up_proj", width), downBias = Bias("down_proj", feedForwards.Hidden);
        return [.. Slots(experts, width, expert => (gates with { FirstRow = width * expert }, ups with { FirstRow = width * expert }, downs))
            .Select((slot, expert) => slot with
            {
                In = new LinearPlan(slot.In.Inputs, [With(slot.In.Parts[0], gateBias, expert), With(slot.In.Parts[1], upBias, expert)]),
                Down = new LinearPlan(width, [With(slot.Down.Parts[0], downBias, expert)]),
            })];

        WeightRef? Bias(string linear, int rows) => traits.Interleaved || tensors.Has($"{all}.{linear}.bias")
            ? tensors.Tensor($"{all}.{linear}.bias", experts, rows) : null;

        static LinearPart With(LinearPart part, WeightRef? biases, int expert) =>
            biases is null ? part : part with { Bias = biases with { Slice = expert } };
    }

    private List<FeedForwardPlan> Slots(int experts, int width, Func<int, (WeightRef Gate, WeightRef Up, WeightRef Downs)> of) =>
        [.. Enumerable.Range(0, experts).Select(expert =>
        {
            (WeightRef gate, WeightRef up, WeightRef downs) = of(expert);
            int hidden = feedForwards.Hidden;
            return feedForwards.Plan(
                width, new LinearPart(width, gate), new LinearPart(width, up),
                new LinearPart(hidden, downs with { FirstRow = hidden * expert }));
        })];

    /// <summary>All experts' matrices in one tensor [experts, rows, columns].</summary>
    private WeightRef Stack(string name, int experts, int rows, int columns) => (long)experts * rows <= int.MaxValue
        ? tensors.Tensor(name, experts, rows, columns)
        : throw new EngineException($"{experts} experts of {rows} rows are more than this engine can address", tensors.Checkpoint.Path, name);

    private long? Rows(string name) => tensors.ShapeOf(name) is [_, long rows, _] ? rows : null;

    private long? Columns(string name) => tensors.ShapeOf(name) is [_, _, long columns] ? columns : null;

    private int Width(int layer) => widths?[layer] ?? throw config.Error(traits.WidthKey, "the key is missing, and there are no experts to tell it");

    private bool HasAny(string all, params string[] names) =>
        Array.Exists(names, name => tensors.Has($"{all}.{name}")) || Suffix(all, names).Length > 0;

    /// <summary>What parameters of all experts end with: nothing in transformers, <c>.weight</c> in GGUF.</summary>
    private string Suffix(string all, params string[] names) => Array.Exists(names, name => tensors.Has($"{all}.{name}.weight")) ? ".weight" : "";

    /// <summary>Of two names the one that the file has; the first where it has neither.</summary>
    private string First(string name, string other) => !tensors.Has(name) && tensors.Has(other) ? other : name;

    [GeneratedRegex(@"^(?<module>.+)\.experts\.(?<number>\d+)\.", RegexOptions.CultureInvariant)]
    private static partial Regex Expert();
}
