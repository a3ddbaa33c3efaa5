using System.Text.Json.Nodes;
using Engine.Text.Templates;
using Xunit;

namespace Engine.Tests.Text.Templates;

public sealed class ChatTemplateErrorTests
{
    [Fact]
    public void RaiseExceptionCarriesTheMessageOfTheTemplate()
    {
        ChatTemplate template = ChatTemplate.Parse(
            "a\n{% if true %}\n{{ raise_exception('Roles must ' ~ 'alternate!') }}{% endif %}", "tokenizer_config.json");
        EngineException error = Assert.Throws<EngineException>(() => template.Render(new ChatTemplateInput { Messages = [] }));
        Assert.Equal("Roles must alternate!", error.Reason);
        Assert.Equal("tokenizer_config.json", error.File);
        Assert.Equal("line 3", error.Item);
    }

    [Theory]
    [InlineData("{{ 1 +", "line 1, column 1", "not closed")]
    [InlineData("ab\n  {{ x y }}", "line 2, column 8", "'y'")]
    [InlineData("{% if x %}\n\nfoo", "line 3, column 4", "endif")]
    [InlineData("{% for x in y %}{% endif %}", "line 1, column 20", "endif")]
    [InlineData("\n{{ x|nosuch }}", "line 2, column 6", "nosuch")]
    [InlineData("{{ x is nosuch }}", "line 1, column 9", "nosuch")]
    [InlineData("{% include 'other' %}", "line 1, column 4", "include")]
    [InlineData("{% break %}", "line 1, column 4", "break")]
    [InlineData("{# never", "line 1, column 1", "comment")]
    [InlineData("{{ 'open }}", "line 1, column 4", "string")]
    [InlineData("{% set true = 1 %}", "line 1, column 8", "true")]
    [InlineData("{{ (1] }}", "line 1, column 6", "]")]
    public void ParsingNamesLineAndColumn(string source, string place, string about)
    {
        EngineException error = Assert.Throws<EngineException>(() => ChatTemplate.Parse(source, "t.jinja"));
        Assert.Equal(place, error.Item);
        Assert.Contains(about, error.Reason, StringComparison.Ordinal);
        Assert.Equal("t.jinja", error.File);
    }

    [Theory]
    [InlineData("\n{{ messages[0].content.parts }}", "line 2", "element 0")]
    [InlineData("{{ x\n.y }}", "line 2", "'x' is undefined")]
    [InlineData("a\nb\n{{ 1 + 'a' }}", "line 3", "int and str")]
    [InlineData("{% macro m() %}\n{{ 1/0 }}{% endmacro %}\n\n{{ m() }}", "line 2", "zero")]
    [InlineData("{% for x in\n5 %}{% endfor %}", "line 1", "int")]
    [InlineData("{% if true %}\n{{ x|nosuch }}{% endif %}", "line 2", "nosuch")]
    [InlineData("{{ [1].append(2) }}", "line 1", "append")]
    [InlineData("{% set d = {} %}{% set d.x = 1 %}", "line 1", "namespace")]
    public void RenderingNamesTheLine(string source, string place, string about)
    {
        EngineException error = Assert.Throws<EngineException>(() => Conversations.Render(source));
        Assert.Equal(place, error.Item);
        Assert.Contains(about, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void AbsentToolsAreNoneUnlessOmitted()
    {
        ChatTemplate template = ChatTemplate.Parse("{{ tools is defined }} {{ tools is none }} {{ documents is none }}");
        var input = new ChatTemplateInput { Messages = [] };
        Assert.Equal("True True True", template.Render(input));
        Assert.Equal("False False False", template.Render(input with { OmitAbsent = true }));
    }

    [Fact]
    public void EverythingInAMessageReachesTheTemplate()
    {
        ChatTemplate template = ChatTemplate.Parse(
            "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.custom.deep[1] }}:{{ m.content[0].text }}{% endfor %}"
            + "{{ flag }}{{ add_generation_prompt }}");
        string text = template.Render(new ChatTemplateInput
        {
            Messages = JsonNode.Parse("""[{"role":"user","custom":{"deep":[1,2.50]},"content":[{"type":"text","text":"ü"}]}]""")!.AsArray(),
            SpecialTokens = new Dictionary<string, string> { ["bos_token"] = "<s>" },
            Variables = new JsonObject { ["flag"] = 12345678901234567890UL },
            AddGenerationPrompt = true,
        });
        Assert.Equal("<s>user:2.5:ü12345678901234567890True", text);
    }

    [Fact]
    public void OneTemplateRendersOnManyThreads()
    {
        ChatTemplate template = ChatTemplate.Parse(
            "{% set ns = namespace(s=0) %}{% for i in range(n) %}{% set ns.s = ns.s + i %}{% endfor %}{{ ns.s }}");
        Parallel.For(0, 64, n => Assert.Equal(
            (n * (n - 1) / 2).ToString(),
            template.Render(new ChatTemplateInput { Messages = [], Variables = new JsonObject { ["n"] = n } })));
    }

    [Fact]
    public void InputsThatAreNoValuesAreRefused()
    {
        ChatTemplate template = ChatTemplate.Parse("x");
        JsonArray twice = JsonNode.Parse("""[{"role":"user","role":"system"}]""")!.AsArray();
        Assert.Contains("twice", Refusal(twice));

        JsonNode deep = new JsonArray();
        for (int i = 0; i < 10_000; i++) deep = new JsonArray(deep);
        Assert.Contains("nests", Refusal((JsonArray)deep));

        string Refusal(JsonArray messages) =>
            Assert.Throws<EngineException>(() => template.Render(new ChatTemplateInput { Messages = messages })).Reason;
    }
}
