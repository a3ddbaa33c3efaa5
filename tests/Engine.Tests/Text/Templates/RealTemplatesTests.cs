using System.Globalization;
using System.Text.Json.Nodes;
using Engine.Text.Templates;
using Xunit;

namespace Engine.Tests.Text.Templates;

/// <summary>
/// The chat templates of 40 real models on 7 conversations, against what Python's jinja2 renders with Hugging Face's settings.
/// </summary>
public sealed class RealTemplatesTests
{
    [Theory]
    [InlineData("one_user")]
    [InlineData("system_multi")]
    [InlineData("no_prompt")]
    [InlineData("tools")]
    [InlineData("tool_round")]
    [InlineData("two_users")]
    [InlineData("thinking_off")]
    public void RendersAsPythonDoes(string conversation)
    {
        string folder = SharedFiles.Require("models/templates");
        JsonNode golden = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "expected.json")))!;
        ChatTemplateInput input = ConversationFile.Parse(golden["inputs"]![conversation]!.ToJsonString()) with
        {
            SpecialTokens = golden["specials"]!.AsObject().ToDictionary(token => token.Key, token => (string)token.Value!),
            Clock = new Conversations.FixedClock(DateTime.Parse((string)golden["now"]!, CultureInfo.InvariantCulture)),
            OmitAbsent = true,
        };

        var wrong = new List<string>();
        JsonObject templates = golden["expected"]!.AsObject();
        foreach ((string file, JsonNode? renders) in templates)
        {
            JsonNode expected = renders![conversation]!;
            string found;
            bool failed = false;
            try
            {
                found = ChatTemplate.Parse(File.ReadAllText(Path.Combine(folder, file)), file).Render(input);
            }
            catch (EngineException refusal)
            {
                failed = true;
                found = refusal.Message;
            }
            bool right = expected["text"] is JsonNode text ? !failed && found == (string)text! : failed;
            if (!right) wrong.Add($"{file}: expected {expected.ToJsonString()}, found {found}");
        }
        Assert.True(templates.Count >= 40, "the golden file is incomplete");
        Assert.True(wrong.Count == 0, string.Join("\n\n", wrong));
    }
}
