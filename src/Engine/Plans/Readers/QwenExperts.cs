namespace Engine.Plans.Readers;

/// <summary>What the mixtures of experts of Qwen 2 and 3 have in common.</summary>
internal static class QwenExperts
{
    /// <summary>Mixtures of experts in some layers.</summary>
    public static ExpertsTraits Traits { get; } = new()
    {
        Layers = Layers,
        Router = static (source, router) => router with { Normalize = source.Config.Flag("norm_topk_prob", false) },
    };

    /// <summary>Every <c>decoder_sparse_step</c>-th layer but those of <c>mlp_only_layers</c> (transformers, modeling_qwen2_moe.py).</summary>
    private static bool[] Layers(ConfigReader config, int layers)
    {
        int step = config.CountOrNull("decoder_sparse_step") ?? 1;
        int[] dense = config.WholeNumbers("mlp_only_layers") ?? [];
        return [.. Enumerable.Range(0, layers).Select(layer => !dense.Contains(layer) && (layer + 1) % step == 0)];
    }
}
