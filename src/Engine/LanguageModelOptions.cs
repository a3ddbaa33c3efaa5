using Engine.Checkpoints.Writing;
using Engine.Execution;
using Engine.Plans;

namespace Engine;

/// <summary>How a model is loaded.</summary>
public sealed record LanguageModelOptions
{
    /// <summary>Threads of the CPU backend; null: one per processor.</summary>
    public int? Threads { get; init; }

    /// <summary>How keys and values are stored.</summary>
    public KvFormat KvFormat { get; init; } = KvFormat.F16;

    /// <summary>
    /// Precision of activations that are multiplied with weights stored as BF16. Rounding them to bfloat16 makes prompts about twice as fast on
    /// processors with AVX512_BF16; <see cref="LanguageModel.BackendDescription"/> says so where it is done.
    /// </summary>
    public ActivationPrecision ActivationPrecision { get; init; }

    /// <summary>
    /// The longest sequence in tokens, at most what the model was made for; null: that. A model with LongRoPE was made for two contexts: it is run with the
    /// factors of the longer one where more than the shorter is asked for, for all sequences, however short; null is the shorter.
    /// </summary>
    public int? ContextLength { get; init; }

    /// <summary>
    /// Tokens of keys and values that all sequences together may hold; null: four contexts, or as many as a quarter of the memory holds.
    /// Memory is taken page by page as sequences grow.
    /// </summary>
    public long? KvTokens { get; init; }

    /// <summary>
    /// Bytes of keys and values that all sequences together may hold, in place of <see cref="KvTokens"/>. A model in which tokens leave early holds more
    /// tokens in them.
    /// </summary>
    public long? KvBytes { get; init; }

    /// <summary>Tokens per KV page.</summary>
    public int PageTokens { get; init; } = 64;

    /// <summary>The most rows (tokens over all sequences) computed in one step; longer prompts are done in chunks.</summary>
    public int MaxRowsPerStep { get; init; } = 128;

    /// <summary>How tokens of a Mixture-of-Recursions model with expert choice are given their depths; plays no part in other models.</summary>
    public DepthSelection DepthSelection { get; init; } = DepthSelection.Causal;

    /// <summary>
    /// Experts that mixtures of experts send a token to, instead of the model's number; a layer that has kept fewer takes those. Weights that are not
    /// normalised then sum to something else than in training (<see cref="Mixtures.ChangesSumOfWeights"/>). Null: as the model says.
    /// </summary>
    public int? ExpertsPerToken { get; init; }

    /// <summary>
    /// Bytes that packed experts may take: experts are then packed when a token first needs them, and those not used for longest are let go and read again.
    /// Null: all are kept, packed while loading, unless memory is too small for them (<see cref="LanguageModel.ExpertBytesLimit"/>).
    /// </summary>
    public long? ExpertBytes { get; init; }

    /// <summary>
    /// The layers to run, in order, such as <c>0-5,4-9</c>: see <see cref="LayerOrder"/> for how it is written; null: as the model says.
    /// </summary>
    public string? Layers { get; init; }

    /// <summary>
    /// The format that matrices are quantized to while they are packed, a name of <see cref="QuantizationRecipe.All"/>; null: as they are stored.
    /// See <see cref="Transforms.Quantization.QuantizedCheckpoint"/> for what is covered.
    /// </summary>
    public string? Quantize { get; init; }

    /// <summary>Told after each block while weights are packed, on the thread that loads.</summary>
    public IProgress<LoadProgress>? Progress { get; init; }

    /// <summary>Neurons that contribute nothing are not left out: whoever observes the linear maps wants those of the file.</summary>
    internal bool KeepsIdleNeurons { get; init; }

    /// <summary>Checks ranges.</summary>
    /// <exception cref="EngineException">An option is out of range.</exception>
    public void Validate()
    {
        Require(Threads is null or (>= 1 and <= 1024), nameof(Threads), "1 to 1024", Threads);
        Require(ContextLength is null or >= 1, nameof(ContextLength), "at least 1", ContextLength);
        Require(KvTokens is null or >= 1, nameof(KvTokens), "at least 1", KvTokens);
        Require(KvBytes is null or >= 1, nameof(KvBytes), "at least 1", KvBytes);
        Require(KvTokens is null || KvBytes is null, nameof(KvBytes), $"either this or {nameof(KvTokens)}", "both");
        Require(PageTokens is >= 1 and <= 4096, nameof(PageTokens), "1 to 4096", PageTokens);
        Require(MaxRowsPerStep is >= 1 and <= 65536, nameof(MaxRowsPerStep), "1 to 65536", MaxRowsPerStep);
        Require(ExpertsPerToken is null or >= 1, nameof(ExpertsPerToken), "at least 1", ExpertsPerToken);
        Require(ExpertBytes is null or >= 1, nameof(ExpertBytes), "at least 1", ExpertBytes);
        Require(Enum.IsDefined(DepthSelection), nameof(DepthSelection), "Causal or Official", DepthSelection);
        Require(Enum.IsDefined(ActivationPrecision), nameof(ActivationPrecision), "Float32 or BFloat16", ActivationPrecision);
        Require(Enum.IsDefined(KvFormat), nameof(KvFormat), "F32, F16 or Q8_0", KvFormat);
        if (Quantize is not null)
        {
            Require(
                QuantizationRecipe.All.Any(recipe => recipe.Name.Equals(Quantize, StringComparison.OrdinalIgnoreCase)), nameof(Quantize),
                string.Join(", ", QuantizationRecipe.All.Select(static recipe => recipe.Name)), $"'{Quantize}'");
        }
        if (Layers is not null)
        {
            LayerOrder.Validate(Layers);
        }
    }

    private static void Require(bool holds, string option, string expected, object? found)
    {
        if (!holds)
        {
            throw new EngineException($"expected {expected}, found {found}", item: option);
        }
    }
}
