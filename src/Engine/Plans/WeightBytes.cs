using Engine.Checkpoints;

namespace Engine.Plans;

/// <summary>Bytes that parts of a plan take as they are stored, looked up in the checkpoint; no weights are read.</summary>
/// <param name="checkpoint">Where the tensors are.</param>
/// <param name="typeOf">How a tensor is stored in memory, where that is not as in the checkpoint.</param>
public sealed class WeightBytes(Checkpoint checkpoint, Func<TensorView, DType>? typeOf = null)
{
    /// <summary>A linear map.</summary>
    public long Of(LinearPlan linear) => linear.Parts.Sum(part =>
        Share(part.Weight, (long)part.KeptRows * linear.Inputs) + Share(part.Bias, part.Outputs)
        + (part.LowRank is { } term ? Share(term.A, (long)term.Rank * linear.Inputs) + Share(term.B, (long)term.Rank * part.Outputs) : 0));

    /// <summary>A norm; 0 where there is none.</summary>
    public long Of(NormPlan? norm) => norm is null ? 0 : Share(norm.Weight, long.MaxValue) + Share(norm.Bias, long.MaxValue);

    /// <summary>Self-attention with its norms of heads.</summary>
    public long Of(AttentionPlan attention)
    {
        long bytes = Of(attention.Qkv) + Of(attention.Output) + Of(attention.QueryNorm) + Of(attention.KeyNorm);
        return attention.Latent is not { } latent ? bytes
            : bytes + (latent.QueryDown is null ? 0 : Of(latent.QueryDown)) + Of(latent.QueryDownNorm) + Of(latent.Query) + Of(latent.KeyUp) + Of(latent.ValueUp);
    }

    /// <summary>A linear map of each head.</summary>
    public long Of(HeadLinearPlan heads) => Share(heads.Weight, (long)heads.Heads * heads.Inputs * heads.Outputs);

    /// <summary>A feed-forward; one of width 0 reads nothing.</summary>
    public long Of(FeedForwardPlan feedForward) => feedForward.Width == 0 ? 0 : Of(feedForward.In) + Of(feedForward.Down);

    /// <summary>A router, with the cell that it shares with other layers where it is recurrent.</summary>
    public long Of(RouterPlan router) =>
        Of(router.Logits) + (router.Recurrence is { } recurrence ? Of(recurrence.Projection) + Of(recurrence.Cell) : 0);

    /// <summary>The cell of recurrent routers.</summary>
    public long Of(RecurrentCellPlan cell) => Of(cell.Input) + Of(cell.Hidden);

    /// <summary>All slots of a mixture, without its router.</summary>
    public long Of(ExpertsPlan experts) => experts.Slots.Sum(Of);

    /// <summary>
    /// What a token reads of a mixture's slots on average if all experts are chosen alike, and all shared ones. Where experts were merged, several that a token
    /// is sent to may be one slot, which is read once.
    /// </summary>
    /// <param name="experts">The mixture.</param>
    /// <param name="perToken">Experts that a token is sent to; null for the plan's number.</param>
    public long PerToken(ExpertsPlan experts, int? perToken = null)
    {
        int kept = experts.Kept, chosen = experts.PerToken(perToken);
        double bytes = 0;
        foreach (IGrouping<int, int> merged in experts.Map.Where(static slot => slot >= 0).GroupBy(static slot => slot))
        {
            // None of m experts is among k of n: (n − m)/n · (n − m − 1)/(n − 1) · … with k factors.
            double missed = 1;
            for (int i = 0; i < chosen; i++)
            {
                missed *= Math.Max(0.0, kept - merged.Count() - i) / (kept - i);
            }
            bytes += (1 - missed) * Of(experts.Slots[merged.Key]);
        }
        return (long)Math.Round(bytes) + experts.Shared.Sum(shared => Of(experts.Slots[shared.Slot]));
    }

    /// <summary>A row of a table; 0 where there is no table.</summary>
    public long Row(WeightRef? table) => table is null ? 0 : RowBytes(checkpoint.Outline(table.Tensor));

    /// <summary>Slots of all mixtures, and everything else, each counted once however many layers share it.</summary>
    public (long Experts, long Others) Totals(ModelPlan plan)
    {
        long experts = 0;
        long others = Of(plan.Head) + Of(plan.FinalNorm) + Share(plan.Embedding.Positions, long.MaxValue);
        others += plan.Head.Parts.Any(part => part.Weight?.Tensor == plan.Embedding.Tokens.Tensor) ? 0 : Share(plan.Embedding.Tokens, long.MaxValue);
        others += plan.Layers.Steps.SelectMany(static step => step.Residuals).Sum(Of);
        others += plan.Layers.Steps.SelectMany(static step => (NormPlan?[])[step.AttentionNorm, step.FeedForwardNorm]).Distinct().Sum(norm => Of(norm));
        HashSet<object> counted = new(ReferenceEqualityComparer.Instance);
        foreach (BlockPlan block in plan.Layers.Blocks)
        {
            others += block.Attention is { } attention && counted.Add(attention) ? Of(attention) : 0;
            others += block.FeedForward is { } feedForward && counted.Add(feedForward) ? Of(feedForward) : 0;
            others += block.Linears.Where(counted.Add).Sum(Of);
            if (block.Experts is { } mixture && counted.Add(mixture))
            {
                others += Of(mixture.Router);
                others -= mixture.Router.Recurrence is { } recurrence && !counted.Add(recurrence.Cell) ? Of(recurrence.Cell) : 0;
                experts += Of(mixture);
            }
        }
        return (experts, others);
    }

    private long RowBytes(TensorView tensor) =>
        typeOf?.Invoke(tensor) is { } dtype && dtype != tensor.DType ? dtype.RowBytes(tensor.Columns) : tensor.RowBytes;

    // A part may be some rows of its tensor: it has the bytes of its share of the elements.
    private long Share(WeightRef? weight, long elements)
    {
        if (weight is null)
        {
            return 0;
        }
        if (weight.Scales is not null)
        {
            // MXFP4 apart from its scales: two elements in a byte, and a byte of scale for 32 of them.
            return elements / 2 + elements / 32;
        }
        TensorView tensor = checkpoint.Outline(weight.Tensor);
        return (long)((Int128)RowBytes(tensor) * tensor.Rows * Math.Min(elements, tensor.ElementCount) / tensor.ElementCount);
    }
}
