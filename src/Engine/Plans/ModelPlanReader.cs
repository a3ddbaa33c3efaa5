using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans.Readers;

namespace Engine.Plans;

/// <summary>
/// Turns a checkpoint into the plan of its forward pass. Adding a family is one file in <c>Readers/</c> and one line here.
/// </summary>
public static class ModelPlanReader
{
    /// <summary>The families there are readers for.</summary>
    public static ImmutableArray<ModelFamily> Families { get; } =
    [
        Llama.Family, Mistral.Family, Qwen2.Family, Qwen3.Family, Gpt2.Family, ParScale.Family, MixtureOfRecursions.Family,
        Mixtral.Family, Qwen2Moe.Family, Qwen3Moe.Family, Olmoe.Family, DeepSeek.Family, DeepSeekLatent.V2, DeepSeekLatent.V3, PhiMoe.Family,
        GptOss.Family, LlamaMoeRnn.Family, DeciLm.Family, SliceGpt.Family,
    ];

    /// <summary>
    /// Reads the plan from the checkpoint's configuration and checks it against the tensors that exist. No weights are read but a table of
    /// rope factors, a few bytes of each layer, layers that seem to be copies of each other, which become one block, and matrices that a low-rank product
    /// makes up for, whose rows may be zero.
    /// </summary>
    /// <exception cref="EngineException">
    /// The family is not known; a key is missing, malformed, or asks for something that is not computed; a tensor is missing, unused or has
    /// another shape.
    /// </exception>
    public static ModelPlan Read(Checkpoint checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        ModelPlan plan = Find(checkpoint).Read(checkpoint);
        if (!plan.Experts().Any())
        {
            ExpertMapFile.RequireNone(checkpoint);
        }
        return SharedWeights.Find(plan, checkpoint);
    }

    /// <summary>As <see cref="Read"/>, each layer under its own names: copies are not looked for.</summary>
    /// <exception cref="EngineException">As <see cref="Read"/>.</exception>
    internal static ModelPlan ReadAsStored(Checkpoint checkpoint) => Find(checkpoint).Read(checkpoint);

    private static ModelFamily Find(Checkpoint checkpoint)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        string? modelType = config.Text("model_type", null);
        string? architecture = Architecture(config);
        if (modelType is null && architecture is null)
        {
            throw new EngineException(
                $"the configuration names neither a model_type nor an architecture; known: {Known()}", checkpoint.Path);
        }
        if (Families.FirstOrDefault(family => family.Claims?.Invoke(checkpoint, modelType, architecture) == true) is { } claimed)
        {
            return claimed;
        }
        ModelFamily? family = modelType is null
            ? Families.FirstOrDefault(family => family.Architectures.Contains(architecture!))
            : Families.FirstOrDefault(family => family.ModelTypes.Contains(modelType));
        if (family is null)
        {
            (string key, string name) = modelType is null ? ("architectures", architecture!) : ("model_type", modelType);
            throw new EngineException($"the model family '{name}' is not supported; known: {Known()}", checkpoint.Path, key);
        }
        // The same model_type with another class (a classifier, somebody's variant) computes something else.
        return architecture is null || family.Architectures.Contains(architecture)
            ? family
            : throw new EngineException(
                $"the architecture '{architecture}' is not supported; {family.Name} has {string.Join(", ", family.Architectures)}",
                checkpoint.Path, "architectures");
    }

    private static string? Architecture(ConfigReader config)
    {
        JsonNode? node = config.Node("architectures");
        if (node is null or JsonArray { Count: 0 })
        {
            return null;
        }
        return node is JsonArray { Count: 1 } names && names[0]?.GetValueKind() == JsonValueKind.String
            ? names[0]!.GetValue<string>()
            : throw config.Error("architectures", "expected an array of one string");
    }

    private static string Known() => string.Join(", ", Families.SelectMany(static family => family.ModelTypes));
}
