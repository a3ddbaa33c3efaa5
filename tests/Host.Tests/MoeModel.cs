using System.Text.Json.Nodes;
using Engine.Checkpoints.Writing;

namespace Host.Tests;

/// <summary>A small random mixture of experts on disk, Mixtral, OLMoE or RMoE by its names, with a tokenizer of bytes.</summary>
internal sealed record MoeModel
{
    public const int Layers = 3, Hidden = 32, Vocabulary = 256;

    public int Experts { get; init; } = 6;

    public int PerToken { get; init; } = 2;

    /// <summary>Inner width of an expert; a multiple of what packed weights are padded to, so that they take as much as stored ones.</summary>
    public int Width { get; init; } = 32;

    /// <summary>Weights are normalised (Mixtral), or not (OLMoE).</summary>
    public bool Normalised { get; init; } = true;

    /// <summary>Width of the state of recurrent routers (RMoE, whose weights are normalised); null where routers have none.</summary>
    public int? RouterState { get; init; }

    /// <summary>The router of this layer outputs zeros: ties go to the lowest index, so that always the first experts are chosen.</summary>
    public int? FixedLayer { get; init; }

    /// <summary>The first of every expert's neurons, as many as this, are zero.</summary>
    public int Pruned { get; init; }

    /// <summary>Bytes of one expert, in F32.</summary>
    public long ExpertBytes => 3L * Hidden * Width * sizeof(float);

    /// <summary>Writes config.json, model.safetensors and tokenizer.json into a new folder.</summary>
    public string Write(TemporaryFolder folder, string name)
    {
        string path = folder.File(name), module = Normalised ? "block_sparse_moe" : "mlp";
        Directory.CreateDirectory(path);
        Random random = new(7);
        List<TensorSource> tensors = [];
        Add("model.embed_tokens.weight", 1, Vocabulary, Hidden);
        for (int layer = 0; layer < Layers; layer++)
        {
            string prefix = $"model.layers.{layer}";
            foreach (string projection in new[] { "q", "k", "v", "o" })
            {
                Add($"{prefix}.self_attn.{projection}_proj.weight", 0.2f, Hidden, Hidden);
            }
            foreach (string norm in (string[])["input_layernorm", "post_attention_layernorm", .. Normalised ? Array.Empty<string>() : ["self_attn.q_norm", "self_attn.k_norm"]])
            {
                Ones($"{prefix}.{norm}.weight");
            }
            if (RouterState is { } width)
            {
                Add($"{prefix}.{module}.weight1", 0.5f, width, Hidden);
                Add($"{prefix}.{module}.weight2", 0.5f, Experts, width);
            }
            else
            {
                Add($"{prefix}.{module}.gate.weight", layer == FixedLayer ? 0 : 0.5f, Experts, Hidden);
            }
            for (int expert = 0; expert < Experts; expert++)
            {
                string[] names = Normalised ? ["w1", "w3", "w2"] : ["gate_proj", "up_proj", "down_proj"];
                Add($"{prefix}.{module}.experts.{expert}.{names[0]}.weight", 0.2f, Width, Hidden, (row, _) => row < Pruned);
                Add($"{prefix}.{module}.experts.{expert}.{names[1]}.weight", 0.2f, Width, Hidden, (row, _) => row < Pruned);
                Add($"{prefix}.{module}.experts.{expert}.{names[2]}.weight", 0.2f, Hidden, Width, (_, column) => column < Pruned);
            }
        }
        foreach (string gate in RouterState is null ? (string[])[] : ["ir", "iz", "in", "hr", "hz", "hn"])
        {
            Add($"model.rnn_router.weight_{gate}", 0.5f, RouterState!.Value, RouterState.Value);
            tensors.Add(TensorSource.FromValues($"model.rnn_router.bias_{gate}", [RouterState.Value], new float[RouterState.Value]));
        }
        Ones("model.norm.weight");
        Add("lm_head.weight", 0.2f, Vocabulary, Hidden);
        SafetensorsWriter.Write(Path.Combine(path, "model.safetensors"), tensors);
        JsonObject config = new()
        {
            ["model_type"] = RouterState is not null ? "llama_moe_rnn" : Normalised ? "mixtral" : "olmoe",
            ["vocab_size"] = Vocabulary,
            ["hidden_size"] = Hidden,
            ["num_hidden_layers"] = Layers,
            ["num_attention_heads"] = 4,
            ["num_key_value_heads"] = 4,
            ["intermediate_size"] = Width,
            [Normalised ? "num_local_experts" : "num_experts"] = Experts,
            ["num_experts_per_tok"] = PerToken,
            ["max_position_embeddings"] = 64,
            ["rms_norm_eps"] = 1e-5,
            ["rope_theta"] = 10000.0,
            ["hidden_act"] = "silu",
            ["tie_word_embeddings"] = false,
        };
        if (!Normalised)
        {
            config["norm_topk_prob"] = false;
        }
        if (RouterState is not null)
        {
            config["moe_num_layers"] = Layers;
            config["moe_router_type"] = "gru";
            config["moe_router_rnn_hidden_size"] = RouterState;
        }
        File.WriteAllText(Path.Combine(path, "config.json"), config.ToJsonString());
        File.WriteAllText(Path.Combine(path, "tokenizer.json"), GoldenModel.ByteTokenizer(Vocabulary));
        return path;

        void Add(string tensor, float size, int rows, int columns, Func<int, int, bool>? zero = null) => tensors.Add(TensorSource.FromValues(
            tensor, [rows, columns], [.. Enumerable.Range(0, rows * columns).Select(i =>
            {
                float value = size * (2 * random.NextSingle() - 1);
                return zero?.Invoke(i / columns, i % columns) == true ? 0 : value;
            })]));

        void Ones(string tensor) => tensors.Add(TensorSource.FromValues(tensor, [Hidden], [.. Enumerable.Repeat(1f, Hidden)]));
    }
}
