namespace Host.Tests;

/// <summary>Wrong command lines: exit code 2, whatever the model.</summary>
public sealed class UsageTests
{
    [Theory]
    [InlineData("--tokens", "generate", "-n", "-1")]
    [InlineData("--tokens", "generate", "-n", "0")]
    [InlineData("--tokens: expected a whole number from -2147483648 to 2147483647, found 'many'", "generate", "-n", "many")]
    [InlineData("--temperature: expected a number, found 'hot'", "generate", "--temperature", "hot")]
    [InlineData("--unknown", "generate", "--unknown")]
    [InlineData("--temperature", "generate", "--temperature", "-0.5")]
    [InlineData("--temperature", "generate", "--temperature", "NaN")]
    [InlineData("--top-p", "generate", "--top-p", "1.5")]
    [InlineData("--top-k", "generate", "--top-k", "-3")]
    [InlineData("--repetition-penalty", "generate", "--repetition-penalty", "0")]
    [InlineData("--logit-bias", "generate", "--logit-bias", "5")]
    [InlineData("--logit-bias", "generate", "--logit-bias", "5=x")]
    [InlineData("--seed", "generate", "--seed", "-1")]
    [InlineData("--stop", "generate", "--stop", "")]
    [InlineData("--threads", "generate", "--threads", "0")]
    [InlineData("--context", "generate", "--context", "-5")]
    [InlineData("--kv", "generate", "--kv", "Q3")]
    [InlineData("--kv", "generate", "--kv", "1")]
    [InlineData("--activations", "generate", "--activations", "f16")]
    [InlineData("--activations", "bench", "--activations", "1")]
    [InlineData("--layers", "generate", "--layers", "3-1")]
    [InlineData("--layers", "logits", "--ids", "1", "--layers", "a")]
    [InlineData("--ids", "generate", "--ids", "1,x,3")]
    [InlineData("--ids", "generate", "--ids", "")]
    [InlineData("--ids", "generate", "--ids", "1,,2")]
    [InlineData("--ids", "generate", "--ids", "99999999999")]
    [InlineData("both", "generate", "-p", "a", "--ids", "1")]
    [InlineData("--ids", "logits")]
    [InlineData("--decode", "logits", "--ids", "1", "--decode", "one")]
    [InlineData("--text", "perplexity")]
    [InlineData("--chunks", "perplexity", "--text", "x", "--chunks", "0")]
    [InlineData("--out", "inspect", "--dump", "x")]
    [InlineData("--format", "convert", "-o", "x.gguf")]
    [InlineData("Q9_9", "convert", "-o", "x.gguf", "--format", "Q9_9")]
    [InlineData("--synthetic", "bench", "--synthetic", "7b:Q8_0", "--out", "x.gguf")]
    [InlineData("--out", "bench", "--synthetic", "0.5b:Q8_0")]
    [InlineData("--synthetic", "bench", "--synthetic", "mor-360m-r3:Q8_0", "--out", "x")]
    [InlineData("--synthetic", "bench", "--synthetic", "0.5b:Q8_0:1.5", "--out", "x.gguf")]
    [InlineData("--batch", "bench", "--batch", "0")]
    [InlineData("--batch", "bench", "--batch", "2", "--depth-curve")]
    [InlineData("--kv-bytes", "bench", "--kv-bytes", "1000000")]
    [InlineData("--kv-bytes", "bench", "--batch", "1", "--kv-bytes", "1000000,1000000")]
    [InlineData("--threads", "bench", "--batch", "1", "-t", "1,2")]
    [InlineData("--quantize", "generate", "--quantize", "Q9_9")]
    [InlineData("--experts-per-token: expected at least 1, found 0", "generate", "--experts-per-token", "0")]
    [InlineData("--experts-per-token", "logits", "--ids", "1", "--experts-per-token", "two")]
    [InlineData("--expert-memory: expected a number of bytes", "bench", "--expert-memory", "4X")]
    [InlineData("--expert-memory", "perplexity", "--text", "x", "--expert-memory", "0")]
    [InlineData("--expert-memory", "generate", "--expert-memory", "9999999999G")]
    [InlineData("--expert-memory", "generate", "--expert-memory", "-5")]
    [InlineData("--ids belongs to --routing", "inspect", "--ids", "1")]
    [InlineData("--experts-per-token belongs to --routing", "inspect", "--experts-per-token", "2")]
    [InlineData("neither", "inspect", "--routing")]
    [InlineData("both", "inspect", "--routing", "x.txt", "--ids", "1")]
    [InlineData(".png", "inspect", "--routing", "x.txt", "--out", "x.jpg")]
    [InlineData("choose one", "inspect", "--routing", "x.txt", "--dump", "y", "--out", "x.png")]
    [InlineData("--out belongs to", "inspect", "--out", "x.png")]
    [InlineData("--threads", "bench", "-t", "1,0")]
    [InlineData("--repetitions", "bench", "-r", "0")]
    [InlineData("--messages", "template")]
    [InlineData("-m", "generate", "-m", "")]
    [InlineData("nonsense", "nonsense")]
    [InlineData("command")]
    public void AWrongCommandLineIsRefused(string mention, params string[] arguments) =>
        HostProcess.Run([.. arguments, .. arguments is [] or ["nonsense"] ? Array.Empty<string>() : ["--json"]]).AssertFailed(2, mention);

    [Fact]
    public void HelpListsTheCommands()
    {
        HostResult help = HostProcess.Run("--help");
        Assert.Equal(0, help.ExitCode);
        Assert.Equal("", help.Error);
        string[] commands = ["generate", "chat", "logits", "tokenize", "template", "inspect", "bench", "perplexity", "convert"];
        foreach (string command in commands)
        {
            Assert.Contains($"  {command} ", help.Output, StringComparison.Ordinal);
            Assert.Contains("--json", HostProcess.Run(command, "--help").Output, StringComparison.Ordinal);
        }
    }
}
