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

    /// <summary>Queries and keys are normalised before rotation (Qwen3).</summary>
    public bool HeadNorms { get; init; }

    /// <summary>See <see cref="AttentionPlan.NormsWholeProjection"/>.</summary>
    public bool NormsWholeProjection { get; init; }

    /// <summary>See <see cref="AttentionPlan.ClipQkv"/>.</summary>
    public Func<ConfigReader, float?> ClipQkv { get; init; } = static _ => null;

    /// <summary>See <see cref="AttentionPlan.Sinks"/>; <c>self_attn.sinks</c> [heads].</summary>
    public bool Sinks { get; init; }

    /// <summary>Constants of <see cref="Activation.ClampedSwiGlu"/> where silu is clamped, else null.</summary>
    public Func<ConfigReader, SwiGluClamp?> Clamp { get; init; } = static _ => null;

    /// <summary>Layers may lack a sublayer, or have a matrix in its place: a count of 0 in an array of the configuration says so.</summary>
    public bool MayLackSublayers { get; init; }

    /// <summary>Attention is DeepSeek's (<see cref="LatentAttentionReader"/>).</summary>
    public bool LatentAttention { get; init; }

    /// <summary>Which elements the family rotates together.</summary>
    public Func<ConfigReader, RopePairing> Pairing { get; init; } = static _ => RopePairing.Halves;

    /// <summary>θ where the configuration has none.</summary>
    public double RopeTheta { get; init; } = 10000;

    /// <summary>Tensors, by name, that play no part in the forward pass.</summary>
    public Func<ConfigReader, string, bool> Ignores { get; init; } = static (_, _) => false;

    /// <summary>The norms before sublayers and head; layer norms have biases.</summary>
    public NormKind Norms { get; init; } = NormKind.Rms;

    /// <summary>Mixtures of experts in place of some feed-forwards, or null.</summary>
    public ExpertsTraits? Experts { get; init; }

    /// <summary>The sliding window of each layer; given the configuration and the number of layers.</summary>
    public Func<ConfigReader, int, int?[]> SlidingWindows { get; init; } = Readers.SlidingWindows.None;

    /// <summary>Keys of <see cref="NeutralFields"/> that the family reads itself.</summary>
    public ImmutableArray<string> Obeys { get; init; } = [];
}

/// <summary>
/// The decoder that most open models share: RMS norm before each sublayer, rotary grouped-query attention, and a gated feed-forward
/// (Touvron et al. 2023), under Hugging Face's names <c>model.layers.N.self_attn.q_proj</c> and so on. Families that arrange such layers in their own
/// way take <see cref="Layers"/> and <see cref="Complete"/> apart.
/// </summary>
internal sealed class GatedDecoder
{
    private readonly GatedDecoderTraits traits;
    private readonly float epsilon;
    private readonly RopeReader rope;
    private readonly FeedForwardReader feedForwards;

    /// <summary>Reads what is not particular to a layer.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="traits">The family.</param>
    /// <param name="owner">See <see cref="TensorCatalog.Owner"/>.</param>
    public GatedDecoder(Checkpoint checkpoint, GatedDecoderTraits traits, Func<string, string?>? owner = null)
    {
        this.traits = traits;
        Config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        NeutralFields.Require(Config, [.. traits.Obeys, .. traits.Experts?.Obeys ?? []]);
        Tensors = new TensorCatalog(checkpoint) { Owner = owner };
        Prefix = Tensors.Prefix("model.");
        Hidden = Config.Count("hidden_size");
        epsilon = (float)Config.Positive("rms_norm_eps", 1e-6);
        VocabularySize = Vocabulary.Size(Config, Tensors, TokenTable);
        rope = new RopeReader(Config, Tensors, traits.Pairing(Config), traits.RopeTheta);
        feedForwards = new FeedForwardReader(Tensors, ReadActivation(Config), Hidden, traits.Clamp(Config));
    }

    /// <summary>The configuration.</summary>
    public ConfigReader Config { get; }

    /// <summary>The tensors.</summary>
    public TensorCatalog Tensors { get; }

    /// <summary>What the names of the model's body begin with.</summary>
    public string Prefix { get; }

    /// <summary>Width of the residual stream.</summary>
    public int Hidden { get; }

    /// <summary>Tokens.</summary>
    public int VocabularySize { get; }

    /// <summary>The token table's name.</summary>
    public string TokenTable => $"{Prefix}embed_tokens.weight";

    /// <summary>Makes the plan of a checkpoint whose layers are stored and run one after the other.</summary>
    public static ModelPlan Read(Checkpoint checkpoint, GatedDecoderTraits traits)
    {
        var decoder = new GatedDecoder(checkpoint, traits);
        return decoder.Complete(decoder.Layers(decoder.PlainNames()), decoder.UsualHead());
    }

    /// <summary>The names of <c>num_hidden_layers</c> layers in the usual order.</summary>
    public string[] PlainNames() =>
        [.. Enumerable.Range(0, LayerCount.Read(Config, "num_hidden_layers", Tensors.Checkpoint)).Select(layer => $"{Prefix}layers.{layer}")];

    /// <summary>The head by the usual rule.</summary>
    public LinearPlan UsualHead() => Vocabulary.Head(Config, Tensors, TokenTable, VocabularySize, Hidden);

    /// <summary>A block, a step and a slot for each name, in order.</summary>
    public LayerMap Layers(IReadOnlyList<string> names)
    {
        int layers = names.Count;
        AttentionGeometry[] geometry = traits.LatentAttention ? [] : AttentionGeometry.Read(Config, Tensors, Hidden, layers, layer => $"{names[layer]}.self_attn", traits.MayLackSublayers);
        ExpertsReader? experts = traits.Experts is null ? null : new ExpertsReader(traits.Experts, Config, feedForwards, layers);
        int[]? widths = Config.CountPerLayer("intermediate_size", layers, least: traits.MayLackSublayers ? 0 : 1);
        int?[] windows = traits.SlidingWindows(Config, layers);
        // Qwen2's biases are no choice, and its configurations have no key for them.
        bool qkvBias = traits.QkvBias || BiasRule("attention_bias", ".self_attn.");
        bool feedForwardBias = BiasRule("mlp_bias", ".mlp.");
        float? clip = traits.ClipQkv(Config);
        LatentAttentionReader? latent = traits.LatentAttention ? new LatentAttentionReader(Config, Tensors, rope, Hidden, qkvBias) : null;

        var blocks = ImmutableArray.CreateBuilder<BlockPlan>(layers);
        var steps = ImmutableArray.CreateBuilder<LayerStep>(layers);
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>(layers);
        for (int layer = 0; layer < layers; layer++)
        {
            string name = names[layer];
            AttentionPlan? attention = latent?.Read($"{name}.self_attn")
                ?? (geometry[layer].HasAttention ? Attention(name, geometry[layer], windows[layer], qkvBias) with { ClipQkv = clip } : null);
            BlockPlan block = experts?.Has(layer) == true
                ? new BlockPlan(attention, null, experts.Read(name, layer))
                : new BlockPlan(attention, Width(layer) == 0 ? null : feedForwards.Read($"{name}.mlp", Width(layer), feedForwardBias));
            block = block with
            {
                AttentionLinear = attention is null && geometry[layer].HasLinear ? LinearOf(name) : null,
                FeedForwardLinear = block is { FeedForward: null, Experts: null } && Tensors.Has($"{name}.mlp.linear_mlp.weight")
                    ? Square($"{name}.mlp.linear_mlp") : null,
            };
            blocks.Add(block);
            steps.Add(new LayerStep(
                layer, attention is null ? LayerStep.NoKvSlot : slots.Count,
                attention is null && block.AttentionLinear is null ? null : LayerNorm($"{name}.input_layernorm"),
                block is { FeedForward: null, Experts: null, FeedForwardLinear: null } ? null : LayerNorm($"{name}.post_attention_layernorm")));
            if (attention is not null)
            {
                slots.Add(attention.KvSlot);
            }
        }
        experts?.Complete();
        return slots.Count > 0
            ? new LayerMap(blocks.MoveToImmutable(), steps.MoveToImmutable(), slots.ToImmutable())
            : throw Config.Error("num_attention_heads", "expected a layer with attention; found none");

        int Width(int layer) => widths?[layer] ?? throw Config.Error("intermediate_size", "the key is missing");
    }

    /// <summary>The plan; complains about tensors that are missing or left over.</summary>
    public ModelPlan Complete(LayerMap layers, LinearPlan head, StreamsPlan? streams = null)
    {
        var plan = new ModelPlan
        {
            Family = traits.Family,
            VocabularySize = VocabularySize,
            HiddenSize = Hidden,
            ContextLength = rope.ContextLength,
            LongContextLength = rope.LongContextLength,
            Embedding = new EmbeddingPlan(Tensors.Table(TokenTable, VocabularySize, Hidden)),
            Layers = layers,
            FinalNorm = LayerNorm($"{Prefix}norm"),
            Head = head,
            Streams = streams,
        };
        // Old files store the rotation's frequencies, which follow from the configuration.
        Tensors.Complete(traits.Family, name => name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal) || traits.Ignores(Config, name));
        return plan;
    }

    private AttentionPlan Attention(string layerName, AttentionGeometry heads, int? window, bool qkvBias)
    {
        string name = $"{layerName}.self_attn";
        return new AttentionPlan
        {
            Heads = heads.Heads,
            KvHeads = heads.KvHeads,
            HeadDim = heads.HeadDim,
            Scale = (float)(1 / Math.Sqrt(heads.HeadDim)),
            Qkv = new LinearPlan(Hidden,
            [
                Tensors.Part($"{name}.q_proj", heads.QueryWidth, Hidden, qkvBias),
                Tensors.Part($"{name}.k_proj", heads.KeyWidth, Hidden, qkvBias),
                Tensors.Part($"{name}.v_proj", heads.KeyWidth, Hidden, qkvBias),
            ]),
            Output = new LinearPlan(heads.QueryWidth, [Tensors.Part($"{name}.o_proj", Hidden, heads.QueryWidth)]),
            QueryNorm = traits.HeadNorms ? HeadNorm($"{name}.q_norm", heads.HeadDim, heads.QueryWidth) : null,
            KeyNorm = traits.HeadNorms ? HeadNorm($"{name}.k_norm", heads.HeadDim, heads.KeyWidth) : null,
            NormsWholeProjection = traits.NormsWholeProjection,
            Rope = rope.ForHeadDim(heads.HeadDim),
            SlidingWindow = window < (rope.LongContextLength ?? rope.ContextLength) ? window : null,
            Sinks = traits.Sinks ? Sinks($"{name}.sinks", heads.Heads) : [],
        };
    }

    /// <summary>The matrix in place of a layer's attention: GGUF calls it by the output projection's name.</summary>
    private LinearPlan LinearOf(string layerName)
    {
        string name = $"{layerName}.self_attn.linear_attn";
        return Square(Tensors.Has($"{name}.weight") ? name : $"{layerName}.self_attn.o_proj");
    }

    private LinearPlan Square(string name) => new(Hidden, [Tensors.Part(name, Hidden, Hidden)]);

    private ImmutableArray<float> Sinks(string name, int heads)
    {
        float[] sinks = Tensors.Values(name, heads, anyFloat: true);
        int bad = Array.FindIndex(sinks, static sink => !float.IsFinite(sink));
        return bad < 0 ? [.. sinks] : throw new EngineException($"element {bad} is {sinks[bad]}, expected a finite number", Config.File, name);
    }

    private NormPlan LayerNorm(string name) => new(
        traits.Norms, epsilon, Tensors.Vector($"{name}.weight", Hidden),
        traits.Norms == NormKind.Layer ? Tensors.Vector($"{name}.bias", Hidden) : null);

    private NormPlan HeadNorm(string name, int headDim, int width) =>
        new(NormKind.Rms, epsilon, Tensors.Vector($"{name}.weight", traits.NormsWholeProjection ? width : headDim));

    /// <summary>The non-linearity of gated feed-forwards; SwiGLU where the key is absent.</summary>
    internal static Activation ReadActivation(ConfigReader config) => config.Text("hidden_act", "silu") switch
    {
        "silu" or "swish" => Activation.SwiGlu,
        "gelu_pytorch_tanh" or "gelu_new" => Activation.GeGluTanh,
        { } other => throw config.Error("hidden_act", $"expected silu, gelu_new or gelu_pytorch_tanh; found '{other}'"),
        null => Activation.SwiGlu,
    };

    /// <summary>
    /// True where biases must exist. Where the key says false, they must not; where it is absent, they are taken where they exist.
    /// </summary>
    private bool BiasRule(string key, string middle)
    {
        bool? rule = Config.FlagOrNull(key);
        if (rule != false)
        {
            return rule == true;
        }
        string start = $"{Prefix}layers.";
        string? bias = Tensors.Checkpoint.TensorNames.FirstOrDefault(name =>
            name.StartsWith(start, StringComparison.Ordinal) && name.Contains(middle, StringComparison.Ordinal)
            && name.EndsWith("_proj.bias", StringComparison.Ordinal));
        return bias is null
            ? false
            : throw Config.Error(key, $"the configuration says that there are no biases, but the tensor {bias} exists");
    }
}
