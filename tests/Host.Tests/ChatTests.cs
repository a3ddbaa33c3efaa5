using System.Diagnostics;
using System.Text.Json;
using Engine.Text;

namespace Host.Tests;

public sealed class ChatTests
{
    private static string Model => SharedFiles.Require("models/minimind2-small/minimind2-small-q8_0.gguf");

    private static string[] Arguments => ["chat", "-m", Model, "--temperature", "0", "--system", "You are a helpful assistant", "-n", "40"];

    [Fact]
    public void ALineIsAMessage()
    {
        HostResult result = HostProcess.RunWithInput("What is the capital of France?\n\n", Arguments);
        Assert.Equal((0, "The capital of France is Paris.\n"), (result.ExitCode, result.Output));
    }

    [Fact]
    public void TheConversationIsRememberedUntilReset()
    {
        JsonElement json = HostProcess.RunWithInput("What is the capital of France?\nHello\n", [.. Arguments, "--json"]).Json;
        Assert.Equal(["system", "user", "assistant", "user", "assistant"], Roles(json));
        // The second reply is to the whole conversation, not to its last line.
        string alone = Content(HostProcess.RunWithInput("forgotten\n/reset\nHello\n/exit\nnot read\n", [.. Arguments, "--json"]).Json, 2);
        Assert.Equal(alone, Content(HostProcess.RunWithInput("Hello", [.. Arguments, "--json"]).Json, 2));
        Assert.Equal("The capital of France is Paris.", Content(json, 2));
    }

    [Fact]
    public void TheDefaultModelChatsInPlainText()
    {
        JsonElement json = HostProcess.RunWithInput("Tell me a story.", "chat", "-n", "40", "--seed", "1", "--json").Json;
        Assert.Equal(["user", "assistant"], Roles(json));
        Assert.NotEqual("", Content(json, 1));
    }

    [Fact]
    public void AMessageThatDoesNotFitEndsAPipedConversation()
    {
        string[] arguments = ["chat", "-m", Model, "--context", "8", "--json"];
        HostProcess.RunWithInput("A long message for a small context.", arguments).AssertFailed(1, "context");
    }

    [Fact]
    public void AnInterruptStopsTheReplyAndASecondOneLeaves()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "signals are sent as POSIX has them");
        // Tokens that end a reply are forbidden, so that it goes on until it is stopped or the context of 32768 is full; and those with a line
        // end in them, so that one in the output says that a reply has been stopped.
        Tokenizer tokenizer = Tokenizer.Load(Model);
        IEnumerable<int> forbidden = Enumerable.Range(0, tokenizer.VocabularySize)
            .Where(id => tokenizer.EndOfGeneration.Contains(id) || tokenizer.IsSpecial(id) || tokenizer.TokenBytes(id).Contains((byte)'\n'));
        string[] biases = [.. forbidden.SelectMany(id => new[] { "--logit-bias", $"{id}=-inf" })];
        using Process process = HostProcess.Start(["chat", "-m", Model, .. biases]);
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.StandardInput.WriteLine("Tell me a long story.");
        process.StandardInput.Flush();
        char[] buffer = new char[64];
        Assert.True(process.StandardOutput.Read(buffer) > 0, "no reply");
        InterruptTests.Interrupt(process);
        process.StandardInput.WriteLine("/reset");
        process.StandardInput.WriteLine("Once more.");
        process.StandardInput.Flush();
        // What was stopped ends with a line end; something new comes after it.
        int read;
        while ((read = process.StandardOutput.Read()) is not '\n')
        {
            Assert.True(read >= 0, "the program ended");
        }
        Assert.True(process.StandardOutput.Read() >= 0, "no second reply");
        InterruptTests.Interrupt(process);
        InterruptTests.Interrupt(process);
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        HostResult result = HostProcess.Finish(process, output, error);
        // The second interrupt either found the reply still stopping or the program waiting for input that had just ended.
        Assert.True(result.ExitCode is 130 or 0, $"exit code {result.ExitCode}: {result.Error}");
    }

    private static string Content(JsonElement json, int message) =>
        json.GetProperty("messages")[message].GetProperty("content").GetString()!;

    private static IEnumerable<string> Roles(JsonElement json) =>
        json.GetProperty("messages").EnumerateArray().Select(message => message.GetProperty("role").GetString()!);
}
