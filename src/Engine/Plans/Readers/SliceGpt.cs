using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// Llamas cut by SliceGPT (Ashkboos et al. 2024): between sublayers the residual stream was rotated to its principal components, of which the first are left. What is
/// stored are the matrices as they are then, and of each sublayer the rotation from what it reads to what it adds to, <c>attn_shortcut_Q</c> and <c>mlp_shortcut_Q</c>
/// [width before, width behind]. Norms have no gains, which are in the matrices. Widths are told by shapes; those that a <see cref="SlicingFile"/> beside the weights lists
/// must be the same.
/// </summary>
internal static class SliceGpt
{
    /// <summary>Of <c>slicegpt.modules.RMSN</c>, whatever the configuration says.</summary>
    private const float Epsilon = 1e-5f;

    private const string AttentionRotation = ".attn_shortcut_Q", FeedForwardRotation = ".mlp_shortcut_Q", TokenTable = "model.embed_tokens.weight",
        Head = "lm_head.weight";

    public static ModelFamily Family { get; } = new(Read)
    {
        Name = "slicegpt",
        ModelTypes = ["sliced_llama"],
        Architectures = ["SlicedLlamaForCausalLM", .. Llama.Family.Architectures],
        Models = "SliceGPT's Llama 2 and 3, saved as safetensors",
        Supports = "as llama; widths of the residual stream that differ from sublayer to sublayer, with the rotations between them",
        Claims = static (checkpoint, modelType, _) => modelType is "llama" or null
            && checkpoint.TensorNames.Any(static name => name.EndsWith(AttentionRotation, StringComparison.Ordinal)),
    };

    private static ModelPlan Read(Checkpoint checkpoint)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        NeutralFields.Require(config);
        var tensors = new TensorCatalog(checkpoint);
        int layers = LayerCount.Read(config, "num_hidden_layers", checkpoint), vocabulary = Vocabulary.Size(config, tensors, TokenTable);
        SlicingFile? file = SlicingFile.Find(checkpoint);
        int original = file?.HiddenSize ?? config.Count("hidden_size");
        int embedded = Width(tensors, TokenTable, 1, original);
        file?.Require(SlicingFile.Embedding, 0, embedded);
        AttentionGeometry[] geometry = AttentionGeometry.Read(config, tensors, original, layers, static layer => $"model.layers.{layer}.self_attn", mayBeAbsent: false);
        var rope = new RopeReader(config, tensors);
        var norm = new NormPlan(NormKind.Rms, Epsilon, null) { MeanWidth = original };
        int[] inner = config.CountPerLayer("intermediate_size", layers) ?? throw config.Error("intermediate_size", "the key is missing");
        Activation activation = GatedDecoder.ReadActivation(config);

        var blocks = ImmutableArray.CreateBuilder<BlockPlan>(layers);
        var steps = ImmutableArray.CreateBuilder<LayerStep>(layers);
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>(layers);
        int width = embedded;
        for (int layer = 0; layer < layers; layer++)
        {
            string name = $"model.layers.{layer}";
            int between = Width(tensors, name + AttentionRotation, 1, original), behind = Width(tensors, name + FeedForwardRotation, 1, original);
            file?.Require(SlicingFile.AttentionInput, layer, width);
            file?.Require(SlicingFile.AttentionOutput, layer, between);
            file?.Require(SlicingFile.FeedForwardInput, layer, between);
            file?.Require(SlicingFile.FeedForwardOutput, layer, behind);
            AttentionPlan attention = Attention(tensors, rope, $"{name}.self_attn", geometry[layer], width, between);
            var feedForwards = new FeedForwardReader(tensors, activation, between) { Outputs = behind };
            blocks.Add(new BlockPlan(attention, feedForwards.Read($"{name}.mlp", inner[layer])));
            slots.Add(attention.KvSlot);
            steps.Add(new LayerStep(layer, layer, norm, norm)
            {
                AttentionResidual = Rotation(tensors, name + AttentionRotation, width, between),
                FeedForwardResidual = Rotation(tensors, name + FeedForwardRotation, between, behind),
            });
            width = behind;
        }
        file?.RequireHead(width);
        var plan = new ModelPlan
        {
            Family = Family.Name,
            VocabularySize = vocabulary,
            HiddenSize = embedded,
            ContextLength = rope.ContextLength,
            LongContextLength = rope.LongContextLength,
            Embedding = new EmbeddingPlan(tensors.Table(TokenTable, vocabulary, embedded)),
            Layers = new LayerMap(blocks.MoveToImmutable(), steps.MoveToImmutable(), slots.MoveToImmutable()),
            FinalNorm = norm,
            Head = new LinearPlan(width, [new LinearPart(vocabulary, tensors.Table(Head, vocabulary, width))]),
        };
        // Some versions of the authors' code save a number for each norm that nothing reads.
        tensors.Complete(Family.Name, name => name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal)
            || (name.EndsWith("norm.weight", StringComparison.Ordinal) && tensors.ShapeOf(name) is [1]));
        return plan;
    }

    private static AttentionPlan Attention(TensorCatalog tensors, RopeReader rope, string name, AttentionGeometry heads, int inputs, int outputs) => new()
    {
        Heads = heads.Heads,
        KvHeads = heads.KvHeads,
        HeadDim = heads.HeadDim,
        Scale = (float)(1 / Math.Sqrt(heads.HeadDim)),
        Qkv = new LinearPlan(inputs,
        [
            tensors.Part($"{name}.q_proj", heads.QueryWidth, inputs),
            tensors.Part($"{name}.k_proj", heads.KeyWidth, inputs),
            tensors.Part($"{name}.v_proj", heads.KeyWidth, inputs),
        ]),
        Output = new LinearPlan(heads.QueryWidth, [tensors.Part($"{name}.o_proj", outputs, heads.QueryWidth)]),
        Rope = rope.ForHeadDim(heads.HeadDim),
    };

    /// <summary>residual · Q: Q is stored as [inputs, outputs].</summary>
    private static LinearPlan Rotation(TensorCatalog tensors, string name, int inputs, int outputs) =>
        new(inputs, [new LinearPart(outputs, tensors.Matrix(name, outputs, inputs, transposed: true))]);

    /// <summary>A dimension of a matrix, which cannot be more than what was cut; that where the matrix is missing, which is said at the end.</summary>
    private static int Width(TensorCatalog tensors, string name, int dimension, int original) => tensors.ShapeOf(name) switch
    {
        null => original,
        { Length: 2 } shape when shape[dimension] >= 1 && shape[dimension] <= original => (int)shape[dimension],
        { } shape => throw new EngineException(
            $"expected a matrix of 1 to {original} columns, the hidden size before it was cut; found [{string.Join(", ", shape)}]", tensors.Checkpoint.Path, name),
    };
}
