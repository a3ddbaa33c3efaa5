namespace Engine.Plans.Readers;

/// <summary>Llama 1 to 3 (Touvron et al. 2023, Grattafiori et al. 2024) and everything published under its architecture.</summary>
internal static class Llama
{
    private static readonly GatedDecoderTraits Traits = new() { Family = "llama", MayLackSublayers = true };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["llama"],
        Architectures = ["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"],
        Models = "Llama 1–3, llama2.c, SmolLM 1–2, TinyLlama, MiniMind2, Yi",
        Supports = "grouped-query attention, biases, tied head; rope scaling linear, dynamic (within the trained context), llama3, yarn",
    };
}
