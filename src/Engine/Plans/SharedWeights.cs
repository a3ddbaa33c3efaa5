using System.Collections.Immutable;
using System.Text;
using Engine.Checkpoints;

namespace Engine.Plans;

/// <summary>
/// Finds layers whose weights are the same and makes them one plan: files often store what a model shares once per name (Bae et al. 2025 save every
/// recursion's copy; merged and grown models repeat layers), and what is loaded once is also read once per step from the cache it then fits.
/// Attention, feed-forward and the norms before them are found apart.
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

        var distinct = ImmutableArray.CreateBuilder<BlockPlan>();
        var indexOf = new Dictionary<BlockPlan, int>(SameParts.Instance);
        int[] moved = new int[blocks.Length];
        for (int i = 0; i < blocks.Length; i++)
        {
            var block = new BlockPlan(attention[i], feedForward[i]);
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

    /// <summary>A head that is a copy of the token table is the token table.</summary>
    private static LinearPlan TieHead(ModelPlan plan, Checkpoint checkpoint)
    {
        WeightRef tokens = plan.Embedding.Tokens;
        return plan.Head.Parts is [{ Weight: { FirstRow: 0, Transposed: false } weight } part] && weight != tokens
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
            TensorView view = checkpoint[a.Tensors[i]];
            bool same = view.ContentEquals(checkpoint[b.Tensors[i]]);
            view.Evict();
            if (!same)
            {
                return false;
            }
        }
        return true;
    }

    private static string Fingerprint(string name, Checkpoint checkpoint)
    {
        TensorView tensor = checkpoint[name];
        return $"{tensor.DType} {tensor.DescribeShape()} {Convert.ToHexString(Sample(tensor))}";
    }

    /// <summary>Bytes from the middle: the ends of matrices are more often alike.</summary>
    private static ReadOnlySpan<byte> Sample(TensorView tensor)
    {
        int length = (int)Math.Min(SampleBytes, tensor.ByteLength);
        return tensor.Slice((tensor.ByteLength - length) / 2, length);
    }

    private static Description Describe(AttentionPlan plan)
    {
        var description = new Description();
        description.Add($"{plan.Heads} {plan.KvHeads} {plan.HeadDim} {plan.Scale:R} {plan.SlidingWindow}");
        description.Add(plan.Rope);
        description.Add(plan.Qkv);
        description.Add(plan.Output);
        description.Add(plan.QueryNorm);
        description.Add(plan.KeyNorm);
        return description;
    }

    private static Description Describe(FeedForwardPlan plan)
    {
        var description = new Description();
        description.Add($"{plan.Activation} {plan.Width}");
        description.Add(plan.In);
        description.Add(plan.Down);
        return description;
    }

    private static Description Describe(NormPlan plan)
    {
        var description = new Description();
        description.Add(plan);
        return description;
    }

    /// <summary>What a plan is but for its tensors, as text, and its tensors in order.</summary>
    private sealed class Description
    {
        private readonly StringBuilder shape = new();

        public string Shape => shape.ToString();

        public List<string> Tensors { get; } = [];

        public void Add(string text) => shape.Append(text).Append(';');

        public void Add(RopePlan? rope) => Add(rope is null
            ? "no rope"
            : $"{rope.Pairing} {rope.Magnitude:R} {string.Join(' ', rope.InverseFrequencies)}");

        public void Add(LinearPlan linear)
        {
            Add($"{linear.Inputs}");
            foreach (LinearPart part in linear.Parts)
            {
                Add($"{part.Outputs}");
                Add(part.Weight);
                Add(part.Bias);
            }
        }

        public void Add(NormPlan? norm)
        {
            Add(norm is null ? "no norm" : $"{norm.Kind} {norm.Epsilon:R}");
            Add(norm?.Weight);
            Add(norm?.Bias);
        }

        private void Add(WeightRef? weight)
        {
            Add(weight is null ? "none" : $"{weight.FirstRow} {weight.Transposed}");
            if (weight is not null)
            {
                Tensors.Add(weight.Tensor);
            }
        }
    }

    /// <summary>Blocks are the same where their parts are the same objects.</summary>
    private sealed class SameParts : IEqualityComparer<BlockPlan>
    {
        public static SameParts Instance { get; } = new();

        public bool Equals(BlockPlan? a, BlockPlan? b) =>
            ReferenceEquals(a?.Attention, b?.Attention) && ReferenceEquals(a?.FeedForward, b?.FeedForward);

        public int GetHashCode(BlockPlan block) => HashCode.Combine(
            block.Attention is null ? 0 : System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(block.Attention),
            block.FeedForward is null ? 0 : System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(block.FeedForward));
    }
}
