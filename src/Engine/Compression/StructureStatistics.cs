using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Compression;

/// <summary>What a calibration text tells of layers, heads, experts and inner neurons: how little each would be missed.</summary>
/// <param name="plan">The model's plan.</param>
/// <param name="checkpoint">Where its weights are.</param>
/// <param name="watchesHeads">Heads are wanted, which take a matrix of moments each.</param>
internal sealed class StructureStatistics(ModelPlan plan, Checkpoint checkpoint, bool watchesHeads) : ILinearObserver, IExpertObserver, ILayerObserver
{
    private readonly double[] cosines = new double[plan.Layers.Steps.Length];
    private readonly long[] rows = new long[plan.Layers.Steps.Length];
    private readonly double[]?[] slots =
        [.. plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block].Experts is { } experts ? new double[experts.Slots.Length] : null)];

    private readonly Dictionary<WeightRef, double[]> squares = plan.Layers.Blocks.SelectMany(FeedForwards)
        .GroupBy(static feedForward => feedForward.Down.Parts[0].Weight!)
        .ToDictionary(static same => same.Key, static same => new double[same.First().Width]);

    private readonly Dictionary<WeightRef, HeadStatistics> heads = plan.Layers.Blocks.Select(static block => block.Attention).OfType<AttentionPlan>()
        .Where(_ => watchesHeads).DistinctBy(static attention => attention.Output.Parts[0].Weight!)
        .ToDictionary(static attention => attention.Output.Parts[0].Weight!, static attention => new HeadStatistics(attention));

    private readonly Dictionary<WeightRef, RouterLogits> routers = plan.Experts().Select(static experts => experts.Router)
        .DistinctBy(static router => router.Logits.Parts[0].Weight!)
        .ToDictionary(static router => router.Logits.Parts[0].Weight!, router => new RouterLogits(router, checkpoint));

    /// <summary>
    /// Mean cosine of the residual stream before and after a step: what leaves its direction as it is does least (Men et al. 2024, ShortGPT; Liu et al. 2024, FoldGPT).
    /// </summary>
    public double Similarity(int step) => rows[step] == 0 ? 0 : cosines[step] / rows[step];

    /// <summary>Sum of the weights that a slot was chosen with in a step.</summary>
    public double Chosen(int step, int slot) => slots[step]![slot];

    /// <summary>‖a‖ of each inner neuron of a feed-forward over the rows that came, [width].</summary>
    public double[] Norms(FeedForwardPlan feedForward) => [.. squares[feedForward.Down.Parts[0].Weight!].Select(Math.Sqrt)];

    /// <summary>What each query head of an attention brings, [heads].</summary>
    public double[] HeadScores(AttentionPlan attention)
    {
        WeightRef output = attention.Output.Parts[0].Weight!;
        return heads[output].Scores(checkpoint[output.Tensor]);
    }

    /// <summary>How alike a router's logits for two experts are over the text: their cosine, −1 … 1.</summary>
    public double Alike(RouterPlan router, int expert, int other) => routers[router.Logits.Parts[0].Weight!].Cosine(expert, other);

    /// <inheritdoc/>
    public bool Wants(LinearPlan linear) =>
        linear.Parts is [{ Weight: { } weight }, ..] && (squares.ContainsKey(weight) || routers.ContainsKey(weight) || heads.ContainsKey(weight));

    /// <inheritdoc/>
    public void Take(LinearPlan linear, int count, ReadOnlySpan<float> inputs)
    {
        if (routers.TryGetValue(linear.Parts[0].Weight!, out RouterLogits? router))
        {
            router.Add(count, inputs);
            return;
        }
        if (heads.TryGetValue(linear.Parts[0].Weight!, out HeadStatistics? attention))
        {
            attention.Add(count, inputs);
            return;
        }
        double[] sums = squares[linear.Parts[0].Weight!];
        for (int i = 0; i < inputs.Length; i++)
        {
            sums[i % sums.Length] += (double)inputs[i] * inputs[i];
        }
    }

    /// <inheritdoc/>
    public void Chosen(int layer, int most, ReadOnlySpan<int> chosen, ReadOnlySpan<float> weights)
    {
        for (int place = 0; place < chosen.Length; place++)
        {
            if (chosen[place] >= 0)
            {
                slots[layer]![chosen[place]] += weights[place];
            }
        }
    }

    /// <inheritdoc/>
    public void Ran(int layer, ReadOnlySpan<float> before, ReadOnlySpan<float> after)
    {
        int width = plan.HiddenSize;
        for (int first = 0; first < before.Length; first += width)
        {
            ReadOnlySpan<float> one = before.Slice(first, width), other = after.Slice(first, width);
            double norms = (double)TensorPrimitives.Norm(one) * TensorPrimitives.Norm(other);
            cosines[layer] += norms > 0 ? TensorPrimitives.Dot(one, other) / norms : 1;
            rows[layer]++;
        }
    }

    /// <summary>The feed-forwards of a block, those of experts included.</summary>
    public static IEnumerable<FeedForwardPlan> FeedForwards(BlockPlan block) =>
        [.. block.FeedForward is null ? [] : (FeedForwardPlan[])[block.FeedForward], .. block.Experts?.Slots.Where(static slot => slot.Width > 0) ?? []];

    /// <summary>Products of a router's logits with each other, summed over the rows that came.</summary>
    private sealed class RouterLogits(RouterPlan router, Checkpoint checkpoint)
    {
        private readonly float[] weights = checkpoint[router.Logits.Parts[0].Weight!.Tensor].ToFloats();
        private readonly double[,] products = new double[router.Experts, router.Experts];

        public void Add(int count, ReadOnlySpan<float> inputs)
        {
            int width = router.Logits.Inputs;
            double[] logits = new double[router.Experts];
            for (int row = 0; row < count; row++)
            {
                for (int expert = 0; expert < logits.Length; expert++)
                {
                    logits[expert] = TensorPrimitives.Dot(inputs.Slice(row * width, width), weights.AsSpan(expert * width, width));
                }
                for (int i = 0; i < logits.Length; i++)
                {
                    for (int j = 0; j < logits.Length; j++)
                    {
                        products[i, j] += logits[i] * logits[j];
                    }
                }
            }
        }

        public double Cosine(int expert, int other)
        {
            double norms = Math.Sqrt(products[expert, expert] * products[other, other]);
            return norms > 0 ? products[expert, other] / norms : 0;
        }
    }
}
