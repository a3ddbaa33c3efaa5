using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Writing;

namespace Host.Tests;

/// <summary>Models whose layers differ, and masks beside dense ones, at the command line.</summary>
public sealed class PrunedTests : IDisposable
{
    private const int Hidden = 32, HeadDim = 8, Vocabulary = 64;

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void InspectShowsWhatLayersHave()
    {
        string model = Write("pruned", (4, 2, 40), (2, 1, 24), (0, 0, 40));
        JsonElement plan = HostProcess.Run("inspect", "-m", model, "--json").Json.GetProperty("plan");
        Assert.Equal(
            [(4, 2, 40), (2, 1, 24), (0, 0, 40)],
            plan.GetProperty("layer_shapes").EnumerateArray().Select(static layer =>
                (layer.GetProperty("heads").GetInt32(), layer.GetProperty("kv_heads").GetInt32(), layer.GetProperty("feed_forward_width").GetInt32())));
        Assert.Equal(2, plan.GetProperty("kv_slots").GetInt32());
        Assert.Contains(
            "layers differ: heads 2–4/1–2, feed-forward 24–40; 1 without attention", HostProcess.Run("inspect", "-m", model).Output, StringComparison.Ordinal);
        JsonElement alike = HostProcess.Run("inspect", "-m", Write("alike", (4, 2, 40), (4, 2, 40)), "--json").Json.GetProperty("plan");
        Assert.False(alike.TryGetProperty("layer_shapes", out _));
        string gguf = folder.File("pruned.gguf");
        HostProcess.Run("convert", "-m", model, "-o", gguf, "-f", "F32", "--json");
        Assert.Equal(3, HostProcess.Run("inspect", "-m", gguf, "--json").Json.GetProperty("plan").GetProperty("layer_shapes").GetArrayLength());
        Assert.Equal(3, HostProcess.Run("logits", "-m", model, "--ids", "1,2,3", "--json").Json.GetProperty("prefill").GetArrayLength());
    }

    [Fact]
    public void MasksAreNamedOrLieInTheFolder()
    {
        string model = Write("dense", (4, 4, 32), (4, 4, 32)), masks = folder.File("mask.npz");
        using (ZipArchive archive = ZipFile.Open(masks, ZipArchiveMode.Create))
        {
            using Stream entry = archive.CreateEntry("model.layers.1.self_attn.q_proj.weight.mask.npy").Open();
            string header = $"{{'descr': '|u1', 'fortran_order': False, 'shape': ({Hidden * Hidden / 8},), }}".PadRight(117) + "\n";
            entry.Write([0x93, .. "NUMPY"u8, 1, 0, (byte)header.Length, 0, .. Encoding.Latin1.GetBytes(header), .. Enumerable.Repeat((byte)0b0101_1100, Hidden * Hidden / 8)]);
        }
        string dense = Logits(), named = Logits("--mask", masks);
        Assert.NotEqual(dense, named);
        File.Copy(masks, Path.Combine(model, "mask_compressed.npz"));
        Assert.Equal(named, Logits());
        HostProcess.Run("logits", "-m", model, "-m", model, "--ids", "1", "--mask", masks).AssertFailed(2, "--mask", "one model");

        string Logits(params string[] more) =>
            HostProcess.Run(["logits", "-m", model, "--ids", "1,2,3", "--json", .. more]).Json.GetProperty("prefill").GetRawText();
    }

    /// <summary>A random llama whose layers have so many heads, key heads and neurons, and whose configuration says what most have.</summary>
    private string Write(string name, params (int Heads, int KvHeads, int Width)[] layers)
    {
        string path = folder.File(name);
        Directory.CreateDirectory(path);
        Random random = new(5);
        List<TensorSource> tensors = [];
        Add("model.embed_tokens.weight", Vocabulary, Hidden);
        for (int layer = 0; layer < layers.Length; layer++)
        {
            (int heads, int kvHeads, int width) = layers[layer];
            string prefix = $"model.layers.{layer}.";
            if (heads > 0)
            {
                Ones(prefix + "input_layernorm.weight");
                Add(prefix + "self_attn.q_proj.weight", heads * HeadDim, Hidden);
                Add(prefix + "self_attn.k_proj.weight", kvHeads * HeadDim, Hidden);
                Add(prefix + "self_attn.v_proj.weight", kvHeads * HeadDim, Hidden);
                Add(prefix + "self_attn.o_proj.weight", Hidden, heads * HeadDim);
            }
            Ones(prefix + "post_attention_layernorm.weight");
            Add(prefix + "mlp.gate_proj.weight", width, Hidden);
            Add(prefix + "mlp.up_proj.weight", width, Hidden);
            Add(prefix + "mlp.down_proj.weight", Hidden, width);
        }
        Ones("model.norm.weight");
        SafetensorsWriter.Write(Path.Combine(path, "model.safetensors"), tensors);
        File.WriteAllText(Path.Combine(path, "config.json"), new JsonObject
        {
            ["model_type"] = "llama",
            ["vocab_size"] = Vocabulary,
            ["hidden_size"] = Hidden,
            ["num_hidden_layers"] = layers.Length,
            ["num_attention_heads"] = layers.Max(static layer => layer.Heads),
            ["num_key_value_heads"] = layers.Max(static layer => layer.KvHeads),
            ["intermediate_size"] = layers.Max(static layer => layer.Width),
            ["max_position_embeddings"] = 64,
            ["rms_norm_eps"] = 1e-5,
            ["tie_word_embeddings"] = true,
        }.ToJsonString());
        return path;

        void Add(string tensor, int rows, int columns) =>
            tensors.Add(TensorSource.FromValues(tensor, [rows, columns], [.. Enumerable.Range(0, rows * columns).Select(_ => (random.NextSingle() - 0.5f) * 0.6f)]));

        void Ones(string tensor) => tensors.Add(TensorSource.FromValues(tensor, [Hidden], [.. Enumerable.Repeat(1f, Hidden)]));
    }
}
