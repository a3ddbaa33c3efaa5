using System.Collections.Immutable;

namespace Engine.Plans;

/// <summary>
/// A mixture of experts (Shazeer et al. 2017; Fedus et al. 2022): a router sends each token to a few of many feed-forwards, whose outputs are added with weights.
/// <para>
/// What the router knows as an <em>expert</em> and what is stored as a <em>slot</em> are told apart: merged experts share a slot, dropped ones have none, and
/// slots may have widths and formats of their own.
/// </para>
/// </summary>
public sealed record ExpertsPlan
{
    /// <summary>Chooses the experts of a token.</summary>
    public required RouterPlan Router { get; init; }

    /// <summary>
    /// The distinct feed-forwards, hidden → hidden. Those of one plan have the same activation; their widths may differ. One of width 0 outputs nothing, not even
    /// a bias, and none of its tensors is read; it keeps its part of the weights.
    /// </summary>
    public required ImmutableArray<FeedForwardPlan> Slots { get; init; }

    /// <summary>The slot of each of the router's experts; −1 for one that was dropped, which the router then never chooses. At least one is kept.</summary>
    public required ImmutableArray<int> Map { get; init; }

    /// <summary>Slots that every token goes through besides.</summary>
    public ImmutableArray<SharedExpert> Shared { get; init; } = [];

    /// <summary>Experts that were not dropped: the most that a token can be sent to.</summary>
    public int Kept => Map.Count(static slot => slot >= 0);
}

/// <summary>A slot that every token goes through.</summary>
/// <param name="Slot">Index into <see cref="ExpertsPlan.Slots"/>.</param>
/// <param name="Gate">
/// The output counts σ(z), z being this output of <see cref="RouterPlan.Logits"/> (behind those of the experts); null where it counts
/// <paramref name="Weight"/>.
/// </param>
/// <param name="Weight">What the output counts where there is no gate.</param>
public sealed record SharedExpert(int Slot, int? Gate = null, float Weight = 1f);

/// <summary>How logits z become scores s.</summary>
public enum ExpertScore
{
    /// <summary>s = z.</summary>
    Logit,
    /// <summary>s = softmax z over all experts that were not dropped.</summary>
    Softmax,
    /// <summary>s = σ(z).</summary>
    Sigmoid,
    /// <summary>s = sqrt(softplus(z)).</summary>
    SqrtSoftplus,
}

/// <summary>How a group of experts is scored, to keep the best groups before experts are chosen (DeepSeek-AI 2024).</summary>
public enum GroupScore
{
    /// <summary>By its best expert.</summary>
    Largest,
    /// <summary>By the sum of its two best.</summary>
    SumOfTwoLargest,
}

/// <summary>Which experts a token is sent to.</summary>
public enum ExpertChoice
{
    /// <summary>Those with the largest scores; of equal ones the lower index.</summary>
    Largest,
    /// <summary>
    /// Two, by SparseMixer-2 (Liu et al. 2023; PhiMoE), which also gives the weights: it reads the logits alone, not scores, biases or groups.
    /// </summary>
    SparseMixer,
    /// <summary>Drawn uniformly among all kept, from <see cref="RouterPlan.Seed"/>, the position and the token (THOR, Zuo et al. 2022).</summary>
    Random,
}

/// <summary>What the weights of the chosen experts are made from.</summary>
public enum ExpertWeight
{
    /// <summary>Their scores, without the selection bias.</summary>
    Score,
    /// <summary>Softmax over the logits of the chosen.</summary>
    SoftmaxOfChosen,
    /// <summary>One each.</summary>
    One,
}

/// <summary>
/// A router as data, applied in this order: logits; dropped experts to −∞; score; selection bias; best groups; choice; weights; normalisation; scale. Families
/// differ in nothing else.
/// </summary>
public sealed record RouterPlan
{
    /// <summary>
    /// hidden → [experts | gates of shared experts]; with a <see cref="Recurrence"/>, state → the same. It has no parts where nothing depends on logits:
    /// <see cref="ExpertChoice.Random"/> with <see cref="ExpertWeight.One"/> and no gates.
    /// </summary>
    public required LinearPlan Logits { get; init; }

    /// <summary>Logits of a row.</summary>
    public int Outputs => Logits.Parts.IsEmpty ? Experts : Logits.Outputs;

    /// <summary>What <see cref="Logits"/> reads instead of the layer's input, or null.</summary>
    public RecurrentRouterPlan? Recurrence { get; init; }

    /// <summary>Experts that there are logits for.</summary>
    public required int Experts { get; init; }

    /// <summary>Experts that a token is sent to, k; 1 … <see cref="Experts"/>.</summary>
    public required int PerToken { get; init; }

    /// <summary>From z to s.</summary>
    public ExpertScore Score { get; init; } = ExpertScore.Softmax;

    /// <summary>[experts], added to the scores for the choice and nowhere else (loss-free balancing, DeepSeek-V3); else empty.</summary>
    public ImmutableArray<float> SelectionBias { get; init; } = [];

    /// <summary>Groups of neighbouring experts, of equal size; 1 where there are none.</summary>
    public int Groups { get; init; } = 1;

    /// <summary>Groups that experts are chosen from. Where they have fewer than are chosen, the best of the other groups follow.</summary>
    public int GroupsUsed { get; init; } = 1;

    /// <summary>What makes a group better than another.</summary>
    public GroupScore GroupScore { get; init; }

    /// <summary>Which are chosen.</summary>
    public ExpertChoice Choice { get; init; }

    /// <summary>What the chosen weigh.</summary>
    public ExpertWeight Weight { get; init; }

    /// <summary>Weights are divided by their sum + <see cref="NormalizationEpsilon"/>; a sum of 0 divides nothing.</summary>
    public bool Normalize { get; init; }

    /// <summary>Added to the sum that weights are divided by: 0, or 1e−20 in DeepSeek's code.</summary>
    public float NormalizationEpsilon { get; init; }

    /// <summary>Factor on the weights in the end.</summary>
    public float Scale { get; init; } = 1f;

    /// <summary>ε of SparseMixer-2: logits within 2ε of the largest, relatively, share the softmax.</summary>
    public float SparseMixerEpsilon { get; init; }

    /// <summary>
    /// Logits of experts are rounded to bfloat16 before anything else, as code that computes them in that type does: near ties then fall alike.
    /// </summary>
    public bool RoundsLogits { get; init; }

    /// <summary>Seed of random choices; layers whose choices are to be independent have different ones.</summary>
    public ulong Seed { get; init; }
}
