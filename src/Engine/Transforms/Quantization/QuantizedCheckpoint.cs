using System.Collections.Frozen;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;

namespace Engine.Transforms.Quantization;

/// <summary>
/// A checkpoint whose matrices are quantized when they are asked for, tensor by tensor, so that a model of any family runs in any format without a file of
/// it. Projections, feed-forwards, experts, embedding and head are covered (<see cref="Covers"/>); of linears that were
/// compressed to a low-rank product and a few rows, the rows are, and the product's narrow matrices stay as they are, like routers, norms, biases, prefixes and
/// gates.
/// <para>Encoded bytes are kept no longer than the view that is handed out (<see cref="TensorsOnDemand"/>).</para>
/// </summary>
public sealed partial class QuantizedCheckpoint : Checkpoint
{
    /// <summary>Modules that are quantized, in Hugging Face's names, and what recipes call them.</summary>
    private static readonly FrozenDictionary<string, string> LayerModules = new Dictionary<string, string>
    {
        ["self_attn.q_proj"] = "attn_q",
        ["self_attn.k_proj"] = "attn_k",
        ["self_attn.v_proj"] = "attn_v",
        ["self_attn.o_proj"] = "attn_output",
        ["mlp.gate_proj"] = "ffn_gate",
        ["mlp.up_proj"] = "ffn_up",
        ["mlp.down_proj"] = "ffn_down",
        ["mlp_share.gate_proj"] = "ffn_gate_shexp",
        ["mlp_share.up_proj"] = "ffn_up_shexp",
        ["mlp_share.down_proj"] = "ffn_down_shexp",
        ["shared_expert.gate_proj"] = "ffn_gate_shexp",
        ["shared_expert.up_proj"] = "ffn_up_shexp",
        ["shared_expert.down_proj"] = "ffn_down_shexp",
        ["shared_experts.gate_proj"] = "ffn_gate_shexp",
        ["shared_experts.up_proj"] = "ffn_up_shexp",
        ["shared_experts.down_proj"] = "ffn_down_shexp",
    }.ToFrozenDictionary();

    /// <summary>Linears of experts, one by one (<c>experts.3.w1.weight</c>) or of all together (<c>experts.gate_up_proj</c>).</summary>
    private static readonly FrozenDictionary<string, string> ExpertModules = new Dictionary<string, string>
    {
        ["gate_proj"] = "ffn_gate_exps",
        ["up_proj"] = "ffn_up_exps",
        ["down_proj"] = "ffn_down_exps",
        ["gate_up_proj"] = "ffn_gate_up_exps",
        ["w1"] = "ffn_gate_exps",
        ["w3"] = "ffn_up_exps",
        ["w2"] = "ffn_down_exps",
    }.ToFrozenDictionary();

    private static readonly FrozenDictionary<string, string> OtherModules = new Dictionary<string, string>
    {
        ["model.embed_tokens"] = "token_embd",
        ["embed_tokens"] = "token_embd",
        ["lm_head"] = "output",
    }.ToFrozenDictionary();

    private const string Weight = ".weight", Sparse = ".sparse";

    private readonly Checkpoint source;
    private readonly Dictionary<string, DType> types = [];
    private readonly TensorsOnDemand encoded;

    /// <summary>Wraps a checkpoint; owns it from here on, but not where this fails.</summary>
    /// <param name="source">The model, in Hugging Face's vocabulary.</param>
    /// <param name="recipe">What each matrix becomes. Layers count as they are stored.</param>
    /// <exception cref="EngineException">
    /// No matrix of the model is covered, or the recipe is for rows of whole blocks of 256 and no matrix has such rows.
    /// </exception>
    public QuantizedCheckpoint(Checkpoint source, QuantizationRecipe recipe)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(recipe);
        this.source = source;
        encoded = new TensorsOnDemand(source.Path);
        bool tied = !source.TryGetTensor("lm_head.weight", out _);
        var layers = new Dictionary<string, int>();
        foreach (string name in source.TensorNames)
        {
            if (Split(name) is (var layer, _) && layer.Length > 0)
                layers.TryAdd(layer, layers.Count);
        }
        var widths = new SortedSet<long>();
        foreach (string name in source.TensorNames)
        {
            if (Split(name) is not (var layer, var module) || !source.TryGetOutline(name, out TensorView? tensor) || tensor.Shape.Length is not (2 or 3))
                continue;
            // gpt-oss has experts, and their biases under such a name, as [inputs, outputs]: blocks would run across what is multiplied.
            if (source.TryGetTensor(name + "_bias", out _))
                continue;
            string known = layer.Length == 0
                ? module + Weight
                : string.Create(CultureInfo.InvariantCulture, $"blk.{layers[layer]}.{module}{Weight}");
            types[name] = recipe.For(known, tensor.Shape, layers.Count, tied);
            widths.Add(tensor.Columns);
        }
        if (types.Count == 0)
            throw new EngineException("no matrix of this model can be quantized while it is loaded", source.Path, "quantize");
        if (recipe.BlockElements is var block && widths.All(width => width % block != 0))
        {
            throw new EngineException(
                $"{recipe.Name} needs rows of a multiple of {block} elements, and this model has none: its matrices have rows of {string.Join(", ", widths)}",
                source.Path, "quantize");
        }
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => source.TensorNames;

    /// <inheritdoc/>
    public override JsonObject Config => source.Config;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <summary>The tensor is of a kind that is quantized.</summary>
    public static bool Covers(string name) => Split(name) is not null;

    /// <summary>How a tensor is stored here; nothing is encoded for the answer.</summary>
    /// <exception cref="EngineException">There is no such tensor.</exception>
    public DType TypeOf(string name) => types.TryGetValue(name, out DType dtype) ? dtype : source.Outline(name).DType;

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        if (!source.TryGetTensor(name, out tensor))
            return false;
        if (types.TryGetValue(name, out DType dtype) && dtype != tensor.DType)
            tensor = Encode(tensor, dtype);
        return true;
    }

    /// <inheritdoc/>
    public override bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline)
    {
        if (!source.TryGetOutline(name, out outline))
            return false;
        if (types.TryGetValue(name, out DType dtype) && dtype != outline.DType)
            outline = TensorView.Outline(name, dtype, outline.Shape);
        return true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            source.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>What stands before a covered module (empty outside layers), and the recipe's name of it; null for every other tensor.</summary>
    private static (string Layer, string Module)? Split(string name)
    {
        if (ExpertLinear().Match(name) is { Success: true } expert && ExpertModules.TryGetValue(expert.Groups["linear"].Value, out string? linear))
            return (expert.Groups["layer"].Value, linear);
        if (!name.EndsWith(Weight, StringComparison.Ordinal))
            return null;
        string module = name[..^Weight.Length];
        module = module.EndsWith(Sparse, StringComparison.Ordinal) ? module[..^Sparse.Length] : module;
        if (OtherModules.TryGetValue(module, out string? other))
            return ("", other);
        foreach ((string hf, string known) in LayerModules)
        {
            if (module.EndsWith(hf, StringComparison.Ordinal) && module.Length > hf.Length + 1 && module[^(hf.Length + 1)] == '.')
                return (module[..^(hf.Length + 1)], known);
        }
        return null;
    }

    [GeneratedRegex(@"^(?<layer>.*layers\.\d+)\.\w+\.experts\.(\d+\.)?(?<linear>\w+?)(\.sparse)?(\.weight)?$", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture)]
    private static partial Regex ExpertLinear();

    private TensorView Encode(TensorView tensor, DType dtype) => encoded.Get(tensor.Name, () => TensorSource.Convert(tensor, dtype));
}
