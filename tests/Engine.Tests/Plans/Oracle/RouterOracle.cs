using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// The routers of the modeling files, in doubles: from logits to experts and weights. DeepSeek's do not normalise the weight of a single expert where the
/// configuration has one; a number at run time leaves normalised what was, so that weights sum to what they did in training.
/// </summary>
/// <param name="config">The model's config.json.</param>
/// <param name="expertsPerToken">Experts that a token is sent to, instead of the configuration's.</param>
internal sealed class RouterOracle(JsonObject config, int? expertsPerToken)
{
    /// <summary>How near the closest choice was to falling otherwise, in logits, or in biased scores where those decide.</summary>
    public double Margin { get; private set; } = double.PositiveInfinity;

    /// <summary>The experts of a token, and what each counts.</summary>
    /// <param name="z">Logits, one per expert.</param>
    /// <param name="bias">e_score_correction_bias, or null.</param>
    public (int Expert, double Weight)[] Choose(double[] z, float[]? bias)
    {
        int k = Math.Min(expertsPerToken ?? (int)config["num_experts_per_tok"]!, z.Length);
        switch ((string)config["model_type"]!)
        {
            case "mixtral" or "llama_moe_rnn":
                return Normalized(Softmax(z), Largest(z, All(z), k), 0, true);
            case "qwen2_moe" or "qwen3_moe" or "olmoe":
                return Normalized(Softmax(z), Largest(z, All(z), k), 0, Norm);
            case "deepseek":
                return Normalized(Softmax(z), Largest(z, All(z), k), 1e-20, NormOfSeveral);
            case "deepseek_v2":
                // A softmax keeps the order of its logits, and of the largest of groups of them.
                bool limited = (string?)config["topk_method"] == "group_limited_greedy";
                int[] candidates = limited ? Groups(z, static group => group.Max()) : All(z);
                (int, double)[] v2 = Normalized(Softmax(z), Largest(z, candidates, k), 1e-20, NormOfSeveral);
                return NormOfSeveral ? v2 : Scaled(v2);
            case "deepseek_v3":
                double[] scores = [.. z.Select(Sigmoid)];
                double[] biased = [.. scores.Select((s, e) => s + bias![e])];
                int[] kept = Groups(biased, static group => group.OrderDescending().Take(2).Sum());
                return Scaled(Normalized(scores, Largest(biased, kept, k), 1e-20, NormOfSeveral));
            case "phimoe":
                return SparseMixer(z, config["router_jitter_noise"]!.GetValue<double>());
            case "gpt_oss":
                int[] chosen = Largest(z, All(z), k);
                double[] weights = Softmax([.. chosen.Select(e => z[e])]);
                return [.. chosen.Zip(weights)];
            default:
                throw new NotSupportedException();
        }
    }

    public static double Sigmoid(double z) => 1 / (1 + Math.Exp(-z));

    private bool Norm => config["norm_topk_prob"]?.GetValue<bool>() == true;

    private bool NormOfSeveral => Norm && (int)config["num_experts_per_tok"]! > 1;

    private static int[] All(double[] z) => [.. Enumerable.Range(0, z.Length)];

    private static (int Expert, double Weight)[] Normalized(double[] scores, int[] chosen, double epsilon, bool normalize)
    {
        double sum = normalize ? chosen.Sum(e => scores[e]) + epsilon : 1;
        return [.. chosen.Select(e => (e, scores[e] / sum))];
    }

    private (int Expert, double Weight)[] Scaled((int Expert, double Weight)[] chosen)
    {
        double factor = config["routed_scaling_factor"]!.GetValue<double>();
        return [.. chosen.Select(choice => (choice.Expert, choice.Weight * factor))];
    }

    /// <summary>The k candidates with the largest keys.</summary>
    private int[] Largest(double[] keys, int[] candidates, int k)
    {
        int[] order = [.. candidates.OrderByDescending(i => keys[i]).ThenBy(static i => i)];
        if (k < order.Length)
        {
            Margin = Math.Min(Margin, keys[order[k - 1]] - keys[order[k]]);
        }
        return [.. order.Take(k)];
    }

    /// <summary>The experts of the topk_group best groups of neighbours.</summary>
    private int[] Groups(double[] keys, Func<double[], double> score)
    {
        int groups = config["n_group"]?.GetValue<int>() ?? 1;
        int size = keys.Length / groups;
        double[] scores = [.. keys.Chunk(size).Select(score)];
        int[] best = Largest(scores, All(scores), config["topk_group"]?.GetValue<int>() ?? 1);
        return [.. best.SelectMany(group => Enumerable.Range(group * size, size))];
    }

    /// <summary>sparsemixer of modeling_phimoe, as it runs outside of training.</summary>
    private (int Expert, double Weight)[] SparseMixer(double[] z, double epsilon)
    {
        int first = Largest(z, All(z), 1)[0];
        double firstWeight = Softmax(Kept(z, z[first]))[first];
        double[] rest = [.. z];
        rest[first] = double.NegativeInfinity;
        int second = Largest(rest, All(z), 1)[0];
        double secondWeight = Softmax(Kept(rest, z[second]))[second];
        return [(first, firstWeight), (second, secondWeight)];

        // Thresholds are taken from z even where values are masked.
        double[] Kept(double[] values, double largest) => [.. values.Select((value, e) =>
        {
            if (double.IsNegativeInfinity(z[e]))
            {
                return value; // dropped
            }
            double distance = (largest - z[e]) / Math.Max(Math.Abs(z[e]), largest);
            // A hundredth of other margins: weights depend on these comparisons by the dozen.
            Margin = Math.Min(Margin, 100 * Math.Abs(distance - 2 * epsilon));
            return distance > 2 * epsilon ? double.NegativeInfinity : value;
        })];
    }
}
