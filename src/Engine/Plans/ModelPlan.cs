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

    /// <summary>Width of the residual stream: everywhere, but for what <see cref="LayerStep.AttentionResidual"/> and its like change.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>The longest sequence in tokens that the model was made for.</summary>
    public required int ContextLength { get; init; }

    /// <summary>The longest sequence with the rotations <see cref="RopePlan.Long"/> (<see cref="LongContext"/>); null where there are none.</summary>
    public int? LongContextLength { get; init; }

    /// <summary>Token (and position) embedding.</summary>
    public required EmbeddingPlan Embedding { get; init; }

    /// <summary>The layers: blocks, the steps over them, and the KV slots.</summary>
    public required LayerMap Layers { get; init; }

    /// <summary>The norm before the head.</summary>
    public required NormPlan FinalNorm { get; init; }

    /// <summary>Hidden state to logits [width of the residual stream → vocabularySize]; names the embedding's tensor where they are tied.</summary>
    public required LinearPlan Head { get; init; }

    /// <summary>Parallel streams, or null.</summary>
    public StreamsPlan? Streams { get; init; }
}

/// <summary>A tensor, or some of its rows, or of its transpose; of a vector, some of its elements.</summary>
/// <param name="Tensor">Name in the checkpoint.</param>
/// <param name="FirstRow">First output row taken (after transposition).</param>
/// <param name="Transposed">The file stores [inputs, outputs] (GPT-2's Conv1D).</param>
public sealed record WeightRef(string Tensor, int FirstRow = 0, bool Transposed = false)
{
    /// <summary>Rows from one that is taken to the next, at least 1: 2 where gate and up rows take turns.</summary>
    public int RowStep { get; init; } = 1;

    /// <summary>
    /// Which part along the outermost dimension is meant, all else being said of that part alone: a matrix of [experts, outputs, inputs], a vector of
    /// [experts, outputs]. Null for the whole tensor, whose rows count through all of them.
    /// </summary>
    public int? Slice { get; init; }

    /// <summary>
    /// Where the tensor holds MXFP4 codes apart from their scales, [outputs, inputs / 32, 16] bytes, byte j of which has inputs 2j (low nibble) and 2j + 1: the
    /// tensor of the scales, [outputs, inputs / 32]. Null for all others.
    /// </summary>
    public string? Scales { get; init; }

    /// <summary>A run of rows of one tensor, as every reader of weights takes them.</summary>
    public bool IsPlain => RowStep == 1 && Slice is null && Scales is null;
}

/// <summary>One weight matrix of a <see cref="LinearPlan"/>, and what is added to it: <c>y = W·x + B·(A·x) + b</c> for its own rows of y.</summary>
/// <param name="Outputs">Rows of W and B.</param>
/// <param name="Weight">W, [outputs, inputs]; null where it is zero.</param>
/// <param name="Bias">b, [outputs], or null.</param>
public sealed record LinearPart(int Outputs, WeightRef? Weight, WeightRef? Bias = null)
{
    /// <summary>
    /// The rows of W that are not zero, ascending, each 0 … outputs − 1: no others are packed or multiplied. Null for all.
    /// </summary>
    public ImmutableArray<int>? Rows { get; init; }

    /// <summary>A and B, or null where there are none.</summary>
    public LowRankTerm? LowRank { get; init; }

    /// <summary>All of W and nothing besides but a bias.</summary>
    public bool IsPlain => Weight is not null && Rows is null && LowRank is null;

    /// <summary>Rows of W that are stored and multiplied.</summary>
    public int KeptRows => Weight is null ? 0 : Rows?.Length ?? Outputs;
}

/// <summary>A product of two narrow matrices that is added to a weight matrix (Hu et al. 2022; Li et al. 2023, LoSparse).</summary>
/// <param name="Rank">Rows of A and columns of B, at least 1.</param>
/// <param name="A">[rank, inputs].</param>
/// <param name="B">[outputs, rank].</param>
public sealed record LowRankTerm(int Rank, WeightRef A, WeightRef B);

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
/// <param name="Weight">Gain, [width]; null for 1.</param>
/// <param name="Bias">Offset, [width], or null.</param>
public sealed record NormPlan(NormKind Kind, float Epsilon, WeightRef? Weight, WeightRef? Bias = null)
{
    /// <summary>
    /// What an RMS norm divides the sum of squares by; null for the width. Of rows that were cut (Ashkboos et al. 2024, SliceGPT) it is the width they had.
    /// </summary>
    public int? MeanWidth { get; init; }
}

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
    /// <summary>
    /// The rotation that stands in for this one where a model is run with a longer context than <see cref="ModelPlan.ContextLength"/> (Ding et al. 2024,
    /// LongRoPE); null where there is none.
    /// </summary>
    public RopePlan? Long { get; init; }

    /// <summary>Elements of a head that are rotated.</summary>
    public int Dimensions => InverseFrequencies.Length * 2;
}

/// <summary>
/// A linear map of each head's own, block-diagonal over [heads × (inputs + carried)] → [heads × (outputs + carried)]: the first elements of a head are
/// multiplied, the others follow as they are.
/// </summary>
/// <param name="Heads">Heads.</param>
/// <param name="Inputs">Elements of a head that are multiplied.</param>
/// <param name="Outputs">What they become.</param>
/// <param name="Carried">Elements behind them that are copied.</param>
/// <param name="Weight">
/// The matrices of all heads, [heads × rowsPerHead, columns]: a head's is [outputs, inputs], or [inputs, outputs] where transposed, and that of head 0 begins
/// at the row of the file that is named.
/// </param>
/// <param name="RowsPerHead">Rows of the file from a head's matrix to the next head's.</param>
public sealed record HeadLinearPlan(int Heads, int Inputs, int Outputs, int Carried, WeightRef Weight, int RowsPerHead)
{
    /// <summary>Width of the input.</summary>
    public int InputWidth => Heads * (Inputs + Carried);

    /// <summary>Width of the output.</summary>
    public int OutputWidth => Heads * (Outputs + Carried);

    /// <summary>Rows of the file that a head's matrix takes.</summary>
    public int StoredRows => Weight.Transposed ? Inputs : Outputs;

    /// <summary>Columns of the file.</summary>
    public int StoredColumns => Weight.Transposed ? Outputs : Inputs;
}

/// <summary>
/// Multi-head latent attention (DeepSeek-AI 2024, section 2.1) with the up-projections absorbed: all heads share one key [c | rotated part], c being the
/// latent that keys and values are made from, and the cache holds nothing else. With kᵢ = [W_K·c | r] and v = W_V·c of a head,
/// q·k = [W_Kᵀ·q | q′]·[c | r] and Σ p·v = W_V·Σ p·c, so that queries are brought to the latent's width and results from it.
/// </summary>
public sealed record LatentPlan
{
    /// <summary>Elements of c.</summary>
    public required int Rank { get; init; }

    /// <summary>hidden → what <see cref="Query"/> reads; null where that is the hidden state.</summary>
    public LinearPlan? QueryDown { get; init; }

    /// <summary>Norm behind <see cref="QueryDown"/>, over all of it; null where there is none.</summary>
    public NormPlan? QueryDownNorm { get; init; }

    /// <summary>→ heads × (elements for the latent's keys + rotated elements).</summary>
    public required LinearPlan Query { get; init; }

    /// <summary>W_Kᵀ: a head's query → [<see cref="Rank"/> | rotated elements, carried].</summary>
    public required HeadLinearPlan KeyUp { get; init; }

    /// <summary>W_V: Σ p·c of a head → its value, <see cref="Rank"/> → value elements.</summary>
    public required HeadLinearPlan ValueUp { get; init; }
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

    /// <summary>
    /// hidden → [q: heads × headDim | k: kvHeads × headDim | v: kvHeads × headDim]; of latent attention, hidden → [c: rank | rotated elements], which is the
    /// key, the queries coming from <see cref="LatentPlan.Query"/>.
    /// </summary>
    public required LinearPlan Qkv { get; init; }

    /// <summary>Latent attention, or null. Then there is one key head, and headDim is its rank + rotated elements.</summary>
    public LatentPlan? Latent { get; init; }

    /// <summary>heads × headDim → hidden; of latent attention, heads × value elements → hidden.</summary>
    public required LinearPlan Output { get; init; }

    /// <summary>Norm over each query head before rotation (Qwen3), or over all of them as one vector (<see cref="NormsWholeProjection"/>); or null.</summary>
    public NormPlan? QueryNorm { get; init; }

    /// <summary>As <see cref="QueryNorm"/>, of the key heads.</summary>
    public NormPlan? KeyNorm { get; init; }

    /// <summary>The norms are over the whole of q, heads × headDim, and of k, kvHeads × headDim (OLMoE).</summary>
    public bool NormsWholeProjection { get; init; }

    /// <summary>Every element of q, k and v is clamped to ± this, behind the norms and before rotation (OLMoE's <c>clip_qkv</c>); or null.</summary>
    public float? ClipQkv { get; init; }

    /// <summary>Elements that <see cref="QueryNorm"/> is over.</summary>
    public int QueryNormWidth => NormsWholeProjection ? Heads * HeadDim : HeadDim;

    /// <summary>Elements that <see cref="KeyNorm"/> is over: of latent attention, c.</summary>
    public int KeyNormWidth => NormsWholeProjection ? KvHeads * HeadDim : ValueDim;

    /// <summary>Elements of a value: those of a key, or the first of it, the latent.</summary>
    public int ValueDim => Latent?.Rank ?? HeadDim;

    /// <summary>The first element of a head that is rotated.</summary>
    public int RopeStart => Latent?.Rank ?? 0;

    /// <summary>Width of [q heads | k heads | v heads] as attention reads it; of latent attention there are no v heads.</summary>
    public int QkvWidth => (Heads + (Latent is null ? 2 : 1) * KvHeads) * HeadDim;

    /// <summary>What a slot holds for this attention.</summary>
    public KvSlotPlan KvSlot => new(KvHeads, HeadDim, LatentDim: Latent?.Rank);

    /// <summary>Rotation of q and k, or null where positions are learned.</summary>
    public RopePlan? Rope { get; init; }

    /// <summary>
    /// [heads]: of each query head a learned logit that joins its softmax and brings no value, so that a row may attend to nothing (gpt-oss's attention
    /// sinks); empty where there are none.
    /// </summary>
    public ImmutableArray<float> Sinks { get; init; } = [];

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
    /// <summary>g · σ(α·g) · (u + 1) with g = min(gate, L) and u = up clamped to ± L (gpt-oss); see <see cref="SwiGluClamp"/>.</summary>
    ClampedSwiGlu,
}

/// <summary>What is told of an <see cref="Activation"/>.</summary>
public static class ActivationKinds
{
    /// <summary>It multiplies a gate with an up projection: reads [gate | up].</summary>
    public static bool IsGated(this Activation activation) => activation is Activation.SwiGlu or Activation.GeGluTanh or Activation.ClampedSwiGlu;
}

/// <summary>Constants of <see cref="Activation.ClampedSwiGlu"/>.</summary>
/// <param name="Limit">L, above zero: the most that gate and |up| count.</param>
/// <param name="Alpha">α: factor on the gate inside the sigmoid.</param>
public sealed record SwiGluClamp(float Limit, float Alpha)
{
    /// <summary>As gpt-oss was trained (transformers, modeling_gpt_oss.py); x · σ(1.702 x) approximates GELU.</summary>
    public static SwiGluClamp Default { get; } = new(7f, 1.702f);
}

/// <summary>A feed-forward block.</summary>
/// <param name="Activation">Non-linearity; gated kinds read [gate | up], the others [up].</param>
/// <param name="Width">Inner width after the activation.</param>
/// <param name="In">hidden → width, or 2 × width where gated (gate first).</param>
/// <param name="Down">width → hidden.</param>
public sealed record FeedForwardPlan(Activation Activation, int Width, LinearPlan In, LinearPlan Down)
{
    /// <summary>The activation multiplies a gate with an up projection.</summary>
    public bool IsGated => Activation.IsGated();

    /// <summary>Constants of the activation where it is <see cref="Activation.ClampedSwiGlu"/>.</summary>
    public SwiGluClamp Clamp { get; init; } = SwiGluClamp.Default;
}
