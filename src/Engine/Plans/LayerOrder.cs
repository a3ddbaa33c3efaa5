using System.Collections.Immutable;
using System.Globalization;

namespace Engine.Plans;

/// <summary>
/// Runs a model's layers in another order: some left out (Gromov et al. 2024), some more than once (Kim et al. 2023, SOLAR), some with the weights of
/// another (Liu et al. 2024, FoldGPT). The blocks stay as they are, each is loaded once, and each application has keys and values of its own.
/// </summary>
/// <remarks>
/// An order is a list with commas: <c>3</c> is a layer, <c>0-5</c> a run of them, <c>2=1</c> the norms of layer 2 with the weights of layer 1, and
/// <c>…*4</c> any of these four times. Layers count from 0. <c>0-5,4-9</c> is a model that was grown by an overlap; <c>0-3,8-11</c> one that lost
/// four layers.
/// </remarks>
public static class LayerOrder
{
    private const int MostSteps = 4096;
    private const string Item = "Layers";

    /// <summary>Checks how an order is written, whatever the model.</summary>
    /// <exception cref="EngineException">It is malformed.</exception>
    public static void Validate(string order) => Parse(order);

    /// <summary>The plan with its layers in another order.</summary>
    /// <param name="plan">A plan without recursion.</param>
    /// <param name="order">The order.</param>
    /// <exception cref="EngineException">
    /// The order is malformed or names a layer that is not there, layers that should share weights do not fit, or the model is recursive.
    /// </exception>
    public static ModelPlan Apply(ModelPlan plan, string order)
    {
        ArgumentNullException.ThrowIfNull(plan);
        List<Use> uses = Parse(order);
        LayerMap layers = plan.Layers;
        if (layers.Recursion is not null || layers.Steps.Any(static step => !step.WritesKv))
        {
            throw new EngineException("the model is recursive: its layers already have an order of their own", item: Item);
        }
        if (layers.ChangesResidual)
        {
            throw new EngineException("the model's layers were rotated to fit each other, and have no other order", item: Item);
        }
        Require(uses, layers.Steps.Length);

        int[] moved = new int[layers.Blocks.Length];
        Array.Fill(moved, -1);
        var blocks = ImmutableArray.CreateBuilder<BlockPlan>();
        var steps = ImmutableArray.CreateBuilder<LayerStep>(uses.Count);
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>(uses.Count);
        bool sharesFirst = plan.Streams?.Sets.Any(static set => set.Count > 1) == true;
        foreach (Use use in uses)
        {
            LayerStep norms = layers.Steps[use.Layer], weights = layers.Steps[use.Weights];
            RequireFit(plan, use);
            ref int block = ref moved[weights.Block];
            if (block < 0)
            {
                block = blocks.Count;
                blocks.Add(layers.Blocks[weights.Block]);
            }
            int slot = LayerStep.NoKvSlot;
            if (weights.KvSlot != LayerStep.NoKvSlot)
            {
                // Streams differ from the first attention on, wherever in the original model it stood.
                slot = slots.Count;
                slots.Add(layers.KvSlots[weights.KvSlot] with { SharedByStreams = sharesFirst && steps.Count == 0 });
            }
            steps.Add(norms with { Block = block, KvSlot = slot });
        }
        if (slots.Count == 0)
        {
            throw new EngineException("expected a layer with attention, found none", item: Item);
        }
        return plan with
        {
            Layers = new LayerMap(blocks.ToImmutable(), steps.MoveToImmutable(), slots.ToImmutable()),
            Streams = plan.Streams is null ? null : new StreamsPlan([.. plan.Streams.Sets.Select(set => set.Count == 1
                ? set
                : set with { Prefixes = [.. uses.Select(use => set.Prefixes[use.Layer])] })]),
        };
    }

    private static void Require(List<Use> uses, int layers)
    {
        foreach (Use use in uses)
        {
            int largest = Math.Max(use.Layer, use.Weights);
            if (largest >= layers)
            {
                throw new EngineException($"the model has layers 0 to {layers - 1}; found {largest}", item: Item);
            }
        }
    }

    /// <summary>Norms serve the sublayers they were made for, and a prefix fits the keys that it precedes.</summary>
    private static void RequireFit(ModelPlan plan, Use use)
    {
        LayerStep norms = plan.Layers.Steps[use.Layer], weights = plan.Layers.Steps[use.Weights];
        bool fit = norms.AttentionNorm is null == weights.AttentionNorm is null
            && norms.FeedForwardNorm is null == weights.FeedForwardNorm is null
            && (plan.Streams is null || SameHeads(plan.Layers.KvSlots[norms.KvSlot], plan.Layers.KvSlots[weights.KvSlot]));
        if (!fit)
        {
            throw new EngineException($"layers {use.Layer} and {use.Weights} are of different shapes and cannot share weights", item: Item);
        }
    }

    private static bool SameHeads(KvSlotPlan a, KvSlotPlan b) => (a.KvHeads, a.HeadDim) == (b.KvHeads, b.HeadDim);

    private static List<Use> Parse(string order)
    {
        ArgumentNullException.ThrowIfNull(order);
        var uses = new List<Use>();
        foreach (string item in order.Split(','))
        {
            string[] repeated = item.Split('*');
            if (repeated.Length > 2)
            {
                throw Malformed(item);
            }
            int times = repeated.Length == 1 ? 1 : Number(repeated[1], item);
            if (times == 0)
            {
                throw new EngineException($"expected at least one time; found '{item.Trim()}'", item: Item);
            }
            List<Use> once = Once(repeated[0], item);
            if (uses.Count + (long)once.Count * times > MostSteps)
            {
                throw new EngineException($"expected at most {MostSteps} layers in all", item: Item);
            }
            for (int i = 0; i < times; i++)
            {
                uses.AddRange(once);
            }
        }
        return uses;
    }

    private static List<Use> Once(string text, string item)
    {
        if (text.Split('=') is [var norms, var weights])
        {
            return [new Use(Number(norms, item), Number(weights, item))];
        }
        if (text.Split('-') is not [var from, var to])
        {
            int layer = Number(text, item);
            return [new Use(layer, layer)];
        }
        int first = Number(from, item), last = Number(to, item);
        if (last < first)
        {
            throw new EngineException($"a run goes upwards; found '{item.Trim()}'", item: Item);
        }
        return last - first < MostSteps
            ? [.. Enumerable.Range(first, last - first + 1).Select(static layer => new Use(layer, layer))]
            : throw new EngineException($"expected at most {MostSteps} layers in all", item: Item);
    }

    private static int Number(string text, string item) =>
        int.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : throw Malformed(item);

    private static EngineException Malformed(string item) => new(
        $"expected layers such as 3, 0-5, 2=1 or 3*4 with commas between; found '{item.Trim()}'", item: Item);

    /// <summary>An application of a layer.</summary>
    /// <param name="Layer">Whose norms.</param>
    /// <param name="Weights">Whose block.</param>
    private readonly record struct Use(int Layer, int Weights);
}
