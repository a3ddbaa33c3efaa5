using System.Globalization;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Gguf;

/// <summary>Makes the configuration that Hugging Face would have from GGUF metadata (formats.md §2.3).</summary>
internal sealed partial class GgufConfig
{
    /// <summary>Keys under the architecture's prefix that change the numbers and that no known architecture here uses, with the value that
    /// does nothing.</summary>
    private static readonly (string Key, double Neutral)[] foreignKeys =
    [
        ("logit_scale", 1), ("residual_scale", 1), ("embedding_scale", 1), ("attention.clamp_kqv", 0), ("attention.max_alibi_bias", 0),
        ("attn_logit_softcapping", 0), ("final_logit_softcapping", 0), ("attention.scale", 0), ("attention.temperature_scale", 0),
    ];

    /// <summary>llama.cpp's <c>LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX</c>; 0 is none, where the architecture decides.</summary>
    private const long SoftmaxGating = 1;

    /// <summary><c>LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX_WEIGHT</c>: a softmax over the chosen, gpt-oss' own.</summary>
    private const long SoftmaxOfChosenGating = 3;

    private const string GatingKey = "expert_gating_func";

    private readonly Checkpoint source;
    private readonly string prefix;
    private readonly JsonObject config = [];

    private GgufConfig(Checkpoint source, string architecture)
    {
        this.source = source;
        prefix = architecture + ".";
    }

    /// <summary>Builds the configuration; where the architecture is not known, just its name.</summary>
    public static JsonObject Build(Checkpoint source, GgufArchitecture? architecture, string? name)
    {
        if (name is null)
            return [];
        if (architecture is null)
            return ConfigJson.Normalize(new JsonObject { ["model_type"] = name });
        var builder = new GgufConfig(source, name);
        if (architecture.Pairing is { } pairing)
            builder.BuildLlama(architecture, pairing);
        else
            builder.BuildGpt2(architecture);
        builder.RefuseForeignKeys();
        builder.AddCommon();
        return ConfigJson.Normalize(builder.config);
    }

    private void BuildLlama(GgufArchitecture architecture, string pairing)
    {
        long experts = Integer("expert_count") ?? 0;
        long? window = Integer("attention.sliding_window");
        bool isLatent = architecture.Name == GgufArchitecture.DeepSeek2;
        // GGUF's llama stands for several families; what tells them apart is in the keys.
        config["model_type"] = architecture.Name == "llama" && experts > 0 ? "mixtral"
            : architecture.Name == "llama" && window > 0 ? "mistral"
            : architecture.ModelTypes[0];
        long hidden = Required("embedding_length"), layers = Required("block_count");
        // Layers that predict further tokens follow those of the model.
        if (isLatent && Integer("nextn_predict_layers") is > 0 and var ahead)
        {
            config["num_nextn_predict_layers"] = ahead;
            layers -= ahead;
        }
        JsonNode heads = PerLayer("attention.head_count", layers) ?? throw Missing("attention.head_count");
        config["hidden_size"] = hidden;
        config["num_hidden_layers"] = layers;
        config["num_attention_heads"] = heads;
        config["num_key_value_heads"] = PerLayer("attention.head_count_kv", layers) ?? heads.DeepClone();
        config["intermediate_size"] = PerLayer("feed_forward_length", layers) ?? throw Missing("feed_forward_length");
        config["max_position_embeddings"] = Required("context_length");
        config["rms_norm_eps"] = Number("attention.layer_norm_rms_epsilon") ?? throw Missing("attention.layer_norm_rms_epsilon");
        config["hidden_act"] = "silu";
        config["attention_bias"] = SomeLayerHas(isLatent ? "attn_kv_a_mqa.bias" : "attn_q.bias");
        config["mlp_bias"] = SomeLayerHas("ffn_up.bias") || SomeLayerHas("ffn_up_exps.bias");
        if (window > 0)
        {
            config["sliding_window"] = window;
            config["use_sliding_window"] = true;
        }
        if (experts > 0)
            BuildExperts(architecture, experts, layers);
        if (isLatent)
        {
            BuildLatent();
            if (experts > 0)
                BuildDeepSeekRouter();
            BuildRope(architecture, null, pairing);
            return;
        }
        long headDim = HeadDim(hidden, heads);
        config["head_dim"] = headDim;
        BuildRope(architecture, headDim, pairing);
    }

    private void BuildExperts(GgufArchitecture architecture, long experts, long layers)
    {
        config["num_local_experts"] = experts;
        config["num_experts_per_tok"] = Required("expert_used_count");
        config["norm_topk_prob"] = source.Metadata.GetFlag(prefix + "expert_weights_norm", source.Path) ?? architecture.NormalizesExperts;
        (string Gguf, string Hf)[] counts =
        [
            ("expert_feed_forward_length", "moe_intermediate_size"), ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            ("expert_shared_count", "n_shared_experts"), ("leading_dense_block_count", "first_k_dense_replace"),
            ("expert_group_count", "n_group"), ("expert_group_used_count", "topk_group"),
        ];
        foreach ((string gguf, string hf) in counts)
        {
            if (Integer(gguf) is { } count)
                config[hf] = count;
        }
        if (Number("expert_weights_scale") is { } scale && scale != 0)
            config["routed_scaling_factor"] = scale;
        long softmax = architecture.Name == GgufArchitecture.GptOss ? SoftmaxOfChosenGating : SoftmaxGating;
        if (architecture.Name != GgufArchitecture.DeepSeek2 && Integer(GatingKey) is { } function && function != 0 && function != softmax)
            throw new EngineException($"expected {softmax} (softmax), found {function}", source.Path, prefix + GatingKey);
        // Architectures of Qwen have no key for layers that are dense; a file that has such layers shows them.
        if (architecture.Name.StartsWith("qwen", StringComparison.Ordinal) && layers <= source.TensorNames.Count)
        {
            config["mlp_only_layers"] = new JsonArray([.. Enumerable.Range(0, (int)layers)
                .Where(layer => !Has($"blk.{layer}.ffn_gate_inp.weight")).Select(static layer => JsonValue.Create(layer))]);
        }
    }

    private void BuildGpt2(GgufArchitecture architecture)
    {
        config["model_type"] = architecture.ModelTypes[0];
        config["n_embd"] = Required("embedding_length");
        config["n_layer"] = Required("block_count");
        config["n_head"] = Required("attention.head_count");
        config["n_inner"] = Required("feed_forward_length");
        config["n_positions"] = Required("context_length");
        config["layer_norm_epsilon"] = Number("attention.layer_norm_epsilon") ?? throw Missing("attention.layer_norm_epsilon");
        config["activation_function"] = "gelu_new";
        config["conv1d_transposed"] = false;
    }

    private void AddCommon()
    {
        config["tie_word_embeddings"] = !Has("output.weight");
        long? vocabulary = source.TryGetTensor("token_embd.weight", out TensorView? embedding) ? embedding.Rows : Integer("vocab_size");
        if (vocabulary is { } size)
            config["vocab_size"] = size;
        foreach (string token in (ReadOnlySpan<string>)["bos", "eos"])
        {
            if (source.Metadata.GetInteger($"tokenizer.ggml.{token}_token_id", source.Path) is { } id)
                config[$"{token}_token_id"] = id;
        }
    }

    private void RefuseForeignKeys()
    {
        foreach ((string key, double neutral) in foreignKeys)
        {
            if (Number(key) is { } value && value != neutral)
            {
                throw new EngineException(
                    string.Create(CultureInfo.InvariantCulture, $"the value {value} changes what the model computes, and is not supported"),
                    source.Path, prefix + key);
            }
        }
    }

    private long HeadDim(long hidden, JsonNode heads)
    {
        long? key = Integer("attention.key_length"), value = Integer("attention.value_length");
        if ((key ?? value) != (value ?? key))
        {
            throw new EngineException(
                $"keys of {key} and values of {value} elements differ, which is not supported",
                source.Path, prefix + "attention.key_length");
        }
        if (key is { } length)
            return length;
        // Where layers differ, llama.cpp takes the first layer's.
        return (heads is JsonArray perLayer ? perLayer[0] : heads)!.GetValue<long>() is > 0 and var count && hidden % count == 0
            ? hidden / count
            : throw Missing("attention.key_length");
    }

    /// <summary>A number, or an array with one per layer; an array of equal numbers is that number.</summary>
    private JsonNode? PerLayer(string key, long layers)
    {
        if (source.Metadata.GetIntegers(prefix + key, source.Path) is not { } values)
            return null;
        if (values.Length == 0 || (values.Length != 1 && values.Length != layers))
            throw new EngineException($"expected {layers} entries, one per layer, found {values.Length}", source.Path, prefix + key);
        return Array.TrueForAll(values, value => value == values[0])
            ? JsonValue.Create(values[0])
            : new JsonArray([.. values.Select(static value => JsonValue.Create(value))]);
    }

    /// <summary>Of layers that differ, the first may lack the module.</summary>
    private bool SomeLayerHas(string tensor) => source.TensorNames.Any(name => name.EndsWith("." + tensor, StringComparison.Ordinal));

    private bool Has(string tensor) => source.TryGetTensor(tensor, out _);

    private long? Integer(string key) => source.Metadata.GetInteger(prefix + key, source.Path);

    private double? Number(string key) => source.Metadata.GetNumber(prefix + key, source.Path);

    private long Required(string key) => Integer(key) ?? throw Missing(key);

    private EngineException Missing(string key) => new("the metadata key is missing", source.Path, prefix + key);
}
