using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// DeepSeek-V2 and -V3 (DeepSeek-AI 2024): DeepSeek-MoE's fine-grained experts with limited groups, and latent attention. They differ in the router and its
/// defaults.
/// </summary>
internal static class DeepSeekLatent
{
    private static readonly ImmutableArray<string> routerKeys = ["n_group", "topk_group", "routed_scaling_factor"];

    private static readonly GatedDecoderTraits v2Traits = Traits("deepseek_v2", DeepSeekRouterDefaults.V2);

    private static readonly GatedDecoderTraits v3Traits = Traits("deepseek_v3", DeepSeekRouterDefaults.V3) with { Ignores = IsBehindLastLayer };

    public static ModelFamily V2 { get; } = new(static checkpoint => Read(checkpoint, v2Traits))
    {
        Name = v2Traits.Family,
        ModelTypes = ["deepseek_v2"],
        Architectures = ["DeepseekV2ForCausalLM", "DeepseekV2Model"],
        Models = "DeepSeek-V2, DeepSeek-V2-Lite, DeepSeek-Coder-V2",
        Supports = "as deepseek; latent attention with a cache of the latent alone, groups of experts",
    };

    public static ModelFamily V3 { get; } = new(static checkpoint => Read(checkpoint, v3Traits))
    {
        Name = v3Traits.Family,
        ModelTypes = ["deepseek_v3"],
        Architectures = ["DeepseekV3ForCausalLM", "DeepseekV3Model"],
        Models = "DeepSeek-V3, DeepSeek-R1, Moonlight",
        Supports = "as deepseek_v2; sigmoid router with selection bias; layers for multi-token prediction are left out, FP8 weights are not read",
    };

    private static GatedDecoderTraits Traits(string family, DeepSeekRouterDefaults defaults) => new()
    {
        Family = family,
        LatentAttention = true,
        Pairing = static config => config.Flag("rope_interleave", true) ? RopePairing.Adjacent : RopePairing.Halves,
        Experts = new ExpertsTraits
        {
            CountKey = "n_routed_experts",
            Layers = DeepSeek.Layers,
            Router = (source, router) => DeepSeekRouters.Read(source, router, defaults),
            Shared = DeepSeek.Shared,
            Obeys = [.. ExpertsTraits.CountKeys, ExpertsTraits.PerTokenKey, .. routerKeys],
        },
    };

    private static ModelPlan Read(Checkpoint checkpoint, GatedDecoderTraits traits)
    {
        string? scale = checkpoint.TensorNames.FirstOrDefault(static name => name.EndsWith(".weight_scale_inv", StringComparison.Ordinal));
        if (scale is not null)
        {
            throw new EngineException(
                "weights in FP8 with a scale per block are not supported yet; convert the checkpoint to BF16 first", checkpoint.Path, scale);
        }
        return GatedDecoder.Read(checkpoint, traits);
    }

    private static bool IsBehindLastLayer(ConfigReader config, string name) => PredictionLayers.Contains(
        name, config.Count("num_hidden_layers"), config.Whole("num_nextn_predict_layers", PredictionLayers.UsualCount));
}
