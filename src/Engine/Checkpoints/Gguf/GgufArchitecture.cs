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
/// <param name="LayerNames">Pairs (GGUF, Hugging Face) of modules inside a layer.</param>
internal sealed record GgufArchitecture(
    string Name,
    ImmutableArray<string> ModelTypes,
    string? Pairing,
    string LayerPrefix,
    ImmutableArray<(string Gguf, string Hf)> Names,
    ImmutableArray<(string Gguf, string Hf)> LayerNames)
{
    /// <summary>Elements (2i, 2i + 1) rotate together.</summary>
    public const string AdjacentPairs = "adjacent";

    /// <summary>Elements (i, i + dimensions / 2) rotate together.</summary>
    public const string HalfPairs = "halves";

    private const string GgufLayerPrefix = "blk.";

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

    /// <summary>All architectures whose names are known. GGUF permutes q and k of llama alone (formats.md §2.3).</summary>
    public static ImmutableArray<GgufArchitecture> All { get; } =
    [
        new("llama", ["llama", "mistral"], AdjacentPairs, "model.layers.", llamaNames, llamaLayerNames),
        new("qwen2", ["qwen2"], HalfPairs, "model.layers.", llamaNames, llamaLayerNames),
        new("qwen3", ["qwen3"], HalfPairs, "model.layers.", llamaNames, llamaLayerNames),
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

    private static string? Rename(
        string tensor,
        string fromPrefix,
        string toPrefix,
        ImmutableArray<(string Gguf, string Hf)> names,
        ImmutableArray<(string Gguf, string Hf)> layerNames,
        Func<(string Gguf, string Hf), string> from,
        Func<(string Gguf, string Hf), string> to)
    {
        // A tensor is a module and a parameter: blk.3.attn_q + weight.
        int parameterDot = tensor.LastIndexOf('.');
        if (parameterDot < 0 || tensor[(parameterDot + 1)..] is not ("weight" or "bias"))
            return null;
        string module = tensor[..parameterDot], parameter = tensor[parameterDot..];
        foreach ((string Gguf, string Hf) pair in names)
        {
            if (from(pair) == module)
                return to(pair) + parameter;
        }

        if (!module.StartsWith(fromPrefix, StringComparison.Ordinal))
            return null;
        string inLayers = module[fromPrefix.Length..];
        int layerDot = inLayers.IndexOf('.', StringComparison.Ordinal);
        if (layerDot < 0 || !int.TryParse(inLayers.AsSpan(0, layerDot), NumberStyles.None, CultureInfo.InvariantCulture, out int layer))
            return null;
        string inLayer = inLayers[(layerDot + 1)..];
        foreach ((string Gguf, string Hf) pair in layerNames)
        {
            if (from(pair) == inLayer)
                return string.Create(CultureInfo.InvariantCulture, $"{toPrefix}{layer}.{to(pair)}{parameter}");
        }
        return null;
    }
}
