namespace Engine.Plans.Readers;

/// <summary>Qwen 1.5 and 2 with mixtures of experts (Yang et al. 2024): qwen2, and an expert for every token that a gate of its own weighs.</summary>
internal static class Qwen2Moe
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "qwen2_moe",
        QkvBias = true,
        SlidingWindows = SlidingWindows.AboveMaxWindowLayers,
        Experts = QwenExperts.Traits with
        {
            Shared = static config => new SharedExpertTraits(
                "shared_expert", "shared_expert_gate", () => config.Count("shared_expert_intermediate_size")),
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["qwen2_moe"],
        Architectures = ["Qwen2MoeForCausalLM", "Qwen2MoeModel"],
        Models = "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
        Supports = "as qwen2; mixtures of experts in the layers that decoder_sparse_step and mlp_only_layers say, gated shared expert",
    };
}
