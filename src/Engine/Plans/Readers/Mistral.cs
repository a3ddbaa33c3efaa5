namespace Engine.Plans.Readers;

/// <summary>Mistral (Jiang et al. 2023): llama with a sliding window over the keys.</summary>
internal static class Mistral
{
    private static readonly GatedDecoderTraits Traits = new() { Family = "mistral", MayLackSublayers = true, SlidingWindows = Windows };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["mistral"],
        Architectures = ["MistralForCausalLM", "MistralModel"],
        Models = "Mistral 7B v0.1–v0.3, Mistral Nemo, Zephyr",
        Supports = "as llama; sliding window in all layers or in those that layer_types names",
    };

    private static int?[] Windows(ConfigReader config, int layers)
    {
        // Hugging Face's default where the key is left out; an explicit null means no window (v0.2 and later).
        int? window = config.Mentions("sliding_window") ? config.CountOrNull("sliding_window") : 4096;
        return SlidingWindows.LayerTypes(config, layers, window) ?? SlidingWindows.From(0, window, layers);
    }
}
