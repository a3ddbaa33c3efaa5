namespace Host.Tests;

/// <summary>Wrong files, ids and prompts: exit code 1 and one line that says what is wrong.</summary>
public sealed class BadInputTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("generate")]
    [InlineData("chat")]
    [InlineData("logits", "--ids", "1")]
    [InlineData("tokenize")]
    [InlineData("inspect")]
    [InlineData("bench")]
    [InlineData("perplexity", "--text", "TEXT")]
    [InlineData("convert", "--format", "Q8_0", "-o", "OUT")]
    [InlineData("template", "--messages", "MESSAGES")]
    public void EveryCommandRefusesAMissingModel(params string[] arguments)
    {
        string text = folder.Write("text.txt", "once"), messages = folder.Write("messages.json", """[{"role":"user","content":"Hi"}]""");
        string target = folder.File("out.gguf");
        Dictionary<string, string> files = new() { ["TEXT"] = text, ["MESSAGES"] = messages, ["OUT"] = target };
        string[] given = [.. arguments.Select(argument => files.GetValueOrDefault(argument, argument))];
        string missing = folder.File("missing.gguf");
        HostProcess.Run([.. given, "-m", missing, "--json"]).AssertFailed(1, missing);
        Assert.False(File.Exists(target));
    }

    [Fact]
    public void AFolderWithoutAModelIsRefused()
    {
        string empty = Directory.CreateDirectory(folder.File("empty")).FullName;
        HostProcess.Run("inspect", "-m", empty, "--json").AssertFailed(1, empty);
        HostProcess.Run("generate", "-m", empty, "--json").AssertFailed(1, empty);
    }

    [Theory]
    [InlineData("empty.gguf", "")]
    [InlineData("short.gguf", "GGUF")]
    [InlineData("text.gguf", "this is no model")]
    [InlineData("text.safetensors", "this is no model")]
    [InlineData("text.bin", "this is no model")]
    [InlineData("text.txt", "this is no model")]
    public void AFileThatIsNoModelIsRefused(string name, string content)
    {
        string path = folder.Write(name, content);
        HostProcess.Run("generate", "-m", path, "--json").AssertFailed(1, path);
        HostProcess.Run("inspect", "-m", path, "--json").AssertFailed(1, path);
    }

    [Fact]
    public void MalformedFilesAreRefused()
    {
        string malformed = Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden", "formats", "malformed");
        // The library's tests open all of them; that the program refuses some in its own way is enough here.
        string[] files = [.. Directory.GetFiles(malformed, "model.*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];
        Assert.NotEmpty(files);
        foreach (string path in files.Where((_, i) => i % 7 == 0))
        {
            HostProcess.Run("generate", "--ids", "1", "-m", path, "--json").AssertFailed(1, Path.GetFileName(Path.GetDirectoryName(path)!));
        }
    }

    [Fact]
    public void ATruncatedModelIsRefused()
    {
        byte[] whole = File.ReadAllBytes(SharedFiles.Require("models/stories260K/stories260K-f32.gguf"));
        Random random = Seed.Fresh();
        for (int round = 0; round < 4; round++)
        {
            // Up to 31 bytes of padding may be missing from the end.
            int length = random.Next(whole.Length - 31);
            string path = folder.Write($"cut-{length}.gguf", whole[..length]);
            HostProcess.Run("generate", "-m", path, "--json").AssertFailed(1, path);
        }
    }

    [Fact]
    public void WhatAFileOrAnArgumentSaysCannotSteerTheTerminal()
    {
        HostResult result = HostProcess.Run("inspect", "-m", "a\u001b[31m\u0007\nb.gguf", "--json");
        result.AssertFailed(1, "a\\u001b[31m\\u0007 b.gguf");
    }

    [Fact]
    public void AnUnsupportedFamilyIsNamed()
    {
        string model = SharedFiles.Require("models/vocab/ggml-vocab-starcoder.gguf");
        HostProcess.Run("generate", "-m", model, "--json").AssertFailed(1, "starcoder");
    }

    [Theory]
    [InlineData("found 512", "generate", "--ids", "1,512")]
    [InlineData("found -1", "generate", "--ids", "1,-1")]
    [InlineData("found 512", "logits", "--ids", "512")]
    [InlineData("found 99999", "logits", "--ids", "1", "--decode", "99999")]
    [InlineData("context", "generate", "-p", "LONG")]
    [InlineData("context", "generate", "-p", "a long prompt", "--context", "3")]
    [InlineData("context", "logits", "--ids", "1,2,3", "--context", "2")]
    [InlineData("512", "generate", "--context", "513")]
    [InlineData("context", "bench", "-p", "513")]
    [InlineData("context", "bench", "-n", "2147483647")]
    [InlineData("no-such-tensor", "inspect", "--dump", "no-such-tensor", "--out", "x.safetensors")]
    [InlineData("token", "generate", "--logit-bias", "600=1")]
    public void InputThatDoesNotFitTheModelIsRefused(string mention, params string[] arguments)
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        string longText = string.Concat(Enumerable.Repeat("Once upon a time. ", 200));
        HostProcess.Run([.. arguments.Select(a => a == "LONG" ? longText : a), "-m", model, "--json"]).AssertFailed(1, mention);
    }

    [Fact]
    public void TextThatIsNotUtf8IsRefused()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        HostProcess.RunWithInput([0x41, 0xFF, 0x42], "tokenize", "-m", model, "--json").AssertFailed(1, "UTF-8", "byte 1");
        HostProcess.RunWithInput([0x41, 0xFF, 0x42], "chat", "-m", model, "--json").AssertFailed(1, "UTF-8");
        HostProcess.Run("perplexity", "-m", model, "--text", folder.Write("bad.txt", [0xC3]), "--json").AssertFailed(1, "UTF-8");
    }

    [Fact]
    public void APerplexityTextMustFillAChunk()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        HostProcess.Run("perplexity", "-m", model, "--text", folder.Write("short.txt", "Once"), "--json").AssertFailed(1, "chunk");
        HostProcess.Run("perplexity", "-m", model, "--text", folder.File("none.txt"), "--json").AssertFailed(1, "none.txt");
    }

    [Fact]
    public void AFileThatCannotBeWrittenIsNamed()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        string nowhere = Path.Combine(folder.File("missing"), "out.gguf");
        HostProcess.Run("convert", "-m", model, "-o", nowhere, "--format", "Q8_0", "--json").AssertFailed(1, nowhere);
        HostProcess.Run("inspect", "-m", model, "--dump", "model.norm.weight", "--out", nowhere, "--json").AssertFailed(1, nowhere);
        string copy = folder.Write("copy.gguf", File.ReadAllBytes(model));
        HostProcess.Run("convert", "-m", copy, "-o", copy, "--format", "Q8_0", "--json").AssertFailed(1, copy);
        Assert.Equal(File.ReadAllBytes(model), File.ReadAllBytes(copy));
    }
}
