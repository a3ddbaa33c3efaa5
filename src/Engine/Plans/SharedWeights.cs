using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Text;
using Engine.Checkpoints;

namespace Engine.Plans;

/// <summary>
/// Finds layers whose weights are the same and makes them one plan: files often store what a model shares once per name (Bae et al. 2025 save every
/// recursion's copy; merged and grown models repeat layers), and what is loaded once is also read once per step from the cache it then fits.
/// Attention, feed-forward, mixture of experts and the norms before them are found apart. Inside a mixture, experts that are copies of each other (merged ones,
/// in files that keep all names: Li et al. 2024) become one slot.
/// </summary>
internal static class SharedWeights
{
    private const int SampleBytes = 64;

    /// <summary>
    /// The same computation with as few blocks as there are distinct ones. Compares shapes first, then a few bytes, and reads tensors only where those
    /// agree: a model that shares nothing costs one look into each sublayer.
    /// </summary>
    public static ModelPlan Find(ModelPlan plan, Checkpoint checkpoint)
    {
        ImmutableArray<BlockPlan> blocks = plan.Layers.Blocks;
        AttentionPlan?[] attention = Unify([.. blocks.Select(static block => block.Attention)], Describe, checkpoint);
        FeedForwardPlan?[] feedForward = Unify([.. blocks.Select(static block => block.FeedForward)], Describe, checkpoint);
        NormPlan?[] attentionNorms = Unify([.. plan.Layers.Steps.Select(static step => step.AttentionNorm)], Describe, checkpoint);
        NormPlan?[] feedForwardNorms = Unify([.. plan.Layers.Steps.Select(static step => step.FeedForwardNorm)], Describe, checkpoint);
        ExpertsPlan?[] experts = Unify(
            [.. blocks.Select(block => block.Experts is null ? null : MergeSlots(block.Experts, checkpoint))], Describe, checkpoint);

        var distinct = ImmutableArray.CreateBuilder<BlockPlan>();
        var indexOf = new Dictionary<BlockPlan, int>(SameParts.Instance);
        int[] moved = new int[blocks.Length];
        for (int i = 0; i < blocks.Length; i++)
        {
            BlockPlan block = blocks[i] with { Attention = attention[i], FeedForward = feedForward[i], Experts = experts[i] };
            if (!indexOf.TryGetValue(block, out moved[i]))
            {
                indexOf[block] = moved[i] = distinct.Count;
                distinct.Add(block);
            }
        }
        return plan with
        {
            Layers = plan.Layers with
            {
                Blocks = distinct.ToImmutable(),
                Steps = [.. plan.Layers.Steps.Select((step, i) => step with
                {
                    Block = moved[step.Block],
                    AttentionNorm = attentionNorms[i],
                    FeedForwardNorm = feedForwardNorms[i],
                })],
            },
            Head = TieHead(plan, checkpoint),
        };
    }

    /// <summary>Two feed-forwards compute the same with the same weights. Those whose tensors are missing are not looked into, and count as the same.</summary>
    public static bool AreSame(FeedForwardPlan a, FeedForwardPlan b, Checkpoint checkpoint)
    {
        Description first = Describe(a), second = Describe(b);
        return first.Tensors.Concat(second.Tensors).Any(rows => !checkpoint.TryGetOutline(rows.Tensor, out _))
            || (first.Shape == second.Shape && AreEqual(first, second, checkpoint));
    }

    /// <summary>Routed experts with the same weights share a slot; a shared expert keeps its own, so that no token has a slot for two reasons.</summary>
    private static ExpertsPlan MergeSlots(ExpertsPlan plan, Checkpoint checkpoint)
    {
        FeedForwardPlan?[] routed = [.. plan.Slots];
        foreach (SharedExpert expert in plan.Shared)
        {
            routed[expert.Slot] = null;
        }
        FeedForwardPlan?[] unified = Unify(routed, Describe, checkpoint);
        var slots = ImmutableArray.CreateBuilder<FeedForwardPlan>();
        var indexOf = new Dictionary<FeedForwardPlan, int>(ReferenceEqualityComparer.Instance);
        int[] moved = new int[plan.Slots.Length];
        for (int i = 0; i < moved.Length; i++)
        {
            FeedForwardPlan slot = unified[i] ?? plan.Slots[i];
            if (!indexOf.TryGetValue(slot, out moved[i]))
            {
                indexOf[slot] = moved[i] = slots.Count;
                slots.Add(slot);
            }
        }
        return slots.Count == moved.Length ? plan : plan with
        {
            Slots = slots.ToImmutable(),
            Map = [.. plan.Map.Select(slot => slot < 0 ? slot : moved[slot])],
            Shared = [.. plan.Shared.Select(expert => expert with { Slot = moved[expert.Slot] })],
        };
    }

    /// <summary>A head that is a copy of the token table is the token table.</summary>
    private static LinearPlan TieHead(ModelPlan plan, Checkpoint checkpoint)
    {
        WeightRef tokens = plan.Embedding.Tokens;
        return plan.Head.Parts is [{ IsPlain: true, Weight: { FirstRow: 0, Transposed: false, IsPlain: true } weight } part] && weight != tokens
            && checkpoint.TryGetTensor(weight.Tensor, out TensorView? head) && checkpoint.TryGetTensor(tokens.Tensor, out TensorView? table)
            && head.DType == table.DType && head.Shape.AsSpan().SequenceEqual(table.Shape) && Sample(head).SequenceEqual(Sample(table))
            && head.ContentEquals(table)
                ? plan.Head with { Parts = [part with { Weight = tokens }] }
                : plan.Head;
    }

    /// <summary>Replaces plans by the first that computes the same with the same weights.</summary>
    private static T?[] Unify<T>(T?[] plans, Func<T, Description> describe, Checkpoint checkpoint)
        where T : class
    {
        Description?[] descriptions = [.. plans.Select(plan => plan is null ? null : describe(plan))];
        IEnumerable<int> present = Enumerable.Range(0, plans.Length).Where(i => plans[i] is not null);
        foreach (IGrouping<string, int> alike in present.GroupBy(i => descriptions[i]!.Shape))
        {
            Split([.. alike], 0);
        }
        return plans;

        // Tensor by tensor, so that layers that differ part at the first sample.
        void Split(List<int> candidates, int tensor)
        {
            if (candidates.Count == 1)
            {
                return;
            }
            if (tensor == descriptions[candidates[0]]!.Tensors.Count)
            {
                Compare(candidates);
                return;
            }
            foreach (IGrouping<string, int> alike in candidates.GroupBy(i => Fingerprint(descriptions[i]!.Tensors[tensor], checkpoint)))
            {
                Split([.. alike], tensor + 1);
            }
        }

        void Compare(List<int> candidates)
        {
            var found = new List<int>();
            foreach (int candidate in candidates)
            {
                int same = found.FindIndex(other => AreEqual(descriptions[candidate]!, descriptions[other]!, checkpoint));
                if (same < 0)
                {
                    found.Add(candidate);
                }
                else
                {
                    plans[candidate] = plans[found[same]];
                }
            }
        }
    }

    private static bool AreEqual(Description a, Description b, Checkpoint checkpoint)
    {
        for (int i = 0; i < a.Tensors.Count; i++)
        {
            if (a.Tensors[i] == b.Tensors[i])
            {
                continue;
            }
            TensorView view = a.Tensors[i].In(checkpoint);
            bool same = view.ContentEquals(b.Tensors[i].In(checkpoint));
            view.Evict();
            if (!same)
            {
                return false;
            }
        }
        return true;
    }

    private static string Fingerprint(StoredRows rows, Checkpoint checkpoint)
    {
        TensorView tensor = rows.In(checkpoint);
        string part = tensor.Coded is null ? "" : $"{rows.First} {rows.Count} {rows.Slice} ";
        return $"{part}{tensor.DType} {tensor.DescribeShape()} {Convert.ToHexString(Sample(tensor))}";
    }

    /// <summary>Bytes from the middle: the ends of matrices are more often alike.</summary>
    private static ReadOnlySpan<byte> Sample(TensorView tensor)
    {
        tensor = tensor.Coded?.Parts[0] ?? tensor;
        int length = (int)Math.Min(SampleBytes, tensor.ByteLength);
        return tensor.Slice((tensor.ByteLength - length) / 2, length);
    }

    private static Description Describe(AttentionPlan plan)
    {
        var description = new Description();
        description.Add($"{plan.Heads} {plan.KvHeads} {plan.HeadDim} {plan.Scale:R} {plan.SlidingWindow} {plan.NormsWholeProjection} {plan.ClipQkv:R}");
        description.Add(string.Join(' ', plan.Sinks));
        description.Add(plan.Rope);
        description.Add(plan.Qkv);
        description.Add(plan.Output);
        description.Add(plan.QueryNorm);
        description.Add(plan.KeyNorm);
        description.Add(plan.Latent);
        return description;
    }

    private static Description Describe(FeedForwardPlan plan)
    {
        var description = new Description();
        Describe(plan, description);
        return description;
    }

    private static void Describe(FeedForwardPlan plan, Description description)
    {
        description.Add($"{plan.Activation} {plan.Clamp} {plan.Width}");
        description.Add(plan.In);
        description.Add(plan.Down);
    }

    private static Description Describe(ExpertsPlan plan)
    {
        var description = new Description();
        description.Add($"{plan.Router} {string.Join(' ', plan.Map)} {string.Join(' ', plan.Shared)}"); // arrays print as their types
        description.Add(string.Join(' ', plan.Router.SelectionBias));
        description.Add(plan.Router.Logits);
        if (plan.Router.Recurrence is { } recurrence)
        {
            description.Add(recurrence.Projection);
            description.Add(recurrence.Cell.Input);
            description.Add(recurrence.Cell.Hidden);
        }
        foreach (FeedForwardPlan slot in plan.Slots)
        {
            Describe(slot, description);
        }
        return description;
    }

    private static Description Describe(NormPlan plan)
    {
        var description = new Description();
        description.Add(plan);
        return description;
    }

    /// <summary>
    /// A tensor, or a part of it along the outermost dimension, or a run of its rows where <paramref name="Count"/> says how many. Codes whose scales are stored apart
    /// are compared as a whole, whichever rows are meant.
    /// </summary>
    private readonly record struct StoredRows(string Tensor, int First, int? Count, int? Slice = null)
    {
        public TensorView In(Checkpoint checkpoint)
        {
            TensorView tensor = checkpoint[Tensor];
            if (tensor.Coded is not null)
            {
                return tensor;
            }
            if (Slice is { } slice)
            {
                long rows = tensor.Rows / tensor.Shape[0];
                return tensor.SliceRows(slice * rows, rows);
            }
            return Count is { } count ? tensor.SliceRows(First, count) : tensor;
        }
    }

    /// <summary>What a plan is but for its tensors, as text, and its tensors in order.</summary>
    private sealed class Description
    {
        private readonly StringBuilder shape = new();

        public string Shape => shape.ToString();

        public List<StoredRows> Tensors { get; } = [];

        public void Add(string text) => shape.Append(text).Append(';');

        public void Add(RopePlan? rope)
        {
            Add(rope is null ? "no rope" : $"{rope.Pairing} {rope.Magnitude:R} {string.Join(' ', rope.InverseFrequencies)}");
            if (rope is not null)
            {
                Add(rope.Long);
            }
        }

        public void Add(LinearPlan linear)
        {
            Add($"{linear.Inputs}");
            foreach (LinearPart part in linear.Parts)
            {
                Add($"{part.Outputs} {(part.Rows is { } rows ? string.Join(' ', rows) : "all")}");
                if (part.Weight is null or { Transposed: true } or { IsPlain: false })
                {
                    Add(part.Weight);
                }
                else
                {
                    Tensors.Add(new StoredRows(part.Weight.Tensor, part.Weight.FirstRow, part.Outputs));
                }
                Add(part.LowRank is { } term ? $"{term.Rank}" : "no term");
                Add(part.LowRank?.A);
                Add(part.LowRank?.B);
                Add(part.Bias);
            }
        }

        public void Add(LatentPlan? latent)
        {
            Add(latent is null ? "no latent" : $"{latent.Rank} {latent.QueryDown is not null}");
            if (latent is not null)
            {
                if (latent.QueryDown is not null)
                {
                    Add(latent.QueryDown);
                }
                Add(latent.QueryDownNorm);
                Add(latent.Query);
                Add(latent.KeyUp);
                Add(latent.ValueUp);
            }
        }

        public void Add(NormPlan? norm)
        {
            Add(norm is null ? "no norm" : $"{norm.Kind} {norm.Epsilon:R} {norm.MeanWidth}");
            Add(norm?.Weight);
            Add(norm?.Bias);
        }

        private void Add(HeadLinearPlan heads)
        {
            Add($"{heads.Heads} {heads.Inputs} {heads.Outputs} {heads.Carried} {heads.RowsPerHead}");
            Add(heads.Weight);
        }

        private void Add(WeightRef? weight)
        {
            Add(weight is null ? "none" : $"{weight.FirstRow} {weight.Transposed} {weight.RowStep} {weight.Slice is not null} {weight.Scales is not null}");
            if (weight is not null)
            {
                Tensors.Add(new StoredRows(weight.Tensor, 0, null, weight.Slice));
            }
            if (weight?.Scales is { } scales)
            {
                Tensors.Add(new StoredRows(scales, 0, null, weight.Slice));
            }
        }
    }

    /// <summary>Blocks are the same where their parts are the same objects.</summary>
    private sealed class SameParts : IEqualityComparer<BlockPlan>
    {
        public static SameParts Instance { get; } = new();

        public bool Equals(BlockPlan? a, BlockPlan? b) =>
            ReferenceEquals(a?.Attention, b?.Attention) && ReferenceEquals(a?.FeedForward, b?.FeedForward)
            && ReferenceEquals(a?.Experts, b?.Experts) && ReferenceEquals(a?.AttentionLinear, b?.AttentionLinear)
            && ReferenceEquals(a?.FeedForwardLinear, b?.FeedForwardLinear);

        public int GetHashCode(BlockPlan block) => HashCode.Combine(
            RuntimeHelpers.GetHashCode(block.Attention), RuntimeHelpers.GetHashCode(block.FeedForward), RuntimeHelpers.GetHashCode(block.Experts));
    }
}
