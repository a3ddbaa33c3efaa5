using System.Text.Json.Nodes;

namespace Engine.Checkpoints;

/// <summary>Configurations that are made in code.</summary>
internal static class ConfigJson
{
    /// <summary>
    /// Gives a configuration the form that parsing would give it: a number then converts to any numeric type on reading, where one made
    /// from a
    /// <see cref="long"/> would refuse <c>GetValue&lt;int&gt;()</c>.
    /// </summary>
    public static JsonObject Normalize(JsonObject config) => (JsonObject)JsonNode.Parse(config.ToJsonString())!;
}
