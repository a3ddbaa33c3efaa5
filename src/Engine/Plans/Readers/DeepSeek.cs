namespace Engine.Plans.Readers;

/// <summary>
/// DeepSeek-MoE, the first version (Dai et al. 2024): llama with fine-grained experts in all but the first layers, and shared experts that count in full.
/// </summary>
internal static class DeepSeek
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "deepseek",
        Experts = new ExpertsTraits
        {
            CountKey = "n_routed_experts",
            Layers = Layers,
            Router = static (source, router) => DeepSeekRouters.Read(source, router, DeepSeekRouterDefaults.V1),
            Shared = Shared,
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["deepseek"],
        Architectures = ["DeepseekForCausalLM", "DeepseekModel"],
        Models = "DeepSeek-MoE 16B",
        Supports = "as llama; mixtures of experts behind first_k_dense_replace dense layers, shared experts",
    };

    /// <summary>Which layers are mixtures (<c>modeling_deepseek.py</c>, <c>DeepseekDecoderLayer</c>).</summary>
    internal static bool[] Layers(ConfigReader config, int layers)
    {
        int dense = config.Whole("first_k_dense_replace", 0), step = config.CountOrNull("moe_layer_freq") ?? 1;
        return [.. Enumerable.Range(0, layers).Select(layer => layer >= dense && layer % step == 0)];
    }

    /// <summary>The shared experts, which are stored as one of their common width.</summary>
    internal static SharedExpertTraits? Shared(ConfigReader config)
    {
        int experts = config.Whole("n_shared_experts", 0);
        return experts == 0 ? null : new SharedExpertTraits("shared_experts", null, () =>
        {
            long width = (long)experts * config.Count("moe_intermediate_size");
            return width <= ConfigReader.LargestCount
                ? (int)width
                : throw config.Error("n_shared_experts", $"shared experts of {width} elements are more than this engine can address");
        });
    }
}
