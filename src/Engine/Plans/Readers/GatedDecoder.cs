using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>In what the families of <see cref="GatedDecoder"/> differ.</summary>
internal sealed record GatedDecoderTraits
{
    /// <summary>The family's name.</summary>
    public required string Family { get; init; }

    /// <summary>q, k and v have biases by definition, whatever <c>attention_bias</c> says (Qwen2).</summary>
    public bool QkvBias { get; init; }

    /// <summary>Each query and key head is normalised before rotation (Qwen3).</summary>
    public bool HeadNorms { get; init; }

    /// <summary>The sliding window of each layer; given the configuration and the number of layers.</summary>
    public Func<ConfigReader, int, int?[]> SlidingWindows { get; init; } = Readers.SlidingWindows.None;
}

/// <summary>
/// The decoder that most open models share: RMS norm before each sublayer, rotary grouped-query attention, and a gated feed-forward
/// (Touvron et al. 2023), under Hugging Face's names <c>model.layers.N.self_attn.q_proj</c> and so on.
/// </summary>
internal static class GatedDecoder
{
    /// <summary>Makes the plan of a checkpoint.</summary>
    public static ModelPlan Read(Checkpoint checkpoint, GatedDecoderTraits traits)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        NeutralFields.Require(config);
        var tensors = new TensorCatalog(checkpoint);
        string prefix = tensors.Prefix("model.");
        string tokenTable = $"{prefix}embed_tokens.weight";

        int hidden = config.Count("hidden_size");
        int layers = LayerCount.Read(config, "num_hidden_layers", checkpoint);
        float epsilon = (float)config.Positive("rms_norm_eps", 1e-6);
        int vocabulary = Vocabulary.Size(config, tensors, tokenTable);
        var rope = new RopeReader(config, tensors);
        Activation activation = ReadActivation(config);
        AttentionGeometry[] geometry = AttentionGeometry.Read(
            config, tensors, hidden, layers, layer => $"{prefix}layers.{layer}.self_attn");
        int[] widths = config.CountPerLayer("intermediate_size", layers) ?? throw config.Error("intermediate_size", "the key is missing");
        int?[] windows = traits.SlidingWindows(config, layers);
        // Qwen2's biases are no choice, and its configurations have no key for them.
        bool qkvBias = traits.QkvBias || BiasRule(config, tensors, "attention_bias", $"{prefix}layers.", ".self_attn.", "_proj.bias");
        bool feedForwardBias = BiasRule(config, tensors, "mlp_bias", $"{prefix}layers.", ".mlp.", "_proj.bias");

        var blocks = ImmutableArray.CreateBuilder<BlockPlan>(layers);
        var steps = ImmutableArray.CreateBuilder<LayerStep>(layers);
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>(layers);
        for (int layer = 0; layer < layers; layer++)
        {
            string name = $"{prefix}layers.{layer}";
            blocks.Add(new BlockPlan(Attention(name, geometry[layer], windows[layer]), FeedForward(name, widths[layer])));
            steps.Add(new LayerStep(layer, layer, Norm($"{name}.input_layernorm", hidden),
                Norm($"{name}.post_attention_layernorm", hidden)));
            slots.Add(new KvSlotPlan(geometry[layer].KvHeads, geometry[layer].HeadDim));
        }
        var plan = new ModelPlan
        {
            Family = traits.Family,
            VocabularySize = vocabulary,
            HiddenSize = hidden,
            ContextLength = rope.ContextLength,
            Embedding = new EmbeddingPlan(tensors.Table(tokenTable, vocabulary, hidden)),
            Layers = new LayerMap(blocks.MoveToImmutable(), steps.MoveToImmutable(), slots.MoveToImmutable()),
            FinalNorm = Norm($"{prefix}norm", hidden),
            Head = Vocabulary.Head(config, tensors, tokenTable, vocabulary, hidden),
        };
        // Old files store the rotation's frequencies, which follow from the configuration.
        tensors.Complete(traits.Family, static name => name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal));
        return plan;

        AttentionPlan Attention(string layerName, AttentionGeometry heads, int? window)
        {
            string name = $"{layerName}.self_attn";
            return new AttentionPlan
            {
                Heads = heads.Heads,
                KvHeads = heads.KvHeads,
                HeadDim = heads.HeadDim,
                Scale = (float)(1 / Math.Sqrt(heads.HeadDim)),
                Qkv = new LinearPlan(hidden,
                [
                    tensors.Part($"{name}.q_proj", heads.QueryWidth, hidden, qkvBias),
                    tensors.Part($"{name}.k_proj", heads.KeyWidth, hidden, qkvBias),
                    tensors.Part($"{name}.v_proj", heads.KeyWidth, hidden, qkvBias),
                ]),
                Output = new LinearPlan(heads.QueryWidth, [tensors.Part($"{name}.o_proj", hidden, heads.QueryWidth)]),
                QueryNorm = traits.HeadNorms ? Norm($"{name}.q_norm", heads.HeadDim) : null,
                KeyNorm = traits.HeadNorms ? Norm($"{name}.k_norm", heads.HeadDim) : null,
                Rope = rope.ForHeadDim(heads.HeadDim),
                SlidingWindow = window < rope.ContextLength ? window : null,
            };
        }

        FeedForwardPlan FeedForward(string layerName, int width) => new(activation, width,
            new LinearPlan(hidden,
            [
                tensors.Part($"{layerName}.mlp.gate_proj", width, hidden, feedForwardBias),
                tensors.Part($"{layerName}.mlp.up_proj", width, hidden, feedForwardBias),
            ]),
            new LinearPlan(width, [tensors.Part($"{layerName}.mlp.down_proj", hidden, width, feedForwardBias)]));

        NormPlan Norm(string name, int width) => new(NormKind.Rms, epsilon, tensors.Vector($"{name}.weight", width));
    }

    private static Activation ReadActivation(ConfigReader config) => config.Text("hidden_act", "silu") switch
    {
        "silu" or "swish" => Activation.SwiGlu,
        "gelu_pytorch_tanh" or "gelu_new" => Activation.GeGluTanh,
        { } other => throw config.Error("hidden_act", $"expected silu, gelu_new or gelu_pytorch_tanh; found '{other}'"),
        null => Activation.SwiGlu,
    };

    /// <summary>
    /// True where biases must exist. Where the key says false, they must not; where it is absent, they are taken where they exist.
    /// </summary>
    private static bool BiasRule(ConfigReader config, TensorCatalog tensors, string key, string start, string middle, string end)
    {
        bool? rule = config.FlagOrNull(key);
        if (rule != false)
        {
            return rule == true;
        }
        string? bias = tensors.Checkpoint.TensorNames.FirstOrDefault(name =>
            name.StartsWith(start, StringComparison.Ordinal) && name.Contains(middle, StringComparison.Ordinal)
            && name.EndsWith(end, StringComparison.Ordinal));
        return bias is null
            ? false
            : throw config.Error(key, $"the configuration says that there are no biases, but the tensor {bias} exists");
    }
}
