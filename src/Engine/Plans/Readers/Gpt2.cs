using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// GPT-2 (Radford et al. 2019): layer norms with biases before each sublayer, learned positions, q|k|v as one tensor, and linears stored
/// [inputs, outputs] (Conv1D) unless the extension key <c>conv1d_transposed</c> says false.
/// </summary>
internal sealed class Gpt2
{
    private readonly ConfigReader config;
    private readonly TensorCatalog tensors;
    private readonly string prefix;
    private readonly bool transposed;
    private readonly int hidden;
    private readonly int heads;
    private readonly int inner;
    private readonly float epsilon;
    private readonly Activation activation;

    private Gpt2(Checkpoint checkpoint)
    {
        config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        NeutralFields.Require(config);
        tensors = new TensorCatalog(checkpoint);
        prefix = tensors.Prefix("transformer.");
        transposed = config.Flag("conv1d_transposed", true);
        hidden = config.Count(config.Alias("n_embd", "hidden_size"));
        string headsKey = config.Alias("n_head", "num_attention_heads");
        heads = config.Count(headsKey);
        if (hidden % heads != 0)
        {
            throw config.Error(headsKey, $"expected a divisor of the width {hidden}; found {heads}");
        }
        inner = config.CountOrNull(config.Alias("n_inner", "intermediate_size")) ?? 4 * hidden;
        epsilon = (float)config.Positive(config.Alias("layer_norm_epsilon", "layer_norm_eps"), 1e-5);
        activation = ReadActivation(config.Alias("activation_function", "hidden_act"));
    }

    public static ModelFamily Family { get; } = new(static checkpoint => new Gpt2(checkpoint).Read())
    {
        Name = "gpt2",
        ModelTypes = ["gpt2"],
        Architectures = ["GPT2LMHeadModel", "GPT2Model"],
        Models = "GPT-2 124M–1.5B, DistilGPT2",
        Supports = "layer norms, learned positions, GELU exact or tanh, attention scaled by layer, tied or own head",
    };

    private ModelPlan Read()
    {
        string tokenTable = $"{prefix}wte.weight";
        string positionTable = $"{prefix}wpe.weight";
        int layers = LayerCount.Read(config, config.Alias("n_layer", "num_hidden_layers"), tensors.Checkpoint);
        int vocabulary = Vocabulary.Size(config, tensors, tokenTable);
        int context = config.Count(config.Alias("n_positions", "max_position_embeddings", "n_ctx"));
        var blocks = ImmutableArray.CreateBuilder<BlockPlan>(layers);
        var steps = ImmutableArray.CreateBuilder<LayerStep>(layers);
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>(layers);
        for (int layer = 0; layer < layers; layer++)
        {
            string name = $"{prefix}h.{layer}";
            blocks.Add(new BlockPlan(Attention($"{name}.attn", layer), FeedForward($"{name}.mlp")));
            steps.Add(new LayerStep(layer, layer, Norm($"{name}.ln_1"), Norm($"{name}.ln_2")));
            slots.Add(new KvSlotPlan(heads, hidden / heads));
        }
        var plan = new ModelPlan
        {
            Family = Family.Name,
            VocabularySize = vocabulary,
            HiddenSize = hidden,
            ContextLength = context,
            Embedding = new EmbeddingPlan(tensors.Table(tokenTable, vocabulary, hidden), tensors.Table(positionTable, context, hidden)),
            Layers = new LayerMap(blocks.MoveToImmutable(), steps.MoveToImmutable(), slots.MoveToImmutable()),
            FinalNorm = Norm($"{prefix}ln_f"),
            Head = Vocabulary.Head(config, tensors, tokenTable, vocabulary, hidden),
        };
        // Causal masks, stored by older versions of the library.
        tensors.Complete(Family.Name, static name =>
            name.EndsWith(".attn.bias", StringComparison.Ordinal) || name.EndsWith(".attn.masked_bias", StringComparison.Ordinal));
        return plan;
    }

    private AttentionPlan Attention(string name, int layer)
    {
        double scale = config.Flag("scale_attn_weights", true) ? 1 / Math.Sqrt(hidden / heads) : 1;
        if (config.Flag("scale_attn_by_inverse_layer_idx", false))
        {
            scale /= layer + 1;
        }
        WeightRef weight = tensors.Matrix($"{name}.c_attn.weight", 3 * hidden, hidden, transposed);
        WeightRef bias = tensors.Vector($"{name}.c_attn.bias", 3 * hidden);
        return new AttentionPlan
        {
            Heads = heads,
            KvHeads = heads,
            HeadDim = hidden / heads,
            Scale = (float)scale,
            Qkv = new LinearPlan(hidden, [Third(0), Third(1), Third(2)]),
            Output = Linear($"{name}.c_proj", hidden, hidden),
        };

        LinearPart Third(int index) => new(hidden, weight with { FirstRow = index * hidden }, bias with { FirstRow = index * hidden });
    }

    private FeedForwardPlan FeedForward(string name) =>
        new(activation, inner, Linear($"{name}.c_fc", inner, hidden), Linear($"{name}.c_proj", hidden, inner));

    private LinearPlan Linear(string name, int outputs, int inputs) =>
        new(inputs,
        [
            new LinearPart(
                outputs, tensors.Matrix($"{name}.weight", outputs, inputs, transposed), tensors.Vector($"{name}.bias", outputs)),
        ]);

    private NormPlan Norm(string name) =>
        new(NormKind.Layer, epsilon, tensors.Vector($"{name}.weight", hidden), tensors.Vector($"{name}.bias", hidden));

    private Activation ReadActivation(string key) => config.Text(key, "gelu_new") switch
    {
        "gelu_new" or "gelu_pytorch_tanh" or "gelu_fast" => Activation.GeluTanh,
        "gelu" => Activation.Gelu,
        var other => throw config.Error(key, $"expected gelu, gelu_new, gelu_fast or gelu_pytorch_tanh; found '{other}'"),
    };
}
