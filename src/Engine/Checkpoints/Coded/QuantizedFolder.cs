using System.Text.Json.Nodes;
using Engine.Checkpoints.Coded.CompressedTensors;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Coded;

/// <summary>Finds out how the modules of a Hugging Face folder are quantized.</summary>
internal static class QuantizedFolder
{
    private const string GptqName = "quantize_config.json", ModelOptName = "hf_quant_config.json", ModelOptSection = "quantization";

    /// <summary>The folder with its weights as everyone knows them; itself where nothing is quantized. Owns it from here on, but not where this fails.</summary>
    /// <exception cref="EngineException">It is quantized in a way that is not supported, or tensors do not fit what the configuration says.</exception>
    public static Checkpoint Open(HfFolder folder)
    {
        string file = Path.Combine(folder.Path, HfAssets.ConfigName);
        foreach (string key in CodedCheckpoint.ConfigKeys)
        {
            if (!folder.HasConfig || folder.Config[key] is not { } node)
            {
                continue;
            }
            if (node is not JsonObject config)
            {
                throw new EngineException($"expected an object; found {node.ToJsonString()}", file, key);
            }
            return ModulesOf(config, file, key) is { } modules ? new CodedCheckpoint(folder, modules) : folder;
        }
        return Beside(folder) is { } beside ? new CodedCheckpoint(folder, beside) : folder;
    }

    /// <summary>What files beside the weights say, where <c>config.json</c> says nothing: old ones of GPTQ and ModelOpt do.</summary>
    private static ICodedModules? Beside(HfFolder folder)
    {
        if (folder.TensorNames.Any(static name => name.EndsWith(".qweight", StringComparison.Ordinal)) && folder.ReadAsset(GptqName) is { } gptq)
        {
            string file = Path.Combine(folder.Path, GptqName);
            return new GptqModules(HfAssets.ParseObject(gptq, file), file);
        }
        if (folder.TensorNames.Any(static name => name.EndsWith(".weight_scale", StringComparison.Ordinal)) && folder.ReadAsset(ModelOptName) is { } modelOpt)
        {
            string file = Path.Combine(folder.Path, ModelOptName);
            return new ModelOptModules(
                HfAssets.ParseObject(modelOpt, file)[ModelOptSection] as JsonObject ?? throw new EngineException("expected an object", file, ModelOptSection), file);
        }
        return null;
    }

    private static ICodedModules? ModulesOf(JsonObject config, string file, string key)
    {
        string? method = CodedConfig.Text(config, "quant_method", file) ?? (config.ContainsKey("config_groups") || config.ContainsKey("sparsity_config") ? "compressed-tensors" : null);
        return method switch
        {
            "compressed-tensors" => new CompressedModules(new CompressedTensorsConfig(config, file)),
            "gptq" => new GptqModules(config, file),
            "awq" => new AwqModules(config, file),
            "bitsandbytes" => new BitsAndBytesModules(),
            "fp8" => new Float8Modules(config, file),
            "modelopt" or "modelopt_fp4" => new ModelOptModules(config, file),
            "mxfp4" => null, // gpt-oss: experts are read by the family.
            _ => throw new EngineException(
                $"the quantization method {method ?? "(none named)"} is not supported; expected compressed-tensors, gptq, awq, bitsandbytes, fp8, modelopt or mxfp4", file, key),
        };
    }
}
