namespace Engine.Plans.Readers;

/// <summary>
/// OLMoE (Muennighoff et al. 2024): a mixture of experts in every layer; q and k are normalised as whole vectors, before they are split into heads.
/// </summary>
internal static class Olmoe
{
    private const string ClipKey = "clip_qkv";

    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "olmoe",
        HeadNorms = true,
        NormsWholeProjection = true,
        ClipQkv = static config => config.Has(ClipKey) ? (float)config.Positive(ClipKey) : null,
        Obeys = [ClipKey],
        Experts = new ExpertsTraits
        {
            WidthKey = "intermediate_size",
            Router = static (source, router) => router with { Normalize = source.Config.Flag("norm_topk_prob", false) },
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["olmoe"],
        Architectures = ["OlmoeForCausalLM", "OlmoeModel"],
        Models = "OLMoE-1B-7B",
        Supports = "as llama; mixtures of experts, query and key norms over all heads, clamped projections",
    };
}
