namespace Engine.Plans.Readers;

/// <summary>Mixtral (Jiang et al. 2024): mistral with a mixture of experts in every layer, whose weights always sum to one.</summary>
internal static class Mixtral
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "mixtral",
        SlidingWindows = SlidingWindows.All,
        Experts = new ExpertsTraits
        {
            CountKey = "num_local_experts",
            Module = "block_sparse_moe",
            Names = FeedForwardNames.Numbered,
            WidthKey = "intermediate_size",
            Router = static (_, router) => router with { Normalize = true },
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["mixtral"],
        Architectures = ["MixtralForCausalLM", "MixtralModel"],
        Models = "Mixtral 8x7B and 8x22B, TinyMixtral, optimal-sparsity checkpoints",
        Supports = "as mistral; mixtures of experts, one tensor per expert or fused, of any width and number per layer, merged, dropped or compressed (MC-SMoE)",
    };
}
