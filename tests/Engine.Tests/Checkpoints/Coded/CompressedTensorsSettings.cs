using System.Text.Json.Nodes;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>The <c>quantization_config</c> that compressed-tensors writes.</summary>
internal static class CompressedTensorsSettings
{
    /// <summary>All linear modules but the head in one format; of sparse weights that are not quantized there is no format of codes.</summary>
    public static JsonObject Of(string format, JsonObject? weights, string? sparsity = null)
    {
        var config = new JsonObject
        {
            ["quant_method"] = "compressed-tensors",
            ["format"] = format,
            ["quantization_status"] = "compressed",
            ["ignore"] = new JsonArray("lm_head"),
            ["kv_cache_scheme"] = null,
            ["sparsity_config"] = new JsonObject(),
            ["config_groups"] = new JsonObject(),
        };
        if (weights is not null)
        {
            weights["dynamic"] = false;
            config["config_groups"]!["group_0"] = new JsonObject { ["targets"] = new JsonArray("Linear"), ["weights"] = weights, ["input_activations"] = null };
        }
        if (sparsity is not null)
        {
            config["sparsity_config"] = new JsonObject { ["format"] = sparsity, ["targets"] = new JsonArray("Linear"), ["ignore"] = new JsonArray("lm_head") };
        }
        return config;
    }
}
