using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// How router outputs become decisions (Bae et al. 2025, section 2.2.1 and appendix A.2): pure functions, in float32 from z on, where a comparison with zero
/// cannot be moved by rounding.
/// </summary>
public static class DepthRouting
{
    /// <summary>The weight w of one router output z; for softmax see <see cref="ChooseDepth"/>.</summary>
    public static float Weight(DepthRouterPlan plan, float z) => plan.Score switch
    {
        RouterScore.None => z,
        RouterScore.Sigmoid => plan.Alpha * RouterMath.Sigmoid(z),
        RouterScore.Tanh => plan.Alpha * (float)Math.Tanh(z),
        _ => throw new EngineException($"{plan.Score} is no score of a single router output"),
    };

    /// <summary>
    /// Expert choice, causal: whether a token that reached a depth goes through it. Where the depth takes everything it does; else where its score (without
    /// alpha), or the auxiliary router's, is at least one half; zero for tanh.
    /// </summary>
    /// <param name="plan">The router.</param>
    /// <param name="depth">The depth.</param>
    /// <param name="z">What its router said.</param>
    /// <param name="auxiliary">What its auxiliary router said; ignored where there is none.</param>
    public static bool Enters(DepthRouterPlan plan, int depth, float z, float auxiliary) =>
        plan.Capacities[depth] >= 1
        || (plan.Auxiliary.Length > 0 ? auxiliary >= 0 : plan.Score == RouterScore.None ? z >= 0.5f : z >= 0);

    /// <summary>
    /// Expert choice, as in training: marks the <c>max(1, ⌊capacity · all⌋)</c> largest weights; of equal ones the earlier.
    /// </summary>
    /// <param name="capacity">The part of all tokens that the depth takes.</param>
    /// <param name="all">Tokens that entered together, those that have left included.</param>
    /// <param name="weights">Weights of the tokens that reached the depth, in position order.</param>
    /// <param name="enters">Set for each.</param>
    public static void Best(double capacity, int all, ReadOnlySpan<float> weights, Span<bool> enters)
    {
        int count = Math.Min(weights.Length, Math.Max(1, (int)(capacity * all)));
        for (int i = 0; i < weights.Length; i++)
        {
            int better = 0;
            for (int j = 0; j < weights.Length; j++)
            {
                better += weights[j] > weights[i] || (weights[j] == weights[i] && j < i) ? 1 : 0;
            }
            enters[i] = better < count;
        }
    }

    /// <summary>
    /// Token choice: the depth (from 0) with the largest weight, of equal ones the first, and that weight. The balancing bias takes part in the choice only.
    /// </summary>
    /// <param name="plan">The router.</param>
    /// <param name="z">Router outputs [depths]; replaced by the weights.</param>
    public static (int Depth, float Weight) ChooseDepth(DepthRouterPlan plan, Span<float> z)
    {
        if (plan.Score == RouterScore.Softmax)
        {
            RouterSoftmax softmax = RouterSoftmax.Over(z);
            foreach (ref float value in z)
            {
                value = plan.Alpha * softmax.Of(value);
            }
        }
        else
        {
            foreach (ref float value in z)
            {
                value = Weight(plan, value);
            }
        }
        int best = 0;
        for (int i = 1; i < z.Length; i++)
        {
            best = Biased(plan, z, i) > Biased(plan, z, best) ? i : best;
        }
        return (best, z[best]);
    }

    private static float Biased(DepthRouterPlan plan, ReadOnlySpan<float> weights, int depth) =>
        weights[depth] + (plan.SelectionBias.IsEmpty ? 0 : plan.SelectionBias[depth]);
}
