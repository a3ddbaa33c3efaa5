using System.Collections.Immutable;

namespace Engine.Plans;

/// <summary>
/// What to compute, as immutable data: names of tensors and shapes, no weights. Architectures differ only here; a reader per family makes one.
/// </summary>
public sealed record ModelPlan
{
    /// <summary>The family that the reader recognised (<c>llama</c>, <c>qwen2</c>, <c>gpt2</c>, …).</summary>
    public required string Family { get; init; }

    /// <summary>Rows of the embedding and of the head.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Width of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>The longest sequence in tokens that the model was made for.</summary>
    public required int ContextLength { get; init; }

    /// <summary>Token (and position) embedding.</summary>
    public required EmbeddingPlan Embedding { get; init; }

    /// <summary>The layers: blocks, the steps over them, and the KV slots.</summary>
    public required LayerMap Layers { get; init; }

    /// <summary>The norm before the head.</summary>
    public required NormPlan FinalNorm { get; init; }

    /// <summary>Hidden state to logits [hiddenSize → vocabularySize]; names the embedding's tensor where they are tied.</summary>
    public required LinearPlan Head { get; init; }

    /// <summary>Parallel streams, or null.</summary>
    public StreamsPlan? Streams { get; init; }
}

/// <summary>A tensor, or a run of its rows, or its transpose.</summary>
/// <param name="Tensor">Name in the checkpoint.</param>
/// <param name="FirstRow">First output row taken (after transposition).</param>
/// <param name="Transposed">The file stores [inputs, outputs] (GPT-2's Conv1D).</param>
public sealed record WeightRef(string Tensor, int FirstRow = 0, bool Transposed = false);

/// <summary>One weight matrix of a <see cref="LinearPlan"/>: <c>y = W·x + b</c> for its own rows of y.</summary>
/// <param name="Outputs">Rows of W.</param>
/// <param name="Weight">W, [outputs, inputs].</param>
/// <param name="Bias">b, [outputs], or null.</param>
public sealed record LinearPart(int Outputs, WeightRef Weight, WeightRef? Bias = null);

/// <summary>
/// A linear map whose output is the concatenation of its parts': q, k and v are one map with three parts, gate and up one with two.
/// Parts may be stored in different formats.
/// </summary>
/// <param name="Inputs">Columns of every part.</param>
/// <param name="Parts">The parts in output order.</param>
public sealed record LinearPlan(int Inputs, ImmutableArray<LinearPart> Parts)
{
    /// <summary>Width of the output.</summary>
    public int Outputs { get; } = Parts.Sum(static part => part.Outputs);
}

/// <summary>Where rows come from.</summary>
/// <param name="Tokens">Token table [vocabularySize, hiddenSize].</param>
/// <param name="Positions">Learned positions [contextLength, hiddenSize] that are added, or null.</param>
public sealed record EmbeddingPlan(WeightRef Tokens, WeightRef? Positions = null);

/// <summary>Which normalisation.</summary>
public enum NormKind
{
    /// <summary>x / sqrt(mean(x²) + ε) ⊙ weight (Zhang and Sennrich 2019).</summary>
    Rms,
    /// <summary>(x − mean) / sqrt(var + ε) ⊙ weight + bias (Ba et al. 2016).</summary>
    Layer,
}

/// <summary>A normalisation over the last dimension of its input.</summary>
/// <param name="Kind">RMS or layer norm.</param>
/// <param name="Epsilon">Added under the square root.</param>
/// <param name="Weight">Gain, [width].</param>
/// <param name="Bias">Offset, [width], or null.</param>
public sealed record NormPlan(NormKind Kind, float Epsilon, WeightRef Weight, WeightRef? Bias = null);

/// <summary>Which two elements of a head are rotated together.</summary>
public enum RopePairing
{
    /// <summary>(i, i + dimensions/2): Hugging Face, and GGUF's NEOX architectures.</summary>
    Halves,
    /// <summary>(2i, 2i + 1): llama2.c, and GGUF's llama architecture.</summary>
    Adjacent,
}

/// <summary>Rotary position embedding (Su et al. 2021), with every scaling rule already applied to the frequencies by the reader.</summary>
/// <param name="Pairing">Which elements form a pair.</param>
/// <param name="InverseFrequencies">Radians per position of each pair, [dimensions / 2]; elements past dimensions are not rotated.</param>
/// <param name="Magnitude">Factor on cosine and sine (YaRN's attention factor); 1 for most.</param>
public sealed record RopePlan(RopePairing Pairing, ImmutableArray<double> InverseFrequencies, float Magnitude = 1f)
{
    /// <summary>Elements of a head that are rotated.</summary>
    public int Dimensions => InverseFrequencies.Length * 2;
}

/// <summary>Causal self-attention with grouped queries.</summary>
public sealed record AttentionPlan
{
    /// <summary>Query heads; a multiple of <see cref="KvHeads"/>.</summary>
    public required int Heads { get; init; }

    /// <summary>Key and value heads.</summary>
    public required int KvHeads { get; init; }

    /// <summary>Elements of a head; not always hiddenSize / heads.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Factor on q·k, usually 1 / sqrt(headDim).</summary>
    public required float Scale { get; init; }

    /// <summary>hidden → [q: heads × headDim | k: kvHeads × headDim | v: kvHeads × headDim].</summary>
    public required LinearPlan Qkv { get; init; }

    /// <summary>heads × headDim → hidden.</summary>
    public required LinearPlan Output { get; init; }

    /// <summary>Norm over each query head before rotation (Qwen3), or null.</summary>
    public NormPlan? QueryNorm { get; init; }

    /// <summary>Norm over each key head before rotation (Qwen3), or null.</summary>
    public NormPlan? KeyNorm { get; init; }

    /// <summary>Rotation of q and k, or null where positions are learned.</summary>
    public RopePlan? Rope { get; init; }

    /// <summary>A row sees itself and this many − 1 tokens before it (Mistral 7B v0.1), or null for all.</summary>
    public int? SlidingWindow { get; init; }
}

/// <summary>The non-linearity between the two linears of a feed-forward block.</summary>
public enum Activation
{
    /// <summary>silu(gate) ⊙ up (Shazeer 2020).</summary>
    SwiGlu,
    /// <summary>GELU, tanh approximation (Hendrycks and Gimpel 2016).</summary>
    GeluTanh,
    /// <summary>GELU, exact (erf).</summary>
    Gelu,
    /// <summary>gelu_tanh(gate) ⊙ up.</summary>
    GeGluTanh,
    /// <summary>silu(x) (Elfwing et al. 2018).</summary>
    Silu,
}

/// <summary>A feed-forward block.</summary>
/// <param name="Activation">Non-linearity; gated kinds read [gate | up], the others [up].</param>
/// <param name="Width">Inner width after the activation.</param>
/// <param name="In">hidden → width, or 2 × width where gated (gate first).</param>
/// <param name="Down">width → hidden.</param>
public sealed record FeedForwardPlan(Activation Activation, int Width, LinearPlan In, LinearPlan Down)
{
    /// <summary>The activation multiplies a gate with an up projection.</summary>
    public bool IsGated => Activation is Activation.SwiGlu or Activation.GeGluTanh;
}
