using System.Collections.Immutable;
using Engine.Checkpoints;
using Engine.Plans;
using Host.Measuring;

namespace Host.Inspection;

/// <summary>What <c>inspect --json</c> prints.</summary>
/// <param name="Path">Where the checkpoint is.</param>
/// <param name="Family">The model's family.</param>
/// <param name="Supported">Whether it can be run.</param>
/// <param name="Reason">Why not.</param>
/// <param name="Plan">What is computed, where it can be run.</param>
/// <param name="Parameters">Elements of all tensors.</param>
/// <param name="Bytes">Bytes of all tensors.</param>
/// <param name="Formats">Totals by format, largest first.</param>
/// <param name="Tensors">Every tensor, in file order.</param>
/// <param name="Sharing">Matrices, or experts in them, with the same bytes; absent without a scan.</param>
/// <param name="Sparsity">Zeros in matrices; absent without a scan.</param>
internal sealed record InspectResult(
    string Path,
    string Family,
    bool Supported,
    string? Reason,
    PlanDescription? Plan,
    long Parameters,
    long Bytes,
    IReadOnlyList<FormatResult> Formats,
    IReadOnlyList<TensorResult> Tensors,
    IReadOnlyList<SharedResult>? Sharing,
    SparsityResult? Sparsity);

/// <summary>Tensors of one format together.</summary>
internal sealed record FormatResult(string Format, int Tensors, long Parameters, long Bytes);

/// <summary>One tensor; what the data says is absent without a scan.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Format">How it is stored.</param>
/// <param name="Shape">Its shape.</param>
/// <param name="Bytes">Bytes it takes in the file.</param>
/// <param name="Zeros">Elements that are zero.</param>
/// <param name="ZeroRows">Rows that are zero throughout.</param>
/// <param name="TwoOfFour">Of every four neighbours at least two are zero.</param>
/// <param name="RunsAs">How the CPU holds it; absent for what it does not multiply.</param>
internal sealed record TensorResult(
    string Name, string Format, long[] Shape, long Bytes, long? Zeros, long? ZeroRows, bool? TwoOfFour, string? RunsAs);

/// <summary>Tensors, or slices of tensors, that are byte for byte the same.</summary>
/// <param name="Tensors">Their names; <c>name[3]</c> is slice 3 of the outermost dimension.</param>
/// <param name="BytesEach">Bytes of each.</param>
internal sealed record SharedResult(IReadOnlyList<string> Tensors, long BytesEach);

/// <summary>Zeros in matrices.</summary>
/// <param name="Zeros">Elements that are zero.</param>
/// <param name="Fraction">Of all elements of matrices.</param>
/// <param name="ZeroRows">Rows that are zero throughout.</param>
/// <param name="TwoOfFour">Matrices where two of every four neighbours are zero.</param>
internal sealed record SparsityResult(long Zeros, double Fraction, long ZeroRows, IReadOnlyList<string> TwoOfFour);

/// <summary>The model in numbers.</summary>
/// <param name="Family">Its family.</param>
/// <param name="VocabularySize">Tokens.</param>
/// <param name="HiddenSize">Width of the residual stream.</param>
/// <param name="ContextLength">The longest sequence.</param>
/// <param name="LongContextLength">The longest where <c>--context</c> asks for more than that, so that LongRoPE's long factors serve all; absent in most.</param>
/// <param name="Layers">Applications of a block in a forward pass.</param>
/// <param name="DistinctBlocks">Distinct sets of block weights; fewer than layers where blocks are shared.</param>
/// <param name="KvSlots">Caches per sequence; fewer than layers where they are shared.</param>
/// <param name="Heads">Query heads of the first attention.</param>
/// <param name="KvHeads">Key and value heads of it.</param>
/// <param name="HeadDim">Elements of a head.</param>
/// <param name="FeedForwardWidth">Inner width of the first feed-forward.</param>
/// <param name="TiedEmbeddings">Embedding and head are one tensor.</param>
/// <param name="Recursion">Layers that are run several times, where the model says so.</param>
/// <param name="Streams">Parallel streams that can be asked for, where the model has them.</param>
/// <param name="Experts">Mixtures of experts, where the model has them.</param>
internal sealed record PlanDescription(
    string Family,
    int VocabularySize,
    int HiddenSize,
    int ContextLength,
    int? LongContextLength,
    int Layers,
    int DistinctBlocks,
    int KvSlots,
    int? Heads,
    int? KvHeads,
    int? HeadDim,
    int? FeedForwardWidth,
    bool TiedEmbeddings,
    RecursionDescription? Recursion,
    IReadOnlyList<int>? Streams,
    ExpertsDescription? Experts)
{
    /// <summary>Neurons of feed-forwards and experts that are stored but contribute nothing, and are left out; absent without a scan.</summary>
    public long? RemovedNeurons { get; init; }

    /// <summary>What each layer has where layers differ; absent where all are alike.</summary>
    public IReadOnlyList<LayerShape>? LayerShapes { get; init; }

    public static PlanDescription Of(ModelPlan plan, Checkpoint checkpoint)
    {
        ImmutableArray<BlockPlan> blocks = plan.Layers.Blocks;
        AttentionPlan? attention = blocks.Select(static block => block.Attention).OfType<AttentionPlan>().FirstOrDefault();
        FeedForwardPlan? feedForward = blocks.Select(static block => block.FeedForward).OfType<FeedForwardPlan>().FirstOrDefault();
        return new PlanDescription(
            plan.Family, plan.VocabularySize, plan.HiddenSize, plan.ContextLength, plan.LongContextLength,
            plan.Layers.Steps.Length, plan.Layers.Blocks.Length, plan.Layers.KvSlots.Length,
            attention?.Heads, attention?.KvHeads, attention?.HeadDim, feedForward?.Width,
            plan.Head.Parts.Any(part => part.Weight?.Tensor == plan.Embedding.Tokens.Tensor),
            plan.Layers.Recursion is { } recursion ? RecursionDescription.Of(recursion, plan.Layers) : null,
            plan.Streams is { } streams ? [.. streams.Sets.Select(static set => set.Count)] : null,
            plan.Experts().Any() ? ExpertsDescription.Of(plan, new WeightBytes(checkpoint)) : null)
        {
            LayerShapes = LayerShape.Of(plan),
        };
    }
}

/// <summary>Layers that are run several times.</summary>
/// <param name="Depths">How often at most.</param>
/// <param name="Layers">Layers of one depth.</param>
/// <param name="Router">Who decides how often: <c>ExpertChoice</c>, <c>TokenChoice</c>, or nobody.</param>
/// <param name="SharedKv">Deeper depths read the keys and values of the first.</param>
/// <param name="SharedBlocks">All depths have the same weights.</param>
internal sealed record RecursionDescription(int Depths, int Layers, string? Router, bool SharedKv, bool SharedBlocks)
{
    public static RecursionDescription Of(RecursionPlan recursion, LayerMap layers)
    {
        ReadOnlySpan<LayerStep> loop = layers.Steps.AsSpan()[recursion.FirstStep..recursion.EndStep];
        bool sharedKv = false, sharedBlocks = true;
        for (int i = recursion.StepsPerDepth; i < loop.Length; i++)
        {
            sharedKv |= !loop[i].WritesKv;
            sharedBlocks &= loop[i].Block == loop[i % recursion.StepsPerDepth].Block;
        }
        return new RecursionDescription(recursion.Depths, recursion.StepsPerDepth, recursion.Router?.Kind.ToString(), sharedKv, sharedBlocks);
    }
}

/// <summary>The mixtures of experts of a model.</summary>
/// <param name="BytesPerToken">Experts that a token is sent to, shared ones included, over all layers.</param>
/// <param name="Bytes">All experts; those that layers share count once.</param>
/// <param name="DenseBytesPerToken">Everything else that a token reads.</param>
/// <param name="Layers">Layers with experts.</param>
/// <param name="RouterState">The state that recurrent routers hand from layer to layer, or null.</param>
internal sealed record ExpertsDescription(
    long BytesPerToken, long Bytes, long DenseBytesPerToken, IReadOnlyList<LayerExperts> Layers, RouterStateDescription? RouterState)
{
    public static ExpertsDescription Of(ModelPlan plan, WeightBytes sizes) => new(
        WeightTraffic.ExpertBytesPerToken(plan, sizes, null), sizes.Totals(plan).Experts, WeightTraffic.DenseBytesPerToken(plan, sizes),
        [
            .. plan.Layers.Steps.Index().Where(step => plan.Layers.Blocks[step.Item.Block].Experts is not null)
                .Select(step => LayerExperts.Of(step.Index, plan.Layers.Blocks[step.Item.Block].Experts!, sizes)),
        ],
        plan.Experts().Select(static experts => experts.Router.Recurrence?.Cell).FirstOrDefault(static cell => cell is not null) is { } state
            ? new RouterStateDescription(state.Kind.ToString(), state.Width) : null);
}

/// <summary>The state of recurrent routers.</summary>
/// <param name="Cell">What makes the next layer's from it: <c>Gru</c> or <c>Rnn</c>.</param>
/// <param name="Width">Its numbers for a token.</param>
internal sealed record RouterStateDescription(string Cell, int Width);

/// <summary>A layer's mixture of experts.</summary>
/// <param name="Layer">Which layer, from 0.</param>
/// <param name="Experts">Experts that the router knows.</param>
/// <param name="Slots">Distinct feed-forwards that they stand for: fewer where experts were merged or dropped.</param>
/// <param name="Dropped">Experts that were dropped.</param>
/// <param name="PerToken">Experts that a token is sent to.</param>
/// <param name="Shared">Feed-forwards that every token goes through besides.</param>
/// <param name="Narrowest">Inner width of the narrowest slot.</param>
/// <param name="Widest">Of the widest.</param>
/// <param name="BytesPerToken">What a token reads, shared ones included.</param>
/// <param name="Bytes">All slots.</param>
internal sealed record LayerExperts(
    int Layer, int Experts, int Slots, int Dropped, int PerToken, int Shared, int Narrowest, int Widest, long BytesPerToken, long Bytes)
{
    public static LayerExperts Of(int layer, ExpertsPlan experts, WeightBytes sizes)
    {
        int[] slots = [.. experts.Map.Where(static slot => slot >= 0).Distinct()];
        return new LayerExperts(
            layer, experts.Map.Length, slots.Length, experts.Map.Length - experts.Kept, experts.PerToken(null), experts.Shared.Length,
            slots.Min(slot => experts.Slots[slot].Width), slots.Max(slot => experts.Slots[slot].Width), sizes.PerToken(experts), sizes.Of(experts));
    }
}
