using Engine.Text.Templates;
using Xunit;

namespace Engine.Tests.Text.Templates;

public sealed class ConversationFileTests
{
    [Fact]
    public void AnArrayIsTheMessages()
    {
        ChatTemplateInput input = ConversationFile.Parse("""[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}]""");
        Assert.Equal(2, input.Messages.Count);
        Assert.True(input.AddGenerationPrompt);
        Assert.Null(input.Tools);
        Assert.Null(input.Variables);
    }

    [Fact]
    public void AnObjectHasMessagesToolsAndVariables()
    {
        ChatTemplateInput input = ConversationFile.Parse("""
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "tools": [{"type": "function"}],
             "documents": null, "add_generation_prompt": false, "enable_thinking": true}
            """);
        Assert.Single(input.Messages);
        Assert.Single(input.Tools!);
        Assert.Null(input.Documents);
        Assert.False(input.AddGenerationPrompt);
        Assert.True((bool)input.Variables!["enable_thinking"]!);
    }

    [Theory]
    [InlineData("nonsense", null, "not JSON")]
    [InlineData("5", null, "found a number")]
    [InlineData("{}", "messages", "missing")]
    [InlineData("""{"messages": {}}""", "messages", "found an object")]
    [InlineData("""["a"]""", "messages[0]", "found a string")]
    [InlineData("""[{"role": "user"}, {"content": "x"}]""", "messages[1].role", "found nothing")]
    [InlineData("""[{"role": "user", "content": 5}]""", "messages[0].content", "found a number")]
    [InlineData("""{"messages": [], "tools": {}}""", "tools", "found an object")]
    [InlineData("""{"messages": [], "add_generation_prompt": "yes"}""", "add_generation_prompt", "found a string")]
    [InlineData("""[{"role": "user", "role": "user"}]""", null, "twice")]
    [InlineData("""{"messages": [], "messages": []}""", null, "twice")]
    [InlineData("""[{"role": "user", "content": "\ud800"}]""", null, "not Unicode text")]
    [InlineData("""[{"role": "user", "\ud800": 1}]""", null, "not Unicode text")]
    public void WhatIsWrongIsNamed(string json, string? item, string reason)
    {
        EngineException error = Assert.Throws<EngineException>(() => ConversationFile.Parse(json, "chat.json"));
        Assert.Equal("chat.json", error.File);
        Assert.Equal(item, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void AMissingFileIsNamed()
    {
        string path = Path.Combine(AppContext.BaseDirectory, "no-such-conversation.json");
        Assert.Equal(path, Assert.Throws<EngineException>(() => ConversationFile.Read(path)).File);
    }

    [Fact]
    public void AFileThatIsNotUtf8IsNamed()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("latin1.json", [.. "[\""u8, 0xE9, .. "\"]"u8]);
        Assert.Contains("UTF-8", Assert.Throws<EngineException>(() => ConversationFile.Read(path)).Message, StringComparison.Ordinal);
    }
}
