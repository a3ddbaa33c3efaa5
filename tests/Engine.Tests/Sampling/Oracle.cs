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
    /// A margin below this is rounding: one token more or less, or another one, is right too. Sums of thousands of float32 weights and
    /// distances in float32 are good to a few 10⁻⁷.
    /// </summary>
    public const double Rounding = 1e-5;

    /// <summary>The nucleus, and how far the sums at its boundary are from p.</summary>
    public static (HashSet<int> Kept, double Margin) TopP(double[] logits, double p) => Reach(Softmax(logits), ByLogit(logits), p);

    /// <summary>What is at least p times as likely as the likeliest, and how near a logit is to that boundary.</summary>
    public static (HashSet<int> Kept, double Margin) MinP(double[] logits, double p)
    {
        double bar = logits.Max() + Math.Log(p);
        return ([.. ByLogit(logits).Where(id => logits[id] >= bar)], logits.Min(logit => Math.Abs(logit - bar)));
    }

    /// <summary>
    /// The typical set; its margin is also how near the first token outside is to the last one inside, whose order rounding may exchange.
    /// </summary>
    public static (HashSet<int> Kept, double Margin) Typical(double[] logits, double p)
    {
        double[] probabilities = Softmax(logits);
        double entropy = -probabilities.Where(q => q > 0).Sum(q => q * Math.Log(q));
        int[] order = [.. ByLogit(logits).OrderBy(Distance)];
        (HashSet<int> kept, double margin) = Reach(probabilities, order, p);
        double gap = kept.Count < order.Length ? Distance(order[kept.Count]) - Distance(order[kept.Count - 1]) : double.PositiveInfinity;
        return (kept, Math.Min(margin, gap));

        double Distance(int id) => Math.Abs(-Math.Log(probabilities[id]) - entropy);
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
