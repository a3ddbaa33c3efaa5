using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms.Calibration;
using Engine.Transforms.Pruning;

namespace Engine.Compression;

/// <summary>
/// Merges experts as M-SMoE does (Li et al. 2024, "Merge, Then Compress", section 3.1): the experts that are used most stay, each other one joins the one whose
/// router logits are most like its own, neurons are brought into the order of those they resemble, and weights are averaged by use. The file keeps all names, and
/// experts that were merged are copies of each other, which a mixture of this engine holds once.
/// </summary>
internal static class ExpertMerge
{
    /// <summary>Says which experts are merged.</summary>
    /// <param name="use">What each was used, [experts].</param>
    /// <param name="alike">How alike the router logits of two experts are.</param>
    /// <param name="left">How many stay.</param>
    /// <returns>For each expert the one of its group that stays.</returns>
    public static int[] Groups(double[] use, Func<int, int, double> alike, int left)
    {
        int[] staying = [.. Enumerable.Range(0, use.Length).OrderByDescending(expert => use[expert]).Take(left).Order()];
        return [.. Enumerable.Range(0, use.Length).Select(expert => staying.Contains(expert) ? expert : staying.MaxBy(other => alike(expert, other)))];
    }

    /// <summary>The tensors of a group.</summary>
    /// <param name="source">Where the experts are.</param>
    /// <param name="members">The experts, the one whose order of neurons stays first; matrices of their own, of one width.</param>
    /// <param name="use">What each was used.</param>
    /// <exception cref="EngineException">Their widths differ.</exception>
    public static IEnumerable<TensorCut> Merge(Checkpoint source, FeedForwardPlan[] members, double[] use)
    {
        FeedForwardPlan first = members[0];
        if (members.FirstOrDefault(member => member.Width != first.Width) is { } other)
        {
            throw new EngineException(
                $"expected an expert of {first.Width} neurons to merge, found one of {other.Width}", source.Path, other.Down.Parts[0].Weight!.Tensor);
        }
        double all = use.Sum();
        float[] weights = [.. use.Select(part => (float)(all > 0 ? part / all : 1.0 / use.Length))];
        float[] features = Features(source, first);
        int[][] orders = [.. members.Select(member => ReferenceEquals(member, first) ? [.. Enumerable.Range(0, first.Width)]
            : Align(features, Features(source, member), first.Width))];
        foreach (FeedForwardPlan member in members)
        {
            for (int part = 0; part < member.In.Parts.Length; part++)
            {
                int index = part;
                yield return Sum(member.In.Parts[part].Weight!, i => new TensorShare(members[i].In.Parts[index].Weight!.Tensor, weights[i], Rows: orders[i]));
                if (member.In.Parts[part].Bias is { } bias)
                {
                    yield return Sum(bias, i => new TensorShare(members[i].In.Parts[index].Bias!.Tensor, weights[i], Columns: orders[i]));
                }
            }
            yield return Sum(member.Down.Parts[0].Weight!, i => new TensorShare(members[i].Down.Parts[0].Weight!.Tensor, weights[i], Columns: orders[i]));
            if (member.Down.Parts[0].Bias is { } downBias)
            {
                yield return Sum(downBias, i => new TensorShare(members[i].Down.Parts[0].Bias!.Tensor, weights[i]));
            }
        }

        TensorCut Sum(WeightRef weight, Func<int, TensorShare> share) =>
            new(weight.Tensor, weight.Tensor) { Sum = [.. Enumerable.Range(0, members.Length).Select(share)] };
    }

    /// <summary>
    /// Which neuron of another expert takes the place of each: the largest first, each takes the one that is left whose weights have the largest product with its own.
    /// The paper assigns all at once; one after the other is nearly as good, and quadratic where that is cubic.
    /// </summary>
    /// <param name="features">[neurons, length]: all weights of each neuron.</param>
    /// <param name="others">Likewise, of the other expert.</param>
    /// <param name="neurons">Neurons.</param>
    public static unsafe int[] Align(float[] features, float[] others, int neurons)
    {
        int length = features.Length / neurons;
        float[] products = new float[neurons];
        bool[] taken = new bool[neurons];
        int[] order = new int[neurons];
        double[] sizes = [.. Enumerable.Range(0, neurons).Select(neuron => features.Skip(neuron * length).Take(length).Sum(static value => (double)value * value))];
        foreach (int neuron in Enumerable.Range(0, neurons).OrderByDescending(neuron => sizes[neuron]))
        {
            Array.Clear(products);
            fixed (float* one = features, all = others, target = products)
            {
                RowProducts.Add(1, all, length, neurons, one + (long)neuron * length, length, 1, length, target, 1);
            }
            int best = -1;
            for (int other = 0; other < neurons; other++)
            {
                best = !taken[other] && (best < 0 || products[other] > products[best]) ? other : best;
            }
            taken[best] = true;
            order[neuron] = best;
        }
        return order;
    }

    /// <summary>Of each neuron its rows of the first matrices and its column of the last, [width, length].</summary>
    private static float[] Features(Checkpoint source, FeedForwardPlan expert)
    {
        int width = expert.Width, inputs = expert.In.Inputs, outputs = expert.Down.Outputs, parts = expert.In.Parts.Length, length = parts * inputs + outputs;
        float[] features = new float[width * length], down = source[expert.Down.Parts[0].Weight!.Tensor].ToFloats();
        for (int part = 0; part < parts; part++)
        {
            float[] rows = source[expert.In.Parts[part].Weight!.Tensor].ToFloats();
            for (int neuron = 0; neuron < width; neuron++)
            {
                rows.AsSpan(neuron * inputs, inputs).CopyTo(features.AsSpan(neuron * length + part * inputs));
            }
        }
        for (int i = 0; i < down.Length; i++)
        {
            features[i % width * length + parts * inputs + i / width] = down[i];
        }
        return features;
    }
}
