namespace Engine.Plans.Readers;

/// <summary>
/// Phi-3.5-MoE (Abdin et al. 2024): layer norms with biases, biases in attention and head, and a router whose two experts and weights SparseMixer-2 chooses
/// (Liu et al. 2023): each weight is a softmax over the logits near the largest, and they need not sum to one.
/// </summary>
internal static class PhiMoe
{
    private const int Chosen = 2;

    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "phimoe",
        Norms = NormKind.Layer,
        SlidingWindows = SlidingWindows.All,
        Experts = new ExpertsTraits
        {
            CountKey = "num_local_experts",
            Module = "block_sparse_moe",
            Names = FeedForwardNames.Numbered,
            WidthKey = "intermediate_size",
            Router = Router,
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["phimoe"],
        Architectures = ["PhiMoEForCausalLM", "PhimoeForCausalLM", "PhimoeModel"],
        Models = "Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE",
        Supports = "as mixtral, with layer norms, biases and SparseMixer-2; longrope, its long factors where a longer context is asked for",
    };

    // The noise's name is from training: at inference it is the width of what counts as near.
    private static RouterPlan Router(RouterSource source, RouterPlan router) => router.PerToken == Chosen
        ? router with { Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = (float)source.Config.Positive("router_jitter_noise", 0.01) }
        : throw source.Config.Error(ExpertsTraits.PerTokenKey, $"this router chooses {Chosen} experts; found {router.PerToken}");
}
