using System.Collections.Frozen;
using System.Globalization;
using Engine.Checkpoints.Gguf;

namespace Engine.Checkpoints.Writing;

/// <summary>The shape of a model of random weights.</summary>
/// <param name="Architecture">GGUF's name: <c>llama</c>, <c>qwen2</c> (which has q, k, v biases), or <c>qwen3moe</c> (experts, and norms over the heads of q and k).</param>
/// <param name="Layers">Transformer blocks.</param>
/// <param name="Hidden">Width of the residual stream.</param>
/// <param name="FeedForward">Width of the feed-forward, or of each expert.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KvHeads">Key and value heads.</param>
/// <param name="HeadDim">Elements of a head.</param>
/// <param name="Vocabulary">Tokens; at least 260.</param>
/// <param name="Tied">The head is the embedding.</param>
/// <param name="RopeTheta">Base of the rotary frequencies.</param>
/// <param name="Context">Longest sequence.</param>
public sealed record SyntheticShape(
    string Architecture,
    int Layers,
    int Hidden,
    int FeedForward,
    int Heads,
    int KvHeads,
    int HeadDim,
    int Vocabulary,
    bool Tied,
    float RopeTheta,
    int Context)
{
    /// <summary>Experts of a layer; 0 for a plain feed-forward.</summary>
    public int Experts { get; init; }

    /// <summary>Experts that a token is sent to.</summary>
    public int ExpertsPerToken { get; init; }

    /// <summary>Which weights of the matrices of layers, experts among them, are zero: the smaller ones; null for none.</summary>
    public SparsityPattern? Sparsity { get; init; }

    /// <summary>Shapes of real models: 0.5b is Qwen 2.5 0.5B, 1.2b is Llama 3.2 1B, olmoe is OLMoE 1B-7B with 8 of its 16
    /// layers, as an architecture that ik_llama.cpp reads too.</summary>
    public static FrozenDictionary<string, SyntheticShape> Presets { get; } = new Dictionary<string, SyntheticShape>
    {
        ["0.5b"] = new("qwen2", 24, 896, 4864, 14, 2, 64, 151936, true, 1e6f, 32768),
        ["olmoe"] = new("qwen3moe", 8, 2048, 1024, 16, 16, 128, 50304, false, 1e4f, 4096) { Experts = 64, ExpertsPerToken = 8 },
        ["1.2b"] = new("llama", 16, 2048, 8192, 32, 8, 64, 128256, true, 5e5f, 131072),
    }.ToFrozenDictionary();
}

/// <summary>
/// Writes models of random weights for measurements of speed: the time of a forward pass does not depend on the values. This engine and
/// llama.cpp read them; the vocabulary is complete enough to tokenize any text.
/// </summary>
public static class SyntheticModel
{
    private const int SpecialTokens = 2;

    /// <summary>Writes a GGUF file.</summary>
    /// <param name="path">The file; replaced if it exists.</param>
    /// <param name="shape">What to write.</param>
    /// <param name="recipe">How to store it.</param>
    /// <param name="seed">The same seed gives the same file.</param>
    /// <param name="cancellationToken">Ends the writing; nothing is left behind.</param>
    /// <exception cref="EngineException">Writing fails.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void WriteGguf(
        string path, SyntheticShape shape, QuantizationRecipe recipe, int seed, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(shape.Vocabulary, 256 + 2 + SpecialTokens);
        var random = new SyntheticTensors(seed);
        var tensors = new List<TensorSource>();
        void Matrix(string name, int rows, int columns, bool ofLayer = true) => tensors.Add(
            random.Matrix(name, recipe.For(name, [rows, columns], shape.Layers, shape.Tied), rows, columns, sparsity: ofLayer ? shape.Sparsity : null));
        void FeedForward(string name, int rows, int columns)
        {
            if (shape.Experts == 0)
            {
                Matrix(name + ".weight", rows, columns);
                return;
            }
            string stacked = name + "_exps.weight";
            DType dtype = recipe.For(stacked, [shape.Experts, rows, columns], shape.Layers, shape.Tied);
            TensorSource rowsOfAll = random.Matrix(stacked, dtype, checked(shape.Experts * rows), columns, sparsity: shape.Sparsity);
            tensors.Add(rowsOfAll with { Shape = [shape.Experts, rows, columns] });
        }
        void Ones(string name, int width) => tensors.Add(SyntheticTensors.Constant(name, width, 1));
        void Bias(string name, int width) => tensors.Add(random.Bias(name, width));

        Matrix("token_embd.weight", shape.Vocabulary, shape.Hidden, ofLayer: false);
        for (int layer = 0; layer < shape.Layers; layer++)
        {
            string prefix = string.Create(CultureInfo.InvariantCulture, $"blk.{layer}.");
            int queries = shape.Heads * shape.HeadDim, keys = shape.KvHeads * shape.HeadDim;
            Ones(prefix + "attn_norm.weight", shape.Hidden);
            foreach ((string name, int width) in new[] { ("attn_q", queries), ("attn_k", keys), ("attn_v", keys) })
            {
                Matrix($"{prefix}{name}.weight", width, shape.Hidden);
                if (shape.Architecture == "qwen2")
                    Bias($"{prefix}{name}.bias", width);
            }
            Matrix(prefix + "attn_output.weight", shape.Hidden, queries);
            if (shape.Architecture == "qwen3moe")
            {
                Ones(prefix + "attn_q_norm.weight", shape.HeadDim);
                Ones(prefix + "attn_k_norm.weight", shape.HeadDim);
            }
            Ones(prefix + "ffn_norm.weight", shape.Hidden);
            if (shape.Experts > 0)
                tensors.Add(random.Matrix(prefix + "ffn_gate_inp.weight", DType.F32, shape.Experts, shape.Hidden));
            FeedForward(prefix + "ffn_gate", shape.FeedForward, shape.Hidden);
            FeedForward(prefix + "ffn_up", shape.FeedForward, shape.Hidden);
            FeedForward(prefix + "ffn_down", shape.Hidden, shape.FeedForward);
        }
        Ones("output_norm.weight", shape.Hidden);
        if (!shape.Tied)
            Matrix("output.weight", shape.Vocabulary, shape.Hidden, ofLayer: false);
        GgufWriter.Write(path, [.. Metadata(shape, recipe), .. Tokenizer(shape)], tensors, cancellationToken: cancellationToken);
    }

    private static List<KeyValuePair<string, object>> Metadata(SyntheticShape shape, QuantizationRecipe recipe)
    {
        string prefix = shape.Architecture + ".";
        List<KeyValuePair<string, object>> experts = shape.Experts == 0 ? [] :
        [
            new(prefix + "expert_count", (uint)shape.Experts),
            new(prefix + "expert_used_count", (uint)shape.ExpertsPerToken),
            new(prefix + "expert_feed_forward_length", (uint)shape.FeedForward),
        ];
        return
        [
            .. experts,
            new(GgufVocabulary.ArchitectureKey, shape.Architecture),
            new("general.name", "synthetic"),
            new(prefix + "context_length", (uint)shape.Context),
            new(prefix + "embedding_length", (uint)shape.Hidden),
            new(prefix + "block_count", (uint)shape.Layers),
            new(prefix + "feed_forward_length", (uint)shape.FeedForward),
            new(prefix + "attention.head_count", (uint)shape.Heads),
            new(prefix + "attention.head_count_kv", (uint)shape.KvHeads),
            new(prefix + "attention.key_length", (uint)shape.HeadDim),
            new(prefix + "attention.value_length", (uint)shape.HeadDim),
            new(prefix + "attention.layer_norm_rms_epsilon", 1e-5f),
            new(prefix + "rope.freq_base", shape.RopeTheta),
            new(prefix + "rope.dimension_count", (uint)shape.HeadDim),
            new(prefix + "vocab_size", (uint)shape.Vocabulary),
            new("general.file_type", recipe.FileType),
            new("general.quantization_version", 2u),
        ];
    }

    /// <summary>A byte-level vocabulary: the 256 bytes, one merge, fillers, and two control tokens at the end.</summary>
    private static KeyValuePair<string, object>[] Tokenizer(SyntheticShape shape)
    {
        var tokens = new string[shape.Vocabulary];
        var types = new int[shape.Vocabulary];
        Array.Fill(types, TokenizerMetadata.Normal);
        for (int value = 0; value < 256; value++)
            tokens[value] = ByteLevelCharacter(value).ToString();
        tokens[256] = ByteLevelCharacter(' ') + "t";
        for (int id = 257; id < tokens.Length - SpecialTokens; id++)
            tokens[id] = string.Create(CultureInfo.InvariantCulture, $"filler{id}");
        int eos = tokens.Length - 1, bos = eos - 1;
        (tokens[bos], tokens[eos]) = ("<|begin|>", "<|end|>");
        types[bos] = types[eos] = TokenizerMetadata.Control;
        return
        [
            new("tokenizer.ggml.model", "gpt2"),
            new("tokenizer.ggml.pre", shape.Architecture.StartsWith("qwen", StringComparison.Ordinal) ? "qwen2" : "llama-bpe"),
            new("tokenizer.ggml.tokens", tokens),
            new("tokenizer.ggml.token_type", types),
            new("tokenizer.ggml.merges", (string[])[ByteLevelCharacter(' ') + " t"]),
            new("tokenizer.ggml.bos_token_id", (uint)bos),
            new("tokenizer.ggml.eos_token_id", (uint)eos),
            new("tokenizer.ggml.add_bos_token", !shape.Architecture.StartsWith("qwen", StringComparison.Ordinal)),
        ];
    }

    /// <summary>GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on, in order.</summary>
    private static char ByteLevelCharacter(int value)
    {
        static bool Printable(int candidate) => candidate is (>= 33 and <= 126) or (>= 161 and <= 172) or (>= 174 and <= 255);
        return Printable(value) ? (char)value : (char)(256 + Enumerable.Range(0, value).Count(static other => !Printable(other)));
    }
}
