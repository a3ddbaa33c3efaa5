using System.Text.Json.Serialization;
using Host.Commands;
using Host.Inspection;
using Host.Measuring;
using Host.Printing;

namespace Host.CommandLine;

/// <summary>Serialisation of everything that <c>--json</c> prints: snake_case, and no reflection at run time.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(GenerateResult))]
[JsonSerializable(typeof(DepthExport))]
[JsonSerializable(typeof(ChatResult))]
[JsonSerializable(typeof(LogitsResult))]
[JsonSerializable(typeof(TokenizeResult))]
[JsonSerializable(typeof(TemplateResult))]
[JsonSerializable(typeof(InspectResult))]
[JsonSerializable(typeof(DumpResult))]
[JsonSerializable(typeof(RoutingResult))]
[JsonSerializable(typeof(BenchResult))]
[JsonSerializable(typeof(BatchResult))]
[JsonSerializable(typeof(DepthCurveResult))]
[JsonSerializable(typeof(LatencyResult))]
[JsonSerializable(typeof(SyntheticResult))]
[JsonSerializable(typeof(PerplexityResult))]
[JsonSerializable(typeof(ConvertResult))]
[JsonSerializable(typeof(CompressResult))]
internal sealed partial class HostJson : JsonSerializerContext;
