namespace Engine.Plans.Readers;

/// <summary>Qwen 3 with mixtures of experts (Yang et al. 2025): qwen3, and no shared expert.</summary>
internal static class Qwen3Moe
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "qwen3_moe",
        HeadNorms = true,
        SlidingWindows = SlidingWindows.AboveMaxWindowLayers,
        Experts = QwenExperts.Traits,
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["qwen3_moe"],
        Architectures = ["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
        Models = "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder, REAP-pruned Qwen3-Coder",
        Supports = "as qwen3; mixtures of experts in the layers that decoder_sparse_step and mlp_only_layers say",
    };
}
