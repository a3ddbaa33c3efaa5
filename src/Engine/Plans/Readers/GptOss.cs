using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// gpt-oss (OpenAI 2025; transformers, modeling_gpt_oss.py): attention with sinks, biases and a window in every other layer, and in every layer a mixture of
/// experts with biases and a clamped activation, whose weights are a softmax over the chosen.
/// </summary>
internal static class GptOss
{
    private const string Quantization = "quantization_config";

    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "gpt_oss",
        Sinks = true,
        RopeTheta = 150000,
        SlidingWindows = SlidingWindows.EveryOther,
        Clamp = static config => new SwiGluClamp(
            (float)config.Positive("swiglu_limit", SwiGluClamp.Default.Limit), (float)config.Number("swiglu_alpha", SwiGluClamp.Default.Alpha)),
        Experts = new ExpertsTraits
        {
            CountKey = "num_local_experts",
            WidthKey = "intermediate_size",
            RouterBias = true,
            Interleaved = true,
            Router = static (_, router) => router with { Score = ExpertScore.Logit, Weight = ExpertWeight.SoftmaxOfChosen },
        },
        Obeys = [Quantization],
    };

    public static ModelFamily Family { get; } = new(Read)
    {
        Name = Traits.Family,
        ModelTypes = ["gpt_oss"],
        Architectures = ["GptOssForCausalLM", "GptOssModel"],
        Models = "gpt-oss-20b, gpt-oss-120b",
        Supports = "attention sinks, sliding windows in every other layer, yarn; experts with biases, as MXFP4 or in floats",
    };

    private static ModelPlan Read(Checkpoint checkpoint)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        if (config.Node(Quantization) is { } node && !IsMxfp4(node))
        {
            throw config.Error(Quantization, $"expected the quant_method mxfp4; found {ConfigReader.Show(node)}");
        }
        return GatedDecoder.Read(checkpoint, Traits);
    }

    private static bool IsMxfp4(JsonNode node) =>
        node is JsonObject section && section["quant_method"] is { } method && method.GetValueKind() == JsonValueKind.String
        && method.GetValue<string>() == "mxfp4";
}
