using System.Text.Json;

namespace Host.Tests;

public sealed class TokenizeTests
{
    [Theory]
    [InlineData("tinyllama-chat")]
    [InlineData("gpt2")]
    public void IdsAndTextAreHuggingFaces(string name)
    {
        string folder = SharedFiles.Require($"models/tokenizers/{name}");
        using JsonDocument expected = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "expected.json")));
        Random random = Seed.Fresh();
        foreach (JsonElement entry in expected.RootElement.EnumerateArray().OrderBy(_ => random.Next()).Take(3))
        {
            string text = entry.GetProperty("text").GetString()!;
            JsonElement with = HostProcess.RunWithInput(text, "tokenize", "-m", folder, "--json").Json;
            JsonElement without = HostProcess.RunWithInput(text, "tokenize", "-m", folder, "--json", "--no-special").Json;
            Assert.Equal(Golden.Ids(entry.GetProperty("ids")), Golden.Ids(with.GetProperty("ids")));
            Assert.Equal(Golden.Ids(entry.GetProperty("ids_no_special")), Golden.Ids(without.GetProperty("ids")));
            Assert.Equal(entry.GetProperty("decoded").GetString(), with.GetProperty("decoded").GetString());
            Assert.Equal(entry.GetProperty("decoded").GetString(), without.GetProperty("decoded").GetString());
        }
    }

    [Fact]
    public void AVocabularyWithoutWeightsIsEnough()
    {
        string model = SharedFiles.Require("models/vocab/ggml-vocab-qwen2.gguf");
        JsonElement json = HostProcess.RunWithInput("Hello, wörld!\n", "tokenize", "-m", model, "--json").Json;
        Assert.Equal("Hello, wörld!\n", json.GetProperty("decoded").GetString());
        HostResult plain = HostProcess.RunWithInput("Hello, wörld!\n", "tokenize", "-m", model);
        Assert.Equal($"{string.Join(',', Golden.Ids(json.GetProperty("ids")))}\n", plain.Output);
    }

    [Fact]
    public void NoTextHasNoIds()
    {
        JsonElement json = HostProcess.RunWithInput("", "tokenize", "--json", "--no-special").Json;
        Assert.Equal(0, json.GetProperty("ids").GetArrayLength());
        Assert.Equal("", json.GetProperty("decoded").GetString());
    }
}
