namespace Engine.Plans.Readers;

/// <summary>Qwen 2 and 2.5 (Yang et al. 2024): llama with biases on q, k and v.</summary>
internal static class Qwen2
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "qwen2",
        MayLackSublayers = true,
        QkvBias = true,
        SlidingWindows = SlidingWindows.AboveMaxWindowLayers,
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["qwen2"],
        Architectures = ["Qwen2ForCausalLM", "Qwen2Model"],
        Models = "Qwen 1.5–2.5 dense, DeepSeek-R1-Distill-Qwen",
        Supports = "as llama; q, k and v biases; sliding window from max_window_layers on or in the layers that layer_types names",
    };
}
