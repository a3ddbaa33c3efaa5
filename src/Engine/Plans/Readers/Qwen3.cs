namespace Engine.Plans.Readers;

/// <summary>
/// Qwen 3 dense (Yang et al. 2025): no biases, an RMS norm over each query and key head, and heads of a size of their own.
/// </summary>
internal static class Qwen3
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "qwen3",
        MayLackSublayers = true,
        HeadNorms = true,
        SlidingWindows = SlidingWindows.AboveMaxWindowLayers,
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["qwen3"],
        Architectures = ["Qwen3ForCausalLM", "Qwen3Model"],
        Models = "Qwen 3 0.6B–32B dense",
        Supports = "as qwen2 without its biases; query and key head norms, head_dim unlike hidden_size / heads",
    };
}
