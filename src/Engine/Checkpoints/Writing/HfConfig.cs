using System.Globalization;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Gguf;

namespace Engine.Checkpoints.Writing;

/// <summary>A Hugging Face configuration as the GGUF metadata that llama.cpp's converter would write for it.</summary>
internal sealed partial class HfConfig(Checkpoint source)
{
    /// <summary>What PhiMoE's router takes for near, whose key in GGUF there is none of.</summary>
    private const double UsualMixing = 0.01;

    private const string GptOssType = "gpt_oss";

    private readonly JsonObject config = source.Config;

    public string ModelType => Text(config, "model_type") ?? throw Wrong("model_type", "a string");

    public bool Tied => Flag("tie_word_embeddings") ?? ModelType is "gpt2";

    public bool AdjacentPairs => Text(config, "rope_pairing") == "adjacent";

    public bool Conv1dTransposed => Flag("conv1d_transposed") ?? true;

    public int Layers => (int)Integer(ModelType == "gpt2" ? "n_layer" : "num_hidden_layers");

    public int HeadDim => (int)(Optional("head_dim") ?? Integer("hidden_size") / Integer("num_attention_heads"));

    public int VocabularySize => (int)Integer("vocab_size");

    /// <summary>Layers differ in heads or in widths.</summary>
    public bool LayersDiffer => config["num_attention_heads"] is JsonArray || config["num_key_value_heads"] is JsonArray || config["intermediate_size"] is JsonArray;

    /// <summary>Rows see no more than a window of keys.</summary>
    public bool HasWindow => config["sliding_window"] is not null && (Flag("use_sliding_window") ?? true);

    /// <summary>Width of the residual stream.</summary>
    public long HiddenSize => Integer("hidden_size");

    /// <summary>Experts of a layer, or null where the model has none.</summary>
    public long? Experts => Optional("num_experts") ?? Optional("num_local_experts") ?? Optional("n_routed_experts");

    /// <summary>The inner width of an expert.</summary>
    public long ExpertWidth => Optional("moe_intermediate_size") ?? Integer("intermediate_size");

    /// <summary>The keys of <c>general</c> and of the architecture.</summary>
    public List<KeyValuePair<string, object>> Metadata(GgufArchitecture architecture)
    {
        string name = Text(config, "_name_or_path") is { Length: > 0 } given ? given : Path.GetFileName(source.Path.TrimEnd('/', '\\'));
        var keys = new List<KeyValuePair<string, object>>
        {
            new(GgufVocabulary.ArchitectureKey, architecture.Name),
            new("general.name", name),
        };
        string prefix = architecture.Name + ".";
        void Add(string key, object value) => keys.Add(new(prefix + key, value));

        if (architecture.Pairing is null)
        {
            RequireOneOf("activation_function", "gelu_new", "gelu_pytorch_tanh");
            Refuse("scale_attn_weights", Flag("scale_attn_weights") == false);
            Refuse("scale_attn_by_inverse_layer_idx", Flag("scale_attn_by_inverse_layer_idx") == true);
            long width = Integer("n_embd");
            Add("context_length", (uint)Integer("n_positions"));
            Add("embedding_length", (uint)width);
            Add("block_count", (uint)Layers);
            Add("feed_forward_length", (uint)(Optional("n_inner") ?? 4 * width));
            Add("attention.head_count", (uint)Integer("n_head"));
            Add("attention.layer_norm_epsilon", (float)(Number(config, "layer_norm_epsilon") ?? 1e-5));
            return keys;
        }
        RequireOneOf("hidden_act", "silu");
        if (Number(config, "partial_rotary_factor") is { } part && part != 1)
            throw new EngineException($"partial rotation ({part}) cannot be converted yet", source.Path, "partial_rotary_factor");
        Refuse("max_window_layers", Flag("use_sliding_window") == true && Number(config, "max_window_layers") is not (null or 0));
        Refuse("layer_types", config["layer_types"] is JsonArray types && !AreWindowsKnown(types));
        Add("context_length", (uint)Integer("max_position_embeddings"));
        Add("embedding_length", (uint)HiddenSize);
        Add("block_count", (uint)Layers);
        Add("feed_forward_length", PerLayer("intermediate_size"));
        Add("attention.head_count", PerLayer("num_attention_heads"));
        if (architecture.Name == GgufArchitecture.DeepSeek2)
            AddLatent(Add);
        else
            AddHeads(Add);
        Add("attention.layer_norm_rms_epsilon", (float)(Number(config, "rms_norm_eps") ?? throw Wrong("rms_norm_eps", "a number")));
        Add("rope.freq_base", (float)(RopeTheta));
        Add("rope.dimension_count", (uint)RotatedDim);
        Add("vocab_size", (uint)VocabularySize);
        if (Optional("sliding_window") is { } window && (Flag("use_sliding_window") ?? true))
            Add("attention.sliding_window", (uint)window);
        if (Experts is { } experts)
            AddExperts(architecture, experts, Add);
        AddScaling(architecture, Add);
        return keys;
    }

    private void AddHeads(Action<string, object> add)
    {
        add("attention.head_count_kv", PerLayer(config["num_key_value_heads"] is null ? "num_attention_heads" : "num_key_value_heads"));
        if (config["num_attention_heads"] is JsonArray || HeadDim * Integer("num_attention_heads") != Integer("hidden_size"))
        {
            add("attention.key_length", (uint)HeadDim);
            add("attention.value_length", (uint)HeadDim);
        }
    }

    private void AddExperts(GgufArchitecture architecture, long experts, Action<string, object> add)
    {
        Refuse("clip_qkv", config["clip_qkv"] is not null);
        Refuse("decoder_sparse_step", Optional("decoder_sparse_step") is not (null or 1));
        Refuse("mlp_only_layers", config["mlp_only_layers"] is JsonArray { Count: > 0 });
        Refuse("moe_layer_freq", Optional("moe_layer_freq") is not (null or 1));
        add("expert_count", (uint)experts);
        add("expert_used_count", (uint)Integer("num_experts_per_tok"));
        if (config["moe_intermediate_size"] is not null || ModelType == GptOssType)
            add("expert_feed_forward_length", (uint)ExpertWidth);
        if (Optional("shared_expert_intermediate_size") is { } width)
            add("expert_shared_feed_forward_length", (uint)width);
        if (ModelType.StartsWith("deepseek", StringComparison.Ordinal))
        {
            add("leading_dense_block_count", (uint)(Number(config, "first_k_dense_replace") ?? 0));
            add("expert_shared_count", (uint)(Number(config, "n_shared_experts") ?? 0));
        }
        if (architecture.Name == GgufArchitecture.DeepSeek2)
            AddDeepSeekRouter(add);
        else
            AddRouter(architecture, add);
    }

    private void AddRouter(GgufArchitecture architecture, Action<string, object> add)
    {
        bool normalizes = ModelType == "mixtral" || Flag("norm_topk_prob") == true;
        Refuse("norm_topk_prob", normalizes != (architecture.NormalizesExperts ?? false));
        Refuse("routed_scaling_factor", Number(config, "routed_scaling_factor") is not (null or 1));
        Refuse("router_jitter_noise", ModelType == "phimoe" && Number(config, "router_jitter_noise") is not (null or UsualMixing));
        foreach ((string key, double usual) in (ReadOnlySpan<(string, double)>)[("swiglu_limit", 7), ("swiglu_alpha", 1.702)])
            Refuse(key, ModelType == GptOssType && Number(config, key) is { } value && value != usual);
        if (ModelType == "deepseek")
            add("expert_weights_scale", 1f);
    }

    /// <summary>GGUF says no more than the window: all layers have it, or as gpt-oss has it, the first, the third and so on.</summary>
    private bool AreWindowsKnown(JsonArray types) => ModelType == GptOssType
        ? types.Select(static (type, layer) => type?.ToString() == (layer % 2 == 0 ? "sliding_attention" : "full_attention")).All(static known => known)
        : types.Select(static type => type?.ToString()).Distinct().Count() <= 1;

    /// <summary>What changes the numbers and has no key in GGUF must not get lost on the way.</summary>
    private void Refuse(string key, bool present, string? inner = null)
    {
        if (present)
            throw new EngineException($"GGUF has no place for {inner ?? "this"}: the converted model would compute something else", source.Path, key);
    }

    private void RequireOneOf(string key, params ReadOnlySpan<string> known)
    {
        if (Text(config, key) is { } value && !known.Contains(value))
            throw new EngineException(
                $"{value} cannot be stored in GGUF; expected {string.Join(" or ", known.ToArray())}", source.Path, key);
    }

    /// <summary>A number for all layers, or an array with one for each, in which 0 is for what a layer lacks.</summary>
    private object PerLayer(string key)
    {
        if (config[key] is not JsonArray array)
            return (uint)Integer(key);
        if (array.Count != Layers)
            throw new EngineException($"expected {Layers} numbers, one per layer; found {array.Count}", source.Path, key);
        return array.Select(node => node is JsonValue value && value.TryGetValue(out long number) && number is >= 0 and <= int.MaxValue
            ? (int)number : throw Wrong(key, "whole numbers")).ToArray();
    }

    private long Integer(string key) => Optional(key) ?? throw Wrong(key, "an integer");

    private long? Optional(string key) => config[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out long number) && number is > 0 and <= int.MaxValue => number,
        _ => throw Wrong(key, "a positive integer"),
    };

    private string? Text(JsonObject from, string key) => from[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out string? text) => text,
        _ => throw Wrong(key, "a string"),
    };

    private double? Number(JsonObject from, string key) => from[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out double number) => number,
        _ => throw Wrong(key, "a number"),
    };

    private bool? Flag(string key) => config[key] switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out bool flag) => flag,
        _ => throw Wrong(key, "true or false"),
    };

    private EngineException Wrong(string key, string expected) => new(
        string.Create(CultureInfo.InvariantCulture, $"expected {expected}, found {config[key]?.ToJsonString() ?? "nothing"}"),
        source.Path, key);
}
