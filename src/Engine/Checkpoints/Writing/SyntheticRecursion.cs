using System.Collections.Frozen;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// Writes Hugging Face folders of random weights in the shapes of Mixture-of-Recursions (Bae et al. 2025, table 3: SmolLM-360M), for measurements of speed.
/// <para>How deep a token goes must not be left to chance: element 0 of the residual stream is a constant and element 1 a number u that belongs to the token, uniform in
/// [0, 1); no layer writes to either, so the loop only scales both, and the router of depth r lets in what has u below the depth's capacity. The sets are nested and
/// have the trained sizes.</para>
/// </summary>
public static class SyntheticRecursion
{
    private const int Hidden = 960, Heads = 15, KvHeads = 5, HeadDim = 64, FeedForward = 2560, Vocabulary = 49152, Context = 2048;

    /// <summary>The constant element, of the size of the others; u is a part of it.</summary>
    private const float Constant = 0.0625f;

    /// <summary>Shapes by name: unrolled layers and recursions; the vanilla models have one recursion.</summary>
    public static FrozenDictionary<string, (int Layers, int Recursions)> Presets { get; } = new Dictionary<string, (int, int)>
    {
        ["360m-l32"] = (32, 1),
        ["360m-l34"] = (34, 1),
        ["mor-360m-r2"] = (32, 2),
        ["mor-360m-r3"] = (32, 3),
        ["mor-360m-r4"] = (34, 4),
    }.ToFrozenDictionary();

    /// <summary>Writes config.json and model.safetensors in BF16, shared layers once.</summary>
    /// <param name="folder">The folder; made if it does not exist.</param>
    /// <param name="layers">Unrolled layers.</param>
    /// <param name="recursions">1 for a plain llama; otherwise middle_cycle with expert choice, a linear router and recursion-wise keys and values.</param>
    /// <param name="seed">The same seed gives the same files.</param>
    /// <exception cref="EngineException">Writing fails.</exception>
    public static void WriteFolder(string folder, int layers, int recursions, int seed)
    {
        var tensors = new List<TensorSource> { Embedding(seed) };
        int perDepth = (layers - 2) / recursions;
        if (recursions == 1)
        {
            for (int layer = 0; layer < layers; layer++)
            {
                AddLayer(tensors, Name($"model.layers.{layer}"), seed);
            }
        }
        else
        {
            AddLayer(tensors, "model.layers.0", seed);
            for (int place = 0; place < perDepth; place++)
            {
                AddLayer(tensors, Name($"model.layers.1.block.{place}"), seed);
            }
            for (int depth = 0; depth < recursions; depth++)
            {
                var router = new float[Hidden];
                (router[0], router[1]) = (16f * (recursions - depth) / recursions, -16f);
                tensors.Add(TensorSource.FromValues(Name($"model.layers.{1 + depth}.mor_router.router.weight"), [1, Hidden], router, DType.BF16));
            }
            AddLayer(tensors, Name($"model.layers.{recursions + 1}"), seed);
        }
        tensors.Add(Gain("model.norm.weight"));
        SafetensorsWriter.WriteFolder(folder, tensors);
        AtomicFile.Write(Path.Combine(folder, "config.json"), stream => stream.Write(Encoding.UTF8.GetBytes(
            Config(layers, recursions).ToJsonString(new JsonSerializerOptions { WriteIndented = true }))));
    }

    /// <summary>The u of a token: the low bits of a multiplicative hash (Knuth 1998, section 6.4).</summary>
    private static float Share(int token) => (unchecked((uint)token * 2654435769u) >> 8) / (float)(1 << 24);

    private static void AddLayer(List<TensorSource> tensors, string name, int seed)
    {
        tensors.Add(Gain($"{name}.input_layernorm.weight"));
        tensors.Add(Matrix($"{name}.self_attn.q_proj.weight", Heads * HeadDim, Hidden, seed));
        tensors.Add(Matrix($"{name}.self_attn.k_proj.weight", KvHeads * HeadDim, Hidden, seed));
        tensors.Add(Matrix($"{name}.self_attn.v_proj.weight", KvHeads * HeadDim, Hidden, seed));
        tensors.Add(Matrix($"{name}.self_attn.o_proj.weight", Hidden, Heads * HeadDim, seed, zeroRows: 2));
        tensors.Add(Gain($"{name}.post_attention_layernorm.weight"));
        tensors.Add(Matrix($"{name}.mlp.gate_proj.weight", FeedForward, Hidden, seed));
        tensors.Add(Matrix($"{name}.mlp.up_proj.weight", FeedForward, Hidden, seed));
        tensors.Add(Matrix($"{name}.mlp.down_proj.weight", Hidden, FeedForward, seed, zeroRows: 2));
    }

    private static TensorSource Gain(string name) => TensorSource.FromValues(name, [Hidden], [.. Enumerable.Repeat(1f, Hidden)], DType.BF16);

    private static TensorSource Matrix(string name, int rows, int columns, int seed, int zeroRows = 0) =>
        Rows(name, rows, columns, seed, (row, values) =>
        {
            if (row < zeroRows)
            {
                values.Clear();
            }
        });

    private static TensorSource Embedding(int seed) => Rows("model.embed_tokens.weight", Vocabulary, Hidden, seed, static (token, values) =>
    {
        values[0] = Constant;
        values[1] = Constant * Share(token);
    });

    private static TensorSource Rows(string name, int rows, int columns, int seed, RowChange change) =>
        new(name, DType.BF16, [rows, columns], stream =>
        {
            // By name, or all layers would be the same, and the engine would keep one.
            var random = new Random(name.Aggregate(seed, static (hash, character) => unchecked(hash * 31 + character)));
            var values = new float[columns];
            var bytes = new byte[columns * 2];
            float size = MathF.Sqrt(12f / columns);
            for (int row = 0; row < rows; row++)
            {
                for (int i = 0; i < columns; i++)
                {
                    values[i] = size * (random.NextSingle() - 0.5f);
                }
                change(row, values);
                Codec.For(DType.BF16).Encode(values, bytes);
                stream.Write(bytes);
            }
        });

    private static JsonObject Config(int layers, int recursions)
    {
        var config = new JsonObject
        {
            ["architectures"] = new JsonArray(recursions == 1 ? "LlamaForCausalLM" : "MoRLlamaForCausalLM"),
            ["model_type"] = "llama",
            ["vocab_size"] = Vocabulary,
            ["hidden_size"] = Hidden,
            ["intermediate_size"] = FeedForward,
            ["num_hidden_layers"] = layers,
            ["num_attention_heads"] = Heads,
            ["num_key_value_heads"] = KvHeads,
            ["head_dim"] = HeadDim,
            ["max_position_embeddings"] = Context,
            ["rms_norm_eps"] = 1e-5,
            ["rope_theta"] = 10000.0,
            ["tie_word_embeddings"] = true,
            ["torch_dtype"] = "bfloat16",
        };
        if (recursions > 1)
        {
            config["mor"] = new JsonObject
            {
                ["recursive"] = new JsonObject { ["enable"] = true, ["num_recursion"] = recursions, ["sharing"] = "middle_cycle", ["ln_share"] = true },
                ["kv_sharing"] = new JsonObject { ["enable"] = false },
                ["mor"] = new JsonObject
                {
                    ["enable"] = true,
                    ["type"] = "expert",
                    ["router_type"] = "linear",
                    ["expert"] = new JsonObject
                    {
                        ["router_func"] = "sigmoid",
                        ["alpha"] = 0.1,
                        ["sampling"] = "aux_loss",
                        ["gating"] = "weighted",
                    },
                },
            };
        }
        return config;
    }

    private static string Name(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private delegate void RowChange(int row, Span<float> values);
}
