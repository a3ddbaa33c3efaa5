using System.Text.Json;

namespace Host.Tests;

public sealed class GenerateTests
{
    private static string Stories => SharedFiles.Require("models/stories260K/stories260K-f32.gguf");

    [Theory]
    [InlineData("stories260K", "models/stories260K/stories260K-f32.gguf")]
    [InlineData("stories15M", "models/stories15M/hf")]
    public void GreedyTextIsTheReferences(string model, string path)
    {
        foreach (Golden golden in Golden.For(model))
        {
            JsonElement json = HostProcess.Run(
                "generate", "-m", SharedFiles.Require(path), "-p", golden.Prompt, "-n", $"{golden.Greedy.Length}",
                "--temperature", "0", "--json").Json;
            Assert.Equal(golden.PromptIds, Golden.Ids(json.GetProperty("prompt_ids")));
            Assert.Equal(golden.Greedy, Golden.Ids(json.GetProperty("ids")));
        }
    }

    [Fact]
    public void AChatModelAnswersAndStops()
    {
        string model = SharedFiles.Require("models/minimind2-small/minimind2-small-q8_0.gguf");
        Golden golden = Golden.For("minimind2")[0];
        JsonElement json = HostProcess.Run(
            "generate", "-m", model, "--ids", string.Join(',', golden.PromptIds), "-n", "30", "--temperature", "0", "--json").Json;
        Assert.Equal("The capital of France is Paris.", json.GetProperty("text").GetString());
        Assert.Equal("stop", json.GetProperty("finish_reason").GetString());
        Assert.Equal(2, Golden.Ids(json.GetProperty("ids"))[^1]);
    }

    [Fact]
    public void TheObjectHasItsParts()
    {
        JsonElement json = HostProcess.Run("generate", "-m", Stories, "--ids", "1,403,407", "-n", "7", "--logprobs", "3", "--json").Json;
        Assert.Equal([1, 403, 407], Golden.Ids(json.GetProperty("prompt_ids")));
        Assert.Equal(7, json.GetProperty("ids").GetArrayLength());
        Assert.Equal("length", json.GetProperty("finish_reason").GetString());
        JsonElement usage = json.GetProperty("usage");
        Assert.Equal((3, 7, 10), (Int(usage, "prompt_tokens"), Int(usage, "completion_tokens"), Int(usage, "total_tokens")));
        JsonElement timings = json.GetProperty("timings");
        string[] parts = ["load_ms", "prompt_ms", "completion_ms", "prompt_tokens_per_second", "completion_tokens_per_second"];
        foreach (string time in parts)
        {
            Assert.True(timings.GetProperty(time).GetDouble() >= 0, time);
        }
        Assert.Equal(7, json.GetProperty("logprobs").GetArrayLength());
        foreach (JsonElement token in json.GetProperty("logprobs").EnumerateArray())
        {
            Assert.Equal(3, token.GetProperty("top").GetArrayLength());
            Assert.True(token.GetProperty("logprob").GetSingle() <= 0);
        }

        static int Int(JsonElement element, string name) => element.GetProperty(name).GetInt32();
    }

    [Fact]
    public void TheSameSeedGivesTheSameText()
    {
        string[] seeded =
        [
            "generate", "-m", Stories, "-p", "Once upon", "-n", "30", "--temperature", "1.5", "--top-k", "0", "--min-p", "0",
            "--json", "--seed",
        ];
        JsonElement first = HostProcess.Run([.. seeded, "7"]).Json;
        Assert.Equal(Golden.Ids(first.GetProperty("ids")), Golden.Ids(HostProcess.Run([.. seeded, "7"]).Json.GetProperty("ids")));
        Assert.NotEqual(Golden.Ids(first.GetProperty("ids")), Golden.Ids(HostProcess.Run([.. seeded, "8"]).Json.GetProperty("ids")));

        JsonElement unseeded = HostProcess.Run(seeded[..^1]).Json;
        JsonElement repeated = HostProcess.Run([.. seeded, $"{unseeded.GetProperty("seed").GetUInt64()}"]).Json;
        Assert.Equal(Golden.Ids(unseeded.GetProperty("ids")), Golden.Ids(repeated.GetProperty("ids")));
    }

    [Fact]
    public void AStopStringEndsTheTextBeforeIt()
    {
        string[] arguments = ["generate", "-m", Stories, "-p", "Once upon a time", "-n", "40", "--temperature", "0", "--json"];
        string text = HostProcess.Run(arguments).Json.GetProperty("text").GetString()!;
        string stop = text.Substring(text.Length / 2, 3);
        JsonElement stopped = HostProcess.Run([.. arguments, "--stop", "never in it", "--stop", stop]).Json;
        Assert.Equal(text[..text.IndexOf(stop, StringComparison.Ordinal)], stopped.GetProperty("text").GetString());
        Assert.Equal("stop", stopped.GetProperty("finish_reason").GetString());
    }

    [Fact]
    public void AForbiddenTokenIsNotGenerated()
    {
        Golden golden = Golden.For("stories260K")[0];
        JsonElement json = HostProcess.Run(
            "generate", "-m", Stories, "-p", golden.Prompt, "-n", "1", "--temperature", "0", "--json",
            "--logit-bias", $"{golden.Greedy[0]}=-inf").Json;
        Assert.Equal(golden.Top[1].Id, Golden.Ids(json.GetProperty("ids"))[0]);
    }

    [Fact]
    public void PeopleReadTheSameText()
    {
        string[] arguments = ["generate", "-m", Stories, "-p", "Once upon a time", "-n", "40", "--temperature", "0"];
        HostResult plain = HostProcess.Run(arguments);
        Assert.Equal(0, plain.ExitCode);
        string text = HostProcess.Run([.. arguments, "--json"]).Json.GetProperty("text").GetString()!;
        Assert.Equal($"Once upon a time{text}\n", plain.Output);
        Assert.Contains("40 tokens", plain.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void WithoutAModelTheDefaultOneWritesDifferentTexts()
    {
        JsonElement first = HostProcess.Run("generate", "--json", "--seed", "1").Json;
        JsonElement second = HostProcess.Run("generate", "--json", "--seed", "2").Json;
        Assert.NotEqual(first.GetProperty("text").GetString(), second.GetProperty("text").GetString());
        foreach (JsonElement json in new[] { first, second })
        {
            string text = json.GetProperty("text").GetString()!;
            Assert.True(text.Split(' ').Length > 20, text);
            Assert.DoesNotContain('\uFFFD', text);
        }
        HostResult plain = HostProcess.Run("generate", "--seed", "1");
        Assert.Contains(first.GetProperty("text").GetString()!.Trim(), plain.Output, StringComparison.Ordinal);
    }
}
