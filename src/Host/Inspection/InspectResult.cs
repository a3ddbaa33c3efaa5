using System.Collections.Immutable;
using Engine.Plans;

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
internal sealed record TensorResult(string Name, string Format, long[] Shape, long Bytes, long? Zeros, long? ZeroRows, bool? TwoOfFour);

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
internal sealed record PlanDescription(
    string Family,
    int VocabularySize,
    int HiddenSize,
    int ContextLength,
    int Layers,
    int DistinctBlocks,
    int KvSlots,
    int? Heads,
    int? KvHeads,
    int? HeadDim,
    int? FeedForwardWidth,
    bool TiedEmbeddings,
    RecursionDescription? Recursion,
    IReadOnlyList<int>? Streams)
{
    public static PlanDescription Of(ModelPlan plan)
    {
        ImmutableArray<BlockPlan> blocks = plan.Layers.Blocks;
        AttentionPlan? attention = blocks.Select(static block => block.Attention).OfType<AttentionPlan>().FirstOrDefault();
        FeedForwardPlan? feedForward = blocks.Select(static block => block.FeedForward).OfType<FeedForwardPlan>().FirstOrDefault();
        return new PlanDescription(
            plan.Family, plan.VocabularySize, plan.HiddenSize, plan.ContextLength,
            plan.Layers.Steps.Length, plan.Layers.Blocks.Length, plan.Layers.KvSlots.Length,
            attention?.Heads, attention?.KvHeads, attention?.HeadDim, feedForward?.Width,
            plan.Head.Parts.Any(part => part.Weight.Tensor == plan.Embedding.Tokens.Tensor),
            plan.Layers.Recursion is { } recursion ? RecursionDescription.Of(recursion, plan.Layers) : null,
            plan.Streams is { } streams ? [.. streams.Sets.Select(static set => set.Count)] : null);
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
