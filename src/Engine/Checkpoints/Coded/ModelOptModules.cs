using System.Collections.Frozen;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// Modules as NVIDIA's ModelOpt stores them: NVFP4, whose <c>weight_scale_2</c> multiplies the scales of groups, or E4M3 with a scale for the matrix. Which of
/// them, and whether at all, the type of the weight says.
/// </summary>
internal sealed class ModelOptModules : ICodedModules
{
    private const string Weight = "weight", Scales = "weight_scale", Whole = "weight_scale_2", InputFactors = "pre_quant_scale";

    private readonly Float8Modules float8;

    /// <summary>Reads <c>quantization_config</c>, or the section <c>quantization</c> of a <c>hf_quant_config.json</c>.</summary>
    /// <exception cref="EngineException">It is malformed, or of a kind that is not read.</exception>
    public ModelOptModules(JsonObject config, string file)
    {
        string? algorithm = CodedConfig.Text(config, "quant_algo", file);
        if (algorithm is not ("NVFP4" or "FP8"))
        {
            throw CodedConfig.Error(file, "quant_algo", $"ModelOpt's algorithm {algorithm ?? "(none named)"} is not supported; expected NVFP4 or FP8");
        }
        if (algorithm == "NVFP4" && CodedConfig.Number(config, "group_size", file) is { } size and not Nvfp4Matrix.Group)
        {
            throw CodedConfig.Error(file, "group_size", $"expected {Nvfp4Matrix.Group}; found {size}");
        }
        float8 = new Float8Modules(new JsonObject(), file);
    }

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(Scales, Whole, InputFactors, "input_scale", "k_scale", "v_scale");

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        if (module.Has(InputFactors))
        {
            throw module.Error(InputFactors, "activations are multiplied by a factor per input before the module (ModelOpt's AWQ), which is not supported");
        }
        return module.Find(Weight) is { DType: DType.U8 } || module.Has(Whole)
            ? CodedWeight.Of(Nvfp4Matrix.Read(module, Weight, Whole, divides: false))
            : float8.Read(module);
    }
}
