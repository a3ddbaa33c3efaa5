namespace Engine.Tests.Sampling;

/// <summary>
/// Every sampler step as its definition reads, in double precision, with full sorts. A distribution is probabilities by token id.
/// </summary>
internal static class Oracle
{
    public static double[] Softmax(IReadOnlyList<double> logits)
    {
        double maximum = logits.Max();
        double[] weights = [.. logits.Select(l => Math.Exp(l - maximum))];
        double sum = weights.Sum();
        return [.. weights.Select(w => w / sum)];
    }

    public static double[] Softmax(float[] logits) => Softmax([.. logits.Select(l => (double)l)]);

    public static HashSet<int> TopK(double[] logits, int k) => [.. ByLogit(logits).Take(k)];

    /// <summary>
    /// The nucleus, and how far the sums at its boundary are from p: where that is rounding, one token more or less is right too.
    /// </summary>
    public static (HashSet<int> Kept, double Margin) TopP(double[] logits, double p) => Reach(Softmax(logits), ByLogit(logits), p);

    public static HashSet<int> MinP(double[] logits, double p)
    {
        double[] probabilities = Softmax(logits);
        double needed = p * probabilities.Max();
        return [.. ByLogit(logits).Where(id => probabilities[id] >= needed)];
    }

    public static (HashSet<int> Kept, double Margin) Typical(double[] logits, double p)
    {
        double[] probabilities = Softmax(logits);
        double entropy = -probabilities.Where(q => q > 0).Sum(q => q * Math.Log(q));
        IEnumerable<int> order = ByLogit(logits).OrderBy(id => Math.Abs(-Math.Log(probabilities[id]) - entropy));
        return Reach(probabilities, order, p);
    }

    private static IOrderedEnumerable<int> ByLogit(double[] logits) =>
        Enumerable.Range(0, logits.Length).OrderByDescending(id => logits[id]).ThenBy(id => id);

    private static (HashSet<int> Kept, double Margin) Reach(double[] probabilities, IEnumerable<int> order, double p)
    {
        HashSet<int> kept = [];
        double sum = 0, margin = double.PositiveInfinity;
        foreach (int id in order)
        {
            margin = Math.Min(margin, Math.Abs(sum - p));
            if (sum >= p)
            {
                break;
            }
            kept.Add(id);
            sum += probabilities[id];
        }
        return (kept, Math.Min(margin, Math.Abs(sum - p)));
    }
}
