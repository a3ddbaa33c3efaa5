using System.Text.Json.Nodes;
using Xunit;

namespace Engine.Tests.Text.Templates;

/// <summary>
/// About a thousand small templates, one feature or a random mixture of them each, against what Python's jinja2 3.1 renders in the sandbox
/// with the settings of chat templates: whitespace control, scopes, loops, macros, filters, tests, methods, numbers, JSON.
/// </summary>
public sealed class Jinja2GoldenTests
{
    [Fact]
    public void RendersAsJinja2Does()
    {
        JsonNode golden = JsonNode.Parse(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Golden", "Templates", "jinja2.json")))!;
        string variables = golden["variables"]!.ToJsonString();
        JsonArray cases = golden["cases"]!.AsArray();
        var wrong = new List<string>();
        foreach (JsonNode? test in cases)
        {
            string template = (string)test!["template"]!;
            string? expected = (string?)test["text"];
            string found;
            bool failed = false;
            try
            {
                found = Conversations.Render(template, variables);
            }
            catch (EngineException error)
            {
                failed = true;
                found = error.Message;
            }
            if (failed != expected is null || (!failed && found != expected))
                wrong.Add($"{template}\n  expected {expected ?? (string?)test["error"]}\n  found    {found}");
        }
        Assert.True(cases.Count > 900, "the golden file is incomplete");
        Assert.True(wrong.Count == 0, string.Join("\n", wrong));
    }
}
