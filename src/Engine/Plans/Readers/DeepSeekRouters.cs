namespace Engine.Plans.Readers;

/// <summary>What a version of DeepSeek's code does where its configuration does not say.</summary>
/// <param name="Method">Default of <c>topk_method</c>.</param>
/// <param name="Normalizes">Default of <c>norm_topk_prob</c>.</param>
/// <param name="Scale">Default of <c>routed_scaling_factor</c>.</param>
internal sealed record DeepSeekRouterDefaults(string Method, bool Normalizes, double Scale)
{
    /// <summary>DeepSeek-MoE (Dai et al. 2024), which has no other method and no scale.</summary>
    public static DeepSeekRouterDefaults V1 { get; } = new(DeepSeekRouters.Greedy, false, 1);

    /// <summary>DeepSeek-V2 (DeepSeek-AI 2024), <c>configuration_deepseek.py</c>.</summary>
    public static DeepSeekRouterDefaults V2 { get; } = new(DeepSeekRouters.Greedy, false, 1);

    /// <summary>DeepSeek-V3 (DeepSeek-AI 2024), <c>configuration_deepseek.py</c>.</summary>
    public static DeepSeekRouterDefaults V3 { get; } = new(DeepSeekRouters.LossFree, true, 2.5);
}

/// <summary>Reads the routers of the DeepSeek families, as the code beside the published weights computes them (<c>MoEGate</c>).</summary>
internal static class DeepSeekRouters
{
    /// <summary>The experts with the largest softmax.</summary>
    public const string Greedy = "greedy";

    /// <summary>As <see cref="Greedy"/>, of the groups with the best experts.</summary>
    public const string GroupLimited = "group_limited_greedy";

    /// <summary>By sigmoid plus a bias that weights do not see, of the groups whose two best experts have the largest sum.</summary>
    public const string LossFree = "noaux_tc";

    private const float Epsilon = 1e-20f;

    /// <summary>
    /// Completes a router by <c>topk_method</c>. Softmax methods either normalise or scale, never both, which transformers' own port of V2 does not follow; the
    /// sigmoid method does both. With one expert per token in the configuration nothing is normalised; another number at run time leaves normalised what was, so
    /// that weights sum to what they did in training.
    /// </summary>
    /// <exception cref="EngineException">Groups do not fit the experts, or the method is not known.</exception>
    public static RouterPlan Read(RouterSource source, RouterPlan router, DeepSeekRouterDefaults defaults)
    {
        ConfigReader config = source.Config;
        string method = config.Text("topk_method", defaults.Method)!;
        bool isLossFree = method == LossFree;
        string scoring = isLossFree ? "sigmoid" : "softmax", found = config.Text("scoring_func", scoring)!;
        if (found != scoring)
        {
            throw config.Error("scoring_func", $"expected {scoring} with the method {method}; found '{found}'");
        }
        bool normalizes = config.Flag("norm_topk_prob", defaults.Normalizes) && router.PerToken > 1;
        float scale = (float)config.Positive("routed_scaling_factor", defaults.Scale);
        router = router with
        {
            Normalize = normalizes,
            NormalizationEpsilon = normalizes ? Epsilon : 0,
            Scale = normalizes && !isLossFree ? 1 : scale,
        };
        return method switch
        {
            Greedy => router,
            GroupLimited => Grouped(config, router, GroupScore.Largest),
            LossFree => Grouped(config, router, GroupScore.SumOfTwoLargest) with
            {
                Score = ExpertScore.Sigmoid,
                SelectionBias = [.. source.Tensors.Values($"{source.Name}.e_score_correction_bias", router.Experts, anyFloat: true)],
            },
            _ => throw config.Error("topk_method", $"expected {Greedy}, {GroupLimited} or {LossFree}; found '{method}'"),
        };
    }

    private static RouterPlan Grouped(ConfigReader config, RouterPlan router, GroupScore score)
    {
        int groups = config.CountOrNull("n_group") ?? 1, used = config.CountOrNull("topk_group") ?? groups;
        if (groups == 1)
        {
            return router;
        }
        int size = router.Experts / groups, least = score == GroupScore.SumOfTwoLargest ? 2 : 1;
        if (router.Experts % groups != 0 || size < least)
        {
            throw config.Error(
                "n_group", $"expected a divisor of the {router.Experts} experts that leaves {least} or more in a group; found {groups}");
        }
        if (used > groups || router.PerToken > (long)used * size)
        {
            throw config.Error(
                "topk_group", $"expected at most the {groups} groups, with the {router.PerToken} experts of a token or more in them; found {used} of {size}");
        }
        return router with { Groups = groups, GroupsUsed = used, GroupScore = score };
    }
}
