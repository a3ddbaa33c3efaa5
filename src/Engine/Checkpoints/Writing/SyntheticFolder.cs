using System.Collections.Frozen;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints.Writing;

/// <summary>The shape of a Hugging Face folder of random weights.</summary>
/// <param name="Backbone">Layers as they are run, and their widths.</param>
public sealed record SyntheticFolderShape(SyntheticShape Backbone)
{
    /// <summary>Depths of a Mixture-of-Recursions with expert choice and <c>middle_cycle</c> sharing; 1 for a plain model.</summary>
    public int Recursions { get; init; } = 1;

    /// <summary>Streams of a ParScale model; 0 for a model of another family.</summary>
    public int Streams { get; init; }

    /// <summary>
    /// The shapes of the papers. <c>mor-360m</c> is SmolLM-360M, plain (Bae et al. 2025, table 3), <c>mor-360m-34</c> the same with 34 layers, which is
    /// what four recursions are compared with; <c>-r2</c> to <c>-r4</c> recur. <c>parscale-1.8b-p1</c> to <c>-p8</c> are the 1.8B model of Chen et al. 2025.
    /// </summary>
    public static FrozenDictionary<string, SyntheticFolderShape> Presets { get; } = MakePresets();

    private static FrozenDictionary<string, SyntheticFolderShape> MakePresets()
    {
        var small = new SyntheticShape("llama", 32, 960, 2560, 15, 5, 64, 49152, true, 1e4f, 2048);
        var deeper = small with { Layers = 34 };
        var parscale = new SyntheticShape("qwen2_parscale", 36, 1536, 8320, 16, 2, 96, 151936, true, 1e6f, 2048);
        return new Dictionary<string, SyntheticFolderShape>
        {
            ["mor-360m"] = new(small),
            ["mor-360m-34"] = new(deeper),
            ["mor-360m-r2"] = new(small) { Recursions = 2 },
            ["mor-360m-r3"] = new(small) { Recursions = 3 },
            ["mor-360m-r4"] = new(deeper) { Recursions = 4 },
            ["parscale-1.8b-p1"] = new(parscale) { Streams = 1 },
            ["parscale-1.8b-p2"] = new(parscale) { Streams = 2 },
            ["parscale-1.8b-p4"] = new(parscale) { Streams = 4 },
            ["parscale-1.8b-p8"] = new(parscale) { Streams = 8 },
        }.ToFrozenDictionary();
    }
}

/// <summary>
/// Writes Hugging Face folders of random weights in the shapes of recursive and parallel models, without a tokenizer.
/// <para>
/// How long a token takes in a Mixture-of-Recursions depends on how deep it goes, so its routers must choose as trained ones would: depth r takes the share
/// (R − r) / R of the tokens, and only tokens that the depth before took. To have that from random weights, two elements of the residual stream are kept out of
/// everything: the embedding sets x₀ = c and x₁ = c·u, u spread evenly over (0, 1) by a hash of the token, and no layer writes to them. A recursion
/// scales the whole stream, so x₁ / x₀ stays u, and the router s·(capacity·x₀ − x₁) / c is positive exactly where u &lt; capacity.
/// </para>
/// </summary>
public static class SyntheticFolder
{
    /// <summary>Distinct values of u: the odd multiples of 1 / 256, which BF16 holds exactly and no capacity (R − r) / R hits.</summary>
    public const int Shares = 128;

    private const int PrefixTokens = 48;
    private const double Smoothing = 0.1;

    // A power of two near the deviation of the embedding, so that c·u is exact in every float type.
    private const float Constant = 1f / 32;

    // Trained scores are near 0 and 1 (Bae et al. 2025, figure 5b).
    private const float RouterSlope = 16;

    // Logits of deviation 0.1: at temperature 1 the next token is nearly uniform, as u is meant to be.
    private const float FinalGain = 0.1f;

    /// <summary>Where token <paramref name="token"/> stands among all, in (0, 1): it goes through every depth whose capacity is above.</summary>
    public static float ShareOf(int token) => (2 * (unchecked((uint)token * 2654435761u) >> 25) + 1) / 256f;

    /// <summary>Writes a folder.</summary>
    /// <param name="folder">The folder; made if it does not exist.</param>
    /// <param name="shape">What to write.</param>
    /// <param name="dtype">How matrices are stored: F32, F16 or BF16. Routers are F32.</param>
    /// <param name="seed">The same seed gives the same files.</param>
    /// <param name="cancellationToken">Ends the writing; no configuration is left behind, so nothing opens what is there.</param>
    /// <exception cref="EngineException">Writing fails.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void Write(
        string folder, SyntheticFolderShape shape, DType dtype, int seed, CancellationToken cancellationToken = default)
    {
        if (dtype is not (DType.F32 or DType.F16 or DType.BF16))
            throw new EngineException($"a folder holds F32, F16 or BF16; found {dtype}", folder);
        string config = Path.Combine(folder, "config.json");
        AtomicFile.CreateFolder(folder);
        File.Delete(config);
        SafetensorsWriter.WriteFolder(folder, Tensors(shape, dtype, seed), cancellationToken: cancellationToken);
        AtomicFile.Write(config, stream =>
        {
            using var writer = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true });
            Config(shape).WriteTo(writer);
        }, cancellationToken);
    }

    private static List<TensorSource> Tensors(SyntheticFolderShape shape, DType dtype, int seed)
    {
        SyntheticShape widths = shape.Backbone;
        var random = new SyntheticTensors(seed);
        bool routes = shape.Recursions > 1;
        SyntheticTensors.RowEdit? place = routes ? (row, stored) => Place(row, stored, dtype) : null;
        List<TensorSource> tensors = [random.Matrix("model.embed_tokens.weight", dtype, widths.Vocabulary, widths.Hidden, place)];
        foreach (string layer in LayerNames(shape))
            AddLayer(tensors, random, layer, shape, dtype);
        for (int depth = 0; routes && depth < shape.Recursions; depth++)
            tensors.Add(Router(depth, shape));
        if (shape.Streams > 1)
        {
            long hidden = widths.Hidden, streams = shape.Streams;
            tensors.Add(random.Matrix("model.aggregate_layer.0.weight", dtype, widths.Hidden, checked((int)(hidden * streams))));
            tensors.Add(random.Values("model.aggregate_layer.0.bias", dtype, [hidden], 0.1f));
            tensors.Add(random.Matrix("model.aggregate_layer.2.weight", dtype, shape.Streams, widths.Hidden));
            tensors.Add(random.Values("model.aggregate_layer.2.bias", dtype, [streams], 0.1f));
        }
        float[] gain = [.. Enumerable.Repeat(FinalGain, widths.Hidden)];
        gain[0] = gain[1] = routes ? 0 : FinalGain;
        tensors.Add(TensorSource.FromValues("model.norm.weight", [widths.Hidden], gain));
        return tensors;
    }

    /// <summary>What the names of the stored layers begin with; those that several recursions share are stored at the first.</summary>
    private static IEnumerable<string> LayerNames(SyntheticFolderShape shape)
    {
        int layers = shape.Backbone.Layers;
        if (shape.Recursions == 1)
            return Enumerable.Range(0, layers).Select(Layer);
        IEnumerable<string> shared = Enumerable.Range(0, (layers - 2) / shape.Recursions)
            .Select(static place => string.Create(CultureInfo.InvariantCulture, $"{Layer(1)}.block.{place}"));
        return [Layer(0), .. shared, Layer(shape.Recursions + 1)];
    }

    private static string Layer(int number) => string.Create(CultureInfo.InvariantCulture, $"model.layers.{number}");

    private static void AddLayer(
        List<TensorSource> tensors, SyntheticTensors random, string layer, SyntheticFolderShape shape, DType dtype)
    {
        SyntheticShape widths = shape.Backbone;
        int queries = widths.Heads * widths.HeadDim, keys = widths.KvHeads * widths.HeadDim;
        // The rows that would write to the two elements of the routers.
        SyntheticTensors.RowEdit? spare = shape.Recursions == 1 ? null : static (row, stored) =>
        {
            if (row < 2)
                stored.Clear();
        };
        tensors.Add(SyntheticTensors.Constant($"{layer}.input_layernorm.weight", widths.Hidden, 1));
        foreach ((string name, int width) in new[] { ("q_proj", queries), ("k_proj", keys), ("v_proj", keys) })
        {
            tensors.Add(random.Matrix($"{layer}.self_attn.{name}.weight", dtype, width, widths.Hidden));
            if (shape.Streams > 0)
                tensors.Add(random.Bias($"{layer}.self_attn.{name}.bias", width, dtype));
        }
        tensors.Add(random.Matrix($"{layer}.self_attn.o_proj.weight", dtype, widths.Hidden, queries, spare));
        if (shape.Streams > 1)
        {
            long[] prefix = [shape.Streams, widths.KvHeads, PrefixTokens, widths.HeadDim];
            tensors.Add(random.Values($"{layer}.self_attn.prefix_k", dtype, prefix, 1));
            tensors.Add(random.Values($"{layer}.self_attn.prefix_v", dtype, prefix, 1));
        }
        tensors.Add(SyntheticTensors.Constant($"{layer}.post_attention_layernorm.weight", widths.Hidden, 1));
        tensors.Add(random.Matrix($"{layer}.mlp.gate_proj.weight", dtype, widths.FeedForward, widths.Hidden));
        tensors.Add(random.Matrix($"{layer}.mlp.up_proj.weight", dtype, widths.FeedForward, widths.Hidden));
        tensors.Add(random.Matrix($"{layer}.mlp.down_proj.weight", dtype, widths.Hidden, widths.FeedForward, spare));
    }

    private static TensorSource Router(int depth, SyntheticFolderShape shape)
    {
        float[] weights = new float[shape.Backbone.Hidden];
        weights[0] = RouterSlope / Constant * (shape.Recursions - depth) / shape.Recursions;
        weights[1] = -RouterSlope / Constant;
        return TensorSource.FromValues($"{Layer(1 + depth)}.mor_router.router.weight", [1, weights.Length], weights);
    }

    /// <summary>Sets the first two elements of a token's embedding.</summary>
    private static void Place(int token, Span<byte> stored, DType dtype) =>
        Codec.For(dtype).Encode([Constant, Constant * ShareOf(token)], stored[..(int)dtype.RowBytes(2)]);

    private static JsonObject Config(SyntheticFolderShape shape)
    {
        SyntheticShape widths = shape.Backbone;
        JsonObject config = new()
        {
            ["architectures"] = new JsonArray(
                shape.Streams > 0 ? "Qwen2ParScaleForCausalLM" : shape.Recursions > 1 ? "MoRLlamaForCausalLM" : "LlamaForCausalLM"),
            ["model_type"] = widths.Architecture,
            ["hidden_size"] = widths.Hidden,
            ["intermediate_size"] = widths.FeedForward,
            ["num_hidden_layers"] = widths.Layers,
            ["num_attention_heads"] = widths.Heads,
            ["num_key_value_heads"] = widths.KvHeads,
            ["head_dim"] = widths.HeadDim,
            ["vocab_size"] = widths.Vocabulary,
            ["max_position_embeddings"] = widths.Context,
            ["hidden_act"] = "silu",
            ["rms_norm_eps"] = shape.Streams > 0 ? 1e-6 : 1e-5,
            ["rope_theta"] = widths.RopeTheta,
            ["rope_scaling"] = null,
            ["tie_word_embeddings"] = widths.Tied,
        };
        if (shape.Streams > 0)
        {
            config["parscale_n"] = shape.Streams;
            config["parscale_n_tokens"] = PrefixTokens;
            config["parscale_attn_smooth"] = Smoothing;
        }
        if (shape.Recursions > 1)
            config["mor"] = Recursion(shape);
        return config;
    }

    /// <summary>As the authors' runs have it: capacities are the default, (R − r) / R.</summary>
    private static JsonObject Recursion(SyntheticFolderShape shape) => new()
    {
        ["recursive"] = new JsonObject
        {
            ["enable"] = true,
            ["num_recursion"] = shape.Recursions,
            ["sharing"] = "middle_cycle",
            ["base_depth"] = (shape.Backbone.Layers - 2) / shape.Recursions,
            ["ln_share"] = true,
        },
        ["kv_sharing"] = new JsonObject { ["enable"] = false, ["update_cache"] = false },
        ["mor"] = new JsonObject
        {
            ["enable"] = true,
            ["type"] = "expert",
            ["router_type"] = "linear",
            ["rand_router"] = false,
            ["temp"] = 1.0,
            ["capacity"] = null,
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
