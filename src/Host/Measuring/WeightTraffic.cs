using Engine.Checkpoints;
using Engine.Plans;

namespace Host.Measuring;

/// <summary>
/// Bytes of weights that one decoded token reads, as they are stored: every matrix of every step, and the rows of the embedding it
/// looks up.
/// </summary>
internal static class WeightTraffic
{
    /// <param name="plan">What is run.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <param name="typeOf">How each is stored in memory.</param>
    public static long BytesPerToken(ModelPlan plan, Checkpoint checkpoint, Func<TensorView, DType> typeOf)
    {
        long bytes = Linear(plan.Head) + Row(plan.Embedding.Tokens) + Row(plan.Embedding.Positions) + Norm(plan.FinalNorm);
        foreach (LayerStep step in plan.Layers.Steps)
        {
            BlockPlan block = plan.Layers.Blocks[step.Block];
            bytes += Norm(step.AttentionNorm) + Norm(step.FeedForwardNorm);
            if (block.Attention is { } attention)
            {
                bytes += Linear(attention.Qkv) + Linear(attention.Output) + Norm(attention.QueryNorm) + Norm(attention.KeyNorm);
            }
            if (block.FeedForward is { } feedForward)
            {
                bytes += Linear(feedForward.In) + Linear(feedForward.Down);
            }
        }
        return bytes;

        long Linear(LinearPlan linear) =>
            linear.Parts.Sum(part => Share(part.Weight, (long)part.Outputs * linear.Inputs) + Share(part.Bias, part.Outputs));

        long Norm(NormPlan? norm) => norm is null ? 0 : Share(norm.Weight, long.MaxValue) + Share(norm.Bias, long.MaxValue);

        long Row(WeightRef? table) => table is null ? 0 : typeOf(checkpoint[table.Tensor]).RowBytes(checkpoint[table.Tensor].Columns);

        // A part may be some rows of its tensor: it has the bytes of its share of the elements.
        long Share(WeightRef? weight, long elements)
        {
            if (weight is null)
            {
                return 0;
            }
            TensorView tensor = checkpoint[weight.Tensor];
            return (long)((Int128)typeOf(tensor).RowBytes(tensor.Columns) * tensor.Rows * Math.Min(elements, tensor.ElementCount) / tensor.ElementCount);
        }
    }
}
