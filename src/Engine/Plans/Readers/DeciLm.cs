namespace Engine.Plans.Readers;

/// <summary>
/// Models whose layers a search made different (Bercovich et al. 2024, Puzzle): llama with heads and widths of its own in each layer, without some sublayers, or with a
/// matrix in place of one. <c>block_configs</c> has become numbers per layer when a folder was opened, as GGUF's architecture <c>deci</c> has them.
/// </summary>
internal static class DeciLm
{
    private static readonly GatedDecoderTraits Traits = new() { Family = "deci", MayLackSublayers = true };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["nemotron-nas", "deci"],
        Architectures = ["DeciLMForCausalLM"],
        Models = "Llama-3.1-Nemotron-51B, Llama-3.3-Nemotron-Super-49B, DeciLM-7B; llamas pruned layer by layer, in GGUF",
        Supports = "as llama; attention or feed-forward left out or replaced by a matrix",
    };
}
