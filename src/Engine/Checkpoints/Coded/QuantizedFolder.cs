using System.Text.Json.Nodes;
using Engine.Checkpoints.Coded.CompressedTensors;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Coded;

/// <summary>Finds out how the modules of a Hugging Face folder are quantized.</summary>
internal static class QuantizedFolder
{
    private const string ModelOptName = "hf_quant_config.json", ModelOptSection = "quantization", MethodKey = "quant_method";

    // Files in which AutoGPTQ and AutoAWQ say what they did, and what they are taken to have done where the file does not name it.
    private static readonly (string File, string Method)[] settingsBeside = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];

    /// <summary>The folder with its weights as everyone knows them; itself where nothing is quantized. Owns it from here on, but not where this fails.</summary>
    /// <exception cref="EngineException">It is quantized in a way that is not supported, or tensors do not fit what the configuration says.</exception>
    public static Checkpoint Open(HfFolder folder)
    {
        string file = Path.Combine(folder.Path, HfAssets.ConfigName);
        JsonNode? sparsity = folder.HasConfig && HasTensor(folder, "." + MaskedModules.Mask) ? folder.Config[CodedCheckpoint.SparsityKey] : null;
        foreach (string key in CodedCheckpoint.ConfigKeys)
        {
            if (!folder.HasConfig || folder.Config[key] is not { } node)
            {
                continue;
            }
            JsonObject config = RequireObject(node, file, key);
            if (sparsity is not null && config[CodedCheckpoint.SparsityKey] is null)
            {
                config = (JsonObject)config.DeepClone();
                config[CodedCheckpoint.SparsityKey] = sparsity.DeepClone();
            }
            return ModulesOf(config, file, key) is { } modules ? new CodedCheckpoint(folder, modules) : folder;
        }
        if (sparsity is not null)
        {
            var alone = new JsonObject { [CodedCheckpoint.SparsityKey] = RequireObject(sparsity, file, CodedCheckpoint.SparsityKey).DeepClone() };
            return new CodedCheckpoint(folder, new CompressedModules(new CompressedTensorsConfig(alone, file, "")));
        }
        return Beside(folder) is { } beside ? new CodedCheckpoint(folder, beside) : folder;
    }

    /// <summary>A file of this name says how the weights beside it are quantized.</summary>
    public static bool IsSettings(string name) => name == ModelOptName || settingsBeside.Any(settings => settings.File == name);

    /// <summary>What files beside the weights say, where <c>config.json</c> says nothing: old ones of GPTQ, AWQ and ModelOpt do.</summary>
    private static ICodedModules? Beside(HfFolder folder)
    {
        foreach ((string name, string method) in settingsBeside)
        {
            if (HasTensor(folder, ".qweight") && folder.ReadAsset(name) is { } settings)
            {
                string file = Path.Combine(folder.Path, name);
                JsonObject config = HfAssets.ParseObject(settings, file);
                config[MethodKey] ??= method;
                return ModulesOf(config, file, MethodKey);
            }
        }
        if (HasTensor(folder, ".weight_scale") && folder.ReadAsset(ModelOptName) is { } modelOpt)
        {
            string file = Path.Combine(folder.Path, ModelOptName);
            return new ModelOptModules(
                HfAssets.ParseObject(modelOpt, file)[ModelOptSection] as JsonObject ?? throw new EngineException("expected an object", file, ModelOptSection), file);
        }
        return null;
    }

    private static bool HasTensor(HfFolder folder, string ending) => folder.TensorNames.Any(name => name.EndsWith(ending, StringComparison.Ordinal));

    private static JsonObject RequireObject(JsonNode node, string file, string key) =>
        node as JsonObject ?? throw new EngineException($"expected an object; found {node.ToJsonString()}", file, key);

    private static ICodedModules? ModulesOf(JsonObject config, string file, string key)
    {
        string? method = CodedConfig.Text(config, MethodKey, file)
            ?? (config.ContainsKey("config_groups") || config.ContainsKey(CodedCheckpoint.SparsityKey) ? "compressed-tensors" : null);
        return method switch
        {
            "compressed-tensors" => new CompressedModules(new CompressedTensorsConfig(config, file, key + ".")),
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
