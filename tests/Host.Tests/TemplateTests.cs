using System.Text.Json;

namespace Host.Tests;

public sealed class TemplateTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void RendersAreHuggingFaces()
    {
        string templates = SharedFiles.Require("models/templates");
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(templates, "expected.json")));
        JsonElement root = document.RootElement;
        IEnumerable<JsonProperty> tokens = root.GetProperty("specials").EnumerateObject();
        string[] specials = [.. tokens.SelectMany(token => new[] { "--set", $"{token.Name}={token.Value.GetString()}" })];
        // The library's tests render all of them; a few through the program are enough here. Clocks differ, so none that prints the date.
        foreach (string name in new[] { "Qwen-Qwen2.5-7B-Instruct.jinja", "GLM-4.6.jinja", "llama-cpp-deepseek-r1.jinja" })
        {
            int rendered = 0;
            foreach (JsonProperty expected in root.GetProperty("expected").GetProperty(name).EnumerateObject())
            {
                if (expected.Value.TryGetProperty("text", out JsonElement text))
                {
                    string messages = folder.Write("messages.json", root.GetProperty("inputs").GetProperty(expected.Name).GetRawText());
                    string[] arguments = ["template", "--template", Path.Combine(templates, name), "--messages", messages, .. specials];
                    Assert.Equal(text.GetString(), HostProcess.Run([.. arguments, "--json"]).Json.GetProperty("prompt").GetString());
                    if (rendered++ == 0)
                    {
                        Assert.Equal(text.GetString(), HostProcess.Run(arguments).Output);
                    }
                }
            }
            Assert.True(rendered > 2, $"{name}: {rendered} rendered");
        }
    }

    [Fact]
    public void TheModelsOwnTemplateIsUsed()
    {
        Golden golden = Golden.For("minimind2")[0];
        string messages = folder.Write("messages.json", """
            [{"role": "system", "content": "You are a helpful assistant"}, {"role": "user", "content": "What is the capital of France?"}]
            """);
        string model = SharedFiles.Require("models/minimind2-small/minimind2-small-q8_0.gguf");
        JsonElement json = HostProcess.Run("template", "-m", model, "--messages", messages, "--json").Json;
        Assert.Equal(golden.Prompt, json.GetProperty("prompt").GetString());
    }

    [Fact]
    public void WhatCannotBeRenderedIsRefused()
    {
        string hello = folder.Write("hello.json", """[{"role": "user", "content": "Hello"}]""");
        string template = folder.Write("plain.jinja", "{{ messages[0].content }}");
        string missing = folder.File("missing");
        HostProcess.Run("template", "--template", missing, "--messages", hello, "--json").AssertFailed(1, missing);
        HostProcess.Run("template", "--template", template, "--messages", missing, "--json").AssertFailed(1, missing);
        string[] wrong = ["not json", "7", "[1]", """[{"content": "no role"}]""", """{"messages": {}}"""];
        foreach (string bad in wrong)
        {
            string messages = folder.Write("bad.json", bad);
            HostProcess.Run("template", "--template", template, "--messages", messages, "--json").AssertFailed(1, "bad.json");
        }
        string broken = folder.Write("broken.jinja", "{% if %}");
        string refusing = folder.Write("refusing.jinja", "{{ raise_exception('no such role') }}");
        HostProcess.Run("template", "--template", broken, "--messages", hello, "--json").AssertFailed(1, "broken.jinja");
        HostProcess.Run("template", "--template", refusing, "--messages", hello, "--json").AssertFailed(1, "no such role");
        string untaught = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        HostProcess.Run("template", "-m", untaught, "--messages", hello, "--json").AssertFailed(1, "no chat template");
    }
}
