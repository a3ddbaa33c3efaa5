using System.Collections.Immutable;
using System.Globalization;

namespace Engine.Checkpoints.Gguf;

/// <summary>How a GGUF architecture and Hugging Face name the same things.</summary>
/// <param name="Name">GGUF's <c>general.architecture</c>.</param>
/// <param name="ModelTypes">Hugging Face's <c>model_type</c>s that GGUF stores as this architecture; the first is what a GGUF file is
/// presented as.</param>
/// <param name="Pairing">Which elements of a head rotate together as GGUF stores q and k, as the configuration key <c>rope_pairing</c>
/// says it; null where positions are learned.</param>
/// <param name="LayerPrefix">What stands for GGUF's <c>blk.</c>.</param>
/// <param name="Names">Pairs (GGUF, Hugging Face) of modules outside the layers.</param>
/// <param name="LayerNames">
/// Pairs (GGUF, Hugging Face) of modules inside a layer, or of whole tensors where their last parts differ; <c>*</c> stands for an expert's number. Of several
/// pairs with the same GGUF name, the first is what a GGUF file is presented with.
/// </param>
/// <param name="NormalizesExperts">llama.cpp divides the weights of experts by their sum; null where there are no experts, or the family has no choice.</param>
/// <param name="Permutes">The rows of Hugging Face's q and k are brought to another order (formats.md §2.3).</param>
internal sealed record GgufArchitecture(
    string Name,
    ImmutableArray<string> ModelTypes,
    string? Pairing,
    string LayerPrefix,
    ImmutableArray<(string Gguf, string Hf)> Names,
    ImmutableArray<(string Gguf, string Hf)> LayerNames,
    bool? NormalizesExperts = null,
    bool Permutes = false)
{
    /// <summary>Elements (2i, 2i + 1) rotate together.</summary>
    public const string AdjacentPairs = "adjacent";

    /// <summary>Elements (i, i + dimensions / 2) rotate together.</summary>
    public const string HalfPairs = "halves";

    /// <summary>GGUF's name of a shared expert's gate, which it stores as a vector: Hugging Face has a matrix of one row.</summary>
    public const string SharedGate = "ffn_gate_inp_shexp";

    /// <summary>The name of gpt-oss' architecture.</summary>
    public const string GptOss = "gpt-oss";

    /// <summary>The name of the architecture whose layers may differ in heads and widths, or lack sublayers: otherwise it is llama's.</summary>
    public const string Deci = "deci";

    /// <summary>The name of DeepSeek-V2's and -V3's architecture.</summary>
    public const string DeepSeek2 = "deepseek2";

    private const string GgufLayerPrefix = "blk.";

    private const string AnyNumber = "*";

    private static readonly ImmutableArray<(string, string)> llamaNames =
        [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

    private static readonly ImmutableArray<(string, string)> llamaLayerNames =
    [
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];

    private static readonly ImmutableArray<(string, string)> expertNames =
    [
        ("ffn_gate_inp", "mlp.gate"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
        // One tensor per expert: Mixtral in files from before April 2024.
        ("ffn_gate.*", "mlp.experts.*.gate_proj"),
        ("ffn_up.*", "mlp.experts.*.up_proj"),
        ("ffn_down.*", "mlp.experts.*.down_proj"),
    ];

    // llama.cpp calls the second norm of this architecture by the name that others give to one behind attention.
    private static readonly ImmutableArray<(string, string)> gptOssNames =
        [("post_attention_norm", "post_attention_layernorm"), ("attn_sinks.weight", "self_attn.sinks"), ("ffn_gate_inp", "mlp.router")];

    // Files of before 2025-04 have attn_kv_b; later ones have its two halves, the keys' transposed: [heads, kv_lora_rank, qk_nope_head_dim].
    private static readonly ImmutableArray<(string, string)> latentNames =
    [
        ("attn_q_a", "self_attn.q_a_proj"),
        ("attn_q_a_norm", "self_attn.q_a_layernorm"),
        ("attn_q_b", "self_attn.q_b_proj"),
        ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
        ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
        ("attn_kv_b", "self_attn.kv_b_proj"),
        ("attn_k_b", "self_attn.k_b_proj"),
        ("attn_v_b", "self_attn.v_b_proj"),
        ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
        // Layers that predict further tokens.
        ("nextn.eh_proj", "eh_proj"),
        ("nextn.embed_tokens", "embed_tokens"),
        ("nextn.enorm", "enorm"),
        ("nextn.hnorm", "hnorm"),
        ("nextn.shared_head_head", "shared_head.head"),
        ("nextn.shared_head_norm", "shared_head.norm"),
    ];

    private static readonly ImmutableArray<(string, string)> mixtralNames =
    [
        ("ffn_gate_inp", "block_sparse_moe.gate"),
        ("ffn_gate.*", "block_sparse_moe.experts.*.w1"),
        ("ffn_up.*", "block_sparse_moe.experts.*.w3"),
        ("ffn_down.*", "block_sparse_moe.experts.*.w2"),
    ];

    /// <summary>All architectures whose names are known.</summary>
    public static ImmutableArray<GgufArchitecture> All { get; } =
    [
        new(
            "llama", ["llama", "mistral", "mixtral"], AdjacentPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, .. expertNames, .. mixtralNames], NormalizesExperts: true, Permutes: true),
        new(
            Deci, ["deci", "nemotron-nas"], AdjacentPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, ("attn_output", "self_attn.linear_attn")], Permutes: true),
        new("qwen2", ["qwen2"], HalfPairs, "model.layers.", llamaNames, llamaLayerNames),
        new("qwen3", ["qwen3"], HalfPairs, "model.layers.", llamaNames, llamaLayerNames),
        new(
            "qwen2moe", ["qwen2_moe"], HalfPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, .. expertNames, .. SharedExpert("mlp.shared_expert"), (SharedGate, "mlp.shared_expert_gate")], NormalizesExperts: false),
        new(
            "qwen3moe", ["qwen3_moe"], HalfPairs, "model.layers.", llamaNames, [.. llamaLayerNames, .. expertNames], NormalizesExperts: true),
        new("olmoe", ["olmoe"], HalfPairs, "model.layers.", llamaNames, [.. llamaLayerNames, .. expertNames], NormalizesExperts: false),
        new(
            "deepseek", ["deepseek"], AdjacentPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, .. expertNames, .. SharedExpert("mlp.shared_experts")], NormalizesExperts: false, Permutes: true),
        new(
            DeepSeek2, ["deepseek_v2", "deepseek_v3"], AdjacentPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, .. latentNames, .. expertNames, .. SharedExpert("mlp.shared_experts")], NormalizesExperts: false),
        new(
            "phimoe", ["phimoe"], HalfPairs, "model.layers.", llamaNames,
            [.. llamaLayerNames, .. expertNames, .. mixtralNames, ("ffn_gate_inp", "mlp.router")]),
        new(GptOss, ["gpt_oss"], HalfPairs, "model.layers.", llamaNames, [.. gptOssNames, .. llamaLayerNames, .. expertNames]),
        new(
            "gpt2", ["gpt2"], null, "transformer.h.",
            [
                ("token_embd", "transformer.wte"), ("position_embd", "transformer.wpe"), ("output_norm", "transformer.ln_f"),
                ("output", "lm_head"),
            ],
            [
                ("attn_norm", "ln_1"), ("attn_qkv", "attn.c_attn"), ("attn_output", "attn.c_proj"),
                ("ffn_norm", "ln_2"), ("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj"),
            ]),
    ];

    /// <summary>Hugging Face's name of a GGUF tensor, or null where this architecture has no such tensor.</summary>
    public string? ToHf(string tensor) => Rename(
        tensor, GgufLayerPrefix, LayerPrefix, Names, LayerNames, static pair => pair.Gguf, static pair => pair.Hf);

    /// <summary>GGUF's name of a Hugging Face tensor, or null where this architecture has no such tensor.</summary>
    public string? ToGguf(string tensor) => Rename(
        tensor, LayerPrefix, GgufLayerPrefix, Names, LayerNames, static pair => pair.Hf, static pair => pair.Gguf);

    private static ImmutableArray<(string, string)> SharedExpert(string module) =>
    [
        ("ffn_gate_shexp", $"{module}.gate_proj"), ("ffn_up_shexp", $"{module}.up_proj"), ("ffn_down_shexp", $"{module}.down_proj"),
    ];

    private static string? Rename(
        string tensor,
        string fromPrefix,
        string toPrefix,
        ImmutableArray<(string Gguf, string Hf)> names,
        ImmutableArray<(string Gguf, string Hf)> layerNames,
        Func<(string Gguf, string Hf), string> from,
        Func<(string Gguf, string Hf), string> to)
    {
        // A tensor is a module and a parameter: blk.3.attn_q + weight. A few are named as a whole.
        int parameterDot = tensor.LastIndexOf('.');
        bool hasParameter = parameterDot >= 0 && tensor[(parameterDot + 1)..] is "weight" or "bias";
        string parameter = hasParameter ? tensor[parameterDot..] : "", module = tensor[..^parameter.Length];
        foreach ((string Gguf, string Hf) pair in names)
        {
            if (hasParameter && from(pair) == module)
                return to(pair) + parameter;
        }

        if (!module.StartsWith(fromPrefix, StringComparison.Ordinal))
            return null;
        string inLayers = module[fromPrefix.Length..];
        int layerDot = inLayers.IndexOf('.', StringComparison.Ordinal);
        if (layerDot < 0 || !int.TryParse(inLayers.AsSpan(0, layerDot), NumberStyles.None, CultureInfo.InvariantCulture, out int layer))
            return null;
        string[] inLayer = inLayers[(layerDot + 1)..].Split('.');
        int numbered = Array.FindIndex(inLayer, static part => part.Length > 0 && part.All(char.IsAsciiDigit));
        string number = numbered < 0 ? "" : inLayer[numbered];
        if (numbered >= 0)
            inLayer[numbered] = AnyNumber;
        string pattern = string.Join('.', inLayer);
        foreach ((string Gguf, string Hf) pair in layerNames)
        {
            string name = from(pair);
            string? ending = hasParameter && name == pattern ? parameter : name == pattern + parameter ? "" : null;
            if (ending is not null)
                return string.Create(CultureInfo.InvariantCulture, $"{toPrefix}{layer}.{to(pair).Replace(AnyNumber, number)}{ending}");
        }
        return null;
    }
}
