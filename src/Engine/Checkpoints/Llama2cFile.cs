using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints;

/// <summary>
/// A llama2.c checkpoint, version 0: seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a negative
/// vocab_size says that the head is not the embedding), then float32 tensors in a fixed order, each kind for all layers. Source:
/// karpathy/llama2.c, <c>run.c</c>. Queries and keys are stored for adjacent rotary pairs, which the configuration states as
/// <c>rope_pairing</c> (see <see cref="GgufVocabulary"/>).
/// </summary>
public sealed unsafe class Llama2cFile : Checkpoint
{
    private const int HeaderBytes = 7 * sizeof(int);
    private readonly MappedFile file;
    private readonly OrderedDictionary<string, TensorView> tensors = [];
    private JsonObject config = [];
    private long offset = HeaderBytes;

    private Llama2cFile(MappedFile file) => this.file = file;

    /// <inheritdoc/>
    public override string Path => file.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <inheritdoc/>
    public override JsonObject Config => config;

    /// <summary>Opens a file.</summary>
    /// <exception cref="EngineException">The header is implausible or the length does not fit it.</exception>
    public static Llama2cFile Open(string path)
    {
        var checkpoint = new Llama2cFile(MappedFile.Open(path));
        try
        {
            checkpoint.Read();
            return checkpoint;
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

    /// <summary>Reads a sibling file. <c>tokenizer.bin</c> stands for the vocabulary of the model: <c>tok512.bin</c> for 512 tokens, where
    /// there is one.</summary>
    public override byte[]? ReadAsset(string fileName)
    {
        string folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(Path))!;
        byte[]? sized = fileName == "tokenizer.bin" ? HfAssets.Read(folder, $"tok{Config["vocab_size"]}.bin") : null;
        return sized ?? HfAssets.Read(folder, fileName);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            file.Dispose();
        base.Dispose(disposing);
    }

    private void Read()
    {
        if (file.Length < HeaderBytes)
            throw new EngineException($"the file has {file.Length} bytes, too few for a llama2.c header", Path);
        ReadOnlySpan<int> header = MemoryMarshal.Cast<byte, int>(file.Slice(0, HeaderBytes));
        long dim = header[0], hidden = header[1], layers = header[2], heads = header[3], kvHeads = header[4];
        long vocabulary = Math.Abs((long)header[5]), context = header[6];
        bool tied = header[5] > 0;
        foreach (int value in header)
        {
            if (value == 0 || (value < 0 && value != header[5]) || Math.Abs((long)value) > 1 << 24)
                throw new EngineException($"this is no llama2.c version 0 header: [{string.Join(", ", header.ToArray())}]", Path);
        }
        if (dim % heads != 0 || heads % kvHeads != 0 || dim / heads % 2 != 0 || layers > 1 << 12)
            throw new EngineException(
                $"{dim} dimensions, {layers} layers, {heads} heads and {kvHeads} key/value heads do not fit together", Path);

        long kvDim = dim / heads * kvHeads;
        One("model.embed_tokens.weight", [vocabulary, dim]);
        EachLayer(layers, "input_layernorm", [dim]);
        EachLayer(layers, "self_attn.q_proj", [dim, dim]);
        EachLayer(layers, "self_attn.k_proj", [kvDim, dim]);
        EachLayer(layers, "self_attn.v_proj", [kvDim, dim]);
        EachLayer(layers, "self_attn.o_proj", [dim, dim]);
        EachLayer(layers, "post_attention_layernorm", [dim]);
        EachLayer(layers, "mlp.gate_proj", [hidden, dim]);
        EachLayer(layers, "mlp.down_proj", [dim, hidden]);
        EachLayer(layers, "mlp.up_proj", [hidden, dim]);
        One("model.norm.weight", [dim]);
        // Two tables of rotary cosines and sines, which newer readers compute for themselves.
        offset += 2 * context * (dim / heads / 2) * sizeof(float);
        if (!tied)
            One("lm_head.weight", [vocabulary, dim]);
        if (offset != file.Length)
            throw new EngineException($"the header describes {offset} bytes, the file has {file.Length}", Path);

        config = ConfigJson.Normalize(new JsonObject
        {
            ["model_type"] = "llama",
            ["hidden_size"] = dim,
            ["intermediate_size"] = hidden,
            ["num_hidden_layers"] = layers,
            ["num_attention_heads"] = heads,
            ["num_key_value_heads"] = kvHeads,
            ["head_dim"] = dim / heads,
            ["vocab_size"] = vocabulary,
            ["max_position_embeddings"] = context,
            ["rms_norm_eps"] = 1e-5,
            ["rope_theta"] = 10000.0,
            ["rope_pairing"] = "adjacent",
            ["hidden_act"] = "silu",
            ["attention_bias"] = false,
            ["mlp_bias"] = false,
            ["tie_word_embeddings"] = tied,
            ["bos_token_id"] = 1,
            ["eos_token_id"] = 2,
        });
    }

    private void EachLayer(long layers, string name, long[] shape)
    {
        for (int layer = 0; layer < layers; layer++)
            One($"model.layers.{layer}.{name}.weight", shape);
    }

    private void One(string name, long[] shape)
    {
        long bytes = DType.F32.TryByteLength(shape)!.Value;
        if (bytes > file.Length - offset)
            throw new EngineException($"the file ends inside the tensor: {bytes} bytes at {offset} of {file.Length}", Path, name);
        tensors.Add(name, new TensorView(name, DType.F32, shape, (nint)(file.Address + offset), bytes, file));
        offset += bytes;
    }
}
