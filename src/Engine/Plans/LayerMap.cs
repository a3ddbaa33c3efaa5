using System.Collections.Immutable;

namespace Engine.Plans;

/// <summary>
/// The layers as data: <em>blocks</em> are weights, <em>steps</em> are the order in which blocks run and what each reads and writes.
/// Recursion, shared blocks, dropped layers and replicated layers are different steps over the same blocks.
/// </summary>
/// <param name="Blocks">Distinct sets of weights.</param>
/// <param name="Steps">The forward pass, in order.</param>
/// <param name="KvSlots">What each KV slot holds. A sequence has a page table and a length per slot.</param>
public sealed record LayerMap(ImmutableArray<BlockPlan> Blocks, ImmutableArray<LayerStep> Steps, ImmutableArray<KvSlotPlan> KvSlots)
{
    /// <summary>
    /// KV slots that a token fills on average: all, but those of depths only as far as the depths were trained to take tokens
    /// (<see cref="DepthRouterPlan.Capacities"/>).
    /// </summary>
    public double SlotsPerToken
    {
        get
        {
            double slots = KvSlots.Length;
            if (Recursion is { Router: { Capacities.IsEmpty: false } router } recursion)
            {
                for (int depth = 0; depth < recursion.Depths; depth++)
                {
                    bool holds = depth == 0 || Steps[recursion.FirstStep + depth * recursion.StepsPerDepth].WritesKv;
                    slots -= holds ? recursion.StepsPerDepth * (1 - router.Capacities[depth]) : 0;
                }
            }
            return slots;
        }
    }

    /// <summary>The residual stream is multiplied between sublayers: layers fit each other in their own order alone.</summary>
    public bool ChangesResidual => Steps.Any(static step => step.AttentionResidual is not null || step.FeedForwardResidual is not null);

    /// <summary>The steps that are a repetition of the same blocks, or null where every step stands for itself.</summary>
    public RecursionPlan? Recursion { get; init; }
}

/// <summary>Weights of a transformer block; either sublayer may be absent.</summary>
/// <param name="Attention">Self-attention, or null.</param>
/// <param name="FeedForward">Feed-forward, or null.</param>
/// <param name="Experts">A mixture of experts in place of the feed-forward, or null.</param>
public sealed record BlockPlan(AttentionPlan? Attention, FeedForwardPlan? FeedForward, ExpertsPlan? Experts = null)
{
    /// <summary>A matrix in place of attention, hidden → hidden, so that a row sees itself alone (Bercovich et al. 2024, Puzzle); or null.</summary>
    public LinearPlan? AttentionLinear { get; init; }

    /// <summary>A matrix in place of the feed-forward, hidden → hidden; or null.</summary>
    public LinearPlan? FeedForwardLinear { get; init; }

    /// <summary>The matrices in place of sublayers.</summary>
    public IEnumerable<LinearPlan> Linears => ((LinearPlan?[])[AttentionLinear, FeedForwardLinear]).OfType<LinearPlan>();
}

/// <summary>One application of a block.</summary>
/// <param name="Block">Index into <see cref="LayerMap.Blocks"/>.</param>
/// <param name="KvSlot">Index into <see cref="LayerMap.KvSlots"/>; <see cref="NoKvSlot"/> where the block has no attention.</param>
/// <param name="AttentionNorm">Norm before attention or what is in its place; null where the block has neither.</param>
/// <param name="FeedForwardNorm">Norm before the feed-forward or what is in its place; null where the block has neither.</param>
public sealed record LayerStep(int Block, int KvSlot, NormPlan? AttentionNorm, NormPlan? FeedForwardNorm)
{
    /// <summary>There are no keys and values.</summary>
    public const int NoKvSlot = -1;

    /// <summary>
    /// False where the slot already holds this token's key and value, written by an earlier step (recursive KV sharing): the step computes queries
    /// only, and the slot holds every token of the sequence.
    /// </summary>
    public bool WritesKv { get; init; } = true;

    /// <summary>
    /// What the residual stream is multiplied with before attention is added to it, width before → width behind (Ashkboos et al. 2024, SliceGPT: rotations that
    /// lie between sublayers, cut to fewer rows and columns); null where it stays as it is.
    /// </summary>
    public LinearPlan? AttentionResidual { get; init; }

    /// <summary>As <see cref="AttentionResidual"/>, of the feed-forward.</summary>
    public LinearPlan? FeedForwardResidual { get; init; }

    /// <summary>The matrices of the residual stream.</summary>
    public IEnumerable<LinearPlan> Residuals => ((LinearPlan?[])[AttentionResidual, FeedForwardResidual]).OfType<LinearPlan>();
}

/// <summary>Shape of the keys and values of a slot: per token, K and V are [kvHeads, headDim] each, or K is and V is a part of it.</summary>
/// <param name="KvHeads">Key and value heads.</param>
/// <param name="HeadDim">Elements of a head.</param>
/// <param name="SharedByStreams">What is stored is the same in every stream of a sequence, so the first stream holds it for all.</param>
/// <param name="LatentDim">Values are the first so many elements of the keys and not stored besides (<see cref="LatentPlan"/>); null where they are.</param>
public readonly record struct KvSlotPlan(int KvHeads, int HeadDim, bool SharedByStreams = false, int? LatentDim = null)
{
    /// <summary>Elements of a value.</summary>
    public int ValueDim => LatentDim ?? HeadDim;

    /// <summary>Numbers stored for a token.</summary>
    public long ElementsPerToken => (LatentDim is null ? 2L : 1L) * KvHeads * HeadDim;
}
