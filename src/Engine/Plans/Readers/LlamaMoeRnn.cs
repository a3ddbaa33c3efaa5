namespace Engine.Plans.Readers;

/// <summary>
/// RMoE (Qiu et al. 2024, "Layerwise Recurrent Router for Mixture-of-Experts"): llama whose last layers are mixtures of experts with routers that hand a state from
/// layer to layer, and beside the mixture perhaps a feed-forward for every token; both then count constants.
/// </summary>
internal static class LlamaMoeRnn
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "llama_moe_rnn",
        Experts = new ExpertsTraits
        {
            CountKey = "num_local_experts",
            Module = "block_sparse_moe",
            Names = FeedForwardNames.Numbered,
            WidthKey = "moe_expert_intermediate_size",
            OtherWidthKey = "intermediate_size",
            Layers = Layers,
            Cell = Cell,
            OutputBias = static config => config.Flag("add_moe_bias", false),
            Router = static (source, router) => router with
            {
                Normalize = true,
                Scale = HasShared(source.Config) ? Factor(source.Config, "moe_weight") : 1,
            },
            Shared = static config => HasShared(config) ? Shared(config) : null,
        },
    };

    public static ModelFamily Family { get; } = new(static checkpoint => GatedDecoder.Read(checkpoint, Traits))
    {
        Name = Traits.Family,
        ModelTypes = ["llama_moe_rnn"],
        Architectures = ["LlamaForCausalLM", "LlamaModel"],
        Models = "RMoE (no weights are published)",
        Supports = "as llama; mixtures of experts in the last moe_num_layers layers, recurrent routers (gru, rnn) or plain ones, shared expert, bias",
    };

    /// <summary>The last <c>moe_num_layers</c> layers are mixtures.</summary>
    private static bool[] Layers(ConfigReader config, int layers)
    {
        int mixtures = config.Count("moe_num_layers");
        return mixtures <= layers
            ? [.. Enumerable.Range(0, layers).Select(layer => layer >= layers - mixtures)]
            : throw config.Error("moe_num_layers", $"expected at most the {layers} layers; found {mixtures}");
    }

    /// <summary>Every type but two is a plain router in the authors' code; which tensors there are tells whether it was meant.</summary>
    private static RecurrentCell? Cell(ConfigReader config) => config.Text("moe_router_type", config.Mentions("moe_router_type") ? null : "gru") switch
    {
        "gru" => RecurrentCell.Gru,
        "rnn" => RecurrentCell.Rnn,
        _ => null,
    };

    private static bool HasShared(ConfigReader config) => config.Flag("add_moe_share_expert", false);

    private static SharedExpertTraits Shared(ConfigReader config) => new(
        "mlp_share", null, () => config.Count(config.Alias("moe_share_expert_intermediate_size", "intermediate_size")))
    {
        IsBesideMixture = true,
        Weight = Factor(config, "share_weight"),
    };

    private static float Factor(ConfigReader config, string key)
    {
        float factor = (float)config.Number(key, 0.5);
        return float.IsFinite(factor) ? factor : throw config.Error(key, $"expected a number that float32 holds; found {ConfigReader.Show(config.Node(key))}");
    }
}
