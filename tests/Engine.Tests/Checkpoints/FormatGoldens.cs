using System.Text.Json.Nodes;

namespace Engine.Tests.Checkpoints;

/// <summary>The goldens of formats, made by the formats' own reference implementations (Golden/formats/README.md).</summary>
internal static class FormatGoldens
{
    public static string Root { get; } = Path.Combine(AppContext.BaseDirectory, "Golden", "formats");

    public static string PathOf(params ReadOnlySpan<string> parts) => Path.Combine([Root, .. parts]);

    public static JsonObject Case(string name) => (JsonObject)JsonNode.Parse(File.ReadAllText(PathOf(name, "case.json")))!;
}
