using System.Text.Json;
using System.Text.RegularExpressions;
using Engine;
using Engine.Execution;
using Engine.Generation;
using Engine.Text;
using Host.Printing;
using Spectre.Console;

namespace Host.Tests;

/// <summary>Models that route tokens to depths: <c>--routing</c>, depths in JSON, <c>--show-depth</c>, <c>--depth-out</c>.</summary>
public sealed partial class RecursionTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("official")]
    [InlineData("causal")]
    public void RoutingAndDepthsAreTheReferences(string routing)
    {
        string model = GoldenModel.Path("mor/mor_expert_rec3_cache");
        using JsonDocument document = GoldenModel.Expected(model);
        int[] prompt = Golden.Ids(document.RootElement.GetProperty("prompt_ids"));
        JsonElement expected = document.RootElement.GetProperty(routing);
        int[] prefill = Golden.Ids(expected.GetProperty("prefill").GetProperty("depth"));
        int[] generated = Golden.Ids(expected.GetProperty("generated_ids"));
        string[] shared = ["-m", model, "--ids", string.Join(',', prompt), "--json", .. routing == "causal" ? Array.Empty<string>() : ["--routing", routing]];

        JsonElement logits = HostProcess.Run(["logits", "--decode", string.Join(',', generated[..^1]), .. shared]).Json.GetProperty("depth");
        Assert.Equal(prefill, Golden.Ids(logits.GetProperty("prefill")));
        int[] decode = Golden.Ids(logits.GetProperty("decode"));
        Assert.Equal(generated.Length - 1, decode.Length);

        JsonElement json = HostProcess.Run(["generate", "-n", $"{generated.Length}", "--temperature", "0", "--kv", "F32", "--ignore-eos", .. shared]).Json;
        Assert.Equal(generated, Golden.Ids(json.GetProperty("ids")));
        Assert.Equal([.. prefill, .. decode], Golden.Ids(json.GetProperty("depth")));
        Assert.False(json.TryGetProperty("stream_weights", out _));
    }

    [Fact]
    public void DepthsAreShownAsMarksAndExported()
    {
        string model = GoldenModel.Path("mor/mor_token_rec3_cache"), file = folder.File("depth.json");
        string[] arguments = ["generate", "-m", model, "--ids", "18,94,100,117,59", "-n", "6", "--temperature", "0", "--ignore-eos"];
        HostResult shown = HostProcess.Run([.. arguments, "--show-depth", "--depth-out", file]);
        Assert.True(shown.ExitCode == 0, shown.Error);
        JsonElement json = HostProcess.Run([.. arguments, "--json"]).Json;
        int[] ids = [.. Golden.Ids(json.GetProperty("prompt_ids")), .. Golden.Ids(json.GetProperty("ids"))];
        int[] depths = Golden.Ids(json.GetProperty("depth"));
        Assert.Equal(ids.Length - 1, depths.Length);

        string[] lines = shown.Output.Split('\n');
        IEnumerable<string> marked = ids.Select((id, i) => $"⟨{(i < depths.Length ? $"{depths[i]}" : "")}⟩{(i == 0 ? "" : " ")}{id}");
        Assert.Equal(string.Concat(marked), lines[0]);
        Assert.Contains($"⟨3⟩ {depths.Count(static depth => depth == 3)} tokens", lines[1], StringComparison.Ordinal);
        Assert.EndsWith($"mean {depths.Average():F2} of 3", lines[1], StringComparison.Ordinal);
        Assert.Equal(["", ""], [lines[2], string.Concat(lines[3..])]);

        using JsonDocument export = JsonDocument.Parse(File.ReadAllBytes(file));
        JsonElement[] tokens = [.. export.RootElement.GetProperty("tokens").EnumerateArray()];
        Assert.Equal(ids, tokens.Select(static token => token.GetProperty("id").GetInt32()));
        Assert.Equal(Enumerable.Range(0, ids.Length), tokens.Select(static token => token.GetProperty("position").GetInt32()));
        Assert.Equal(depths, tokens[..^1].Select(static token => token.GetProperty("depth").GetInt32()));
        Assert.False(tokens[^1].TryGetProperty("depth", out _));
        Assert.False(tokens[0].TryGetProperty("text", out _)); // The model has no tokenizer.
        Assert.Equal(depths.Average(), export.RootElement.GetProperty("mean_depth").GetDouble(), 1e-12);
        Assert.Equal(
            Enumerable.Range(1, 3).Select(depth => depths.Count(found => found == depth)),
            export.RootElement.GetProperty("histogram").EnumerateArray().Select(static entry => entry.GetProperty("tokens").GetInt32()));
        Assert.Equal([file], Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void TextIsMarkedTokenByToken()
    {
        string model = GoldenModel.WithTokenizer(folder, "mor/mor_token_rec3_cache", 256), file = folder.File("depth.json");
        HostResult shown = HostProcess.Run(
            "generate", "-m", model, "-p", "Aé.", "-n", "2", "--temperature", "0", "--logit-bias", "33=1000", "--ignore-eos",
            "--show-depth", "--depth-out", file);
        using JsonDocument export = JsonDocument.Parse(File.ReadAllBytes(file));
        JsonElement[] tokens = [.. export.RootElement.GetProperty("tokens").EnumerateArray()];
        // A character of two tokens belongs to the second.
        Assert.Equal(["A", "", "é", ".", "!", "!"], tokens.Select(static token => token.GetProperty("text").GetString()));
        IEnumerable<string> marked = tokens.Select(static token =>
            $"⟨{(token.TryGetProperty("depth", out JsonElement depth) ? $"{depth}" : "")}⟩{token.GetProperty("text").GetString()}");
        Assert.Equal(string.Concat(marked), shown.Output.Split('\n')[0]);
        Assert.Equal(4, export.RootElement.GetProperty("prompt_tokens").GetInt32());
    }

    [Theory]
    [InlineData("mor/mor_token_rec3_cache")]
    [InlineData("mor/mor_token_rec3_kvshare")]
    [InlineData("mor/mor_expert_rec3_cache")]
    public void TheExportCountsWhatTheCachesHold(string path)
    {
        using LanguageModel model = LanguageModel.Load(GoldenModel.Path(path), new() { Threads = 1, ContextLength = 64 });
        int[] ids = [.. Enumerable.Range(1, 40)];
        using LogitsSession session = model.CreateLogitsSession();
        session.Feed(ids);
        DepthExport export = DepthExport.Create(model.Plan, model.KvSlotBytesPerToken, null, ids, [7], session.Depths);
        Assert.Equal(session.TokensPerSlot, export.KvSlots.Select(static slot => slot.Tokens));
        Assert.All(export.KvSlots, slot => Assert.Equal(slot.Tokens * model.KvSlotBytesPerToken, slot.Bytes));
        Assert.Equal(40, export.Histogram.Sum(static count => count.Tokens));
    }

    [Fact]
    public void OnATerminalDepthsAreColours()
    {
        using StringWriter output = new();
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = AnsiSupport.Yes,
            ColorSystem = ColorSystemSupport.TrueColor,
            Out = new AnsiConsoleOutput(output),
        });
        console.Profile.Width = 10; // Narrower than the text: nothing may be broken.
        DepthPrinter printer = new(console, colours: true, new TokenTexts(null), [10, 20], 2);
        printer.Begin();
        printer.Add(new GeneratedToken(30, "", 0, [], null, null) { Depth = 2, PromptDepths = [1, 2] });
        string first = output.ToString();
        Assert.DoesNotContain("30", first, StringComparison.Ordinal); // Its depth is not known yet.
        printer.Add(new GeneratedToken(40, "", 0, [], FinishReason.Length, null) { Depth = 1 });
        printer.End();
        string[] lines = output.ToString().Split('\n');
        // A colour per token but the last; the same depth has the same one.
        string[] colours = [.. Coloured().Matches(lines[0]).Select(static match => match.Groups[1].Value)];
        Assert.Equal(3, colours.Length);
        Assert.Equal(colours[0], colours[2]);
        Assert.NotEqual(colours[0], colours[1]);
        Assert.Equal("10 20 30 40", Escapes().Replace(lines[0], ""));
        Assert.Equal(" 1  2 tokens, 66.7 %    2  1 tokens, 33.3 %   mean 1.33 of 2", Escapes().Replace(lines[1], ""));
    }

    [Fact]
    public void TextsOfTokensJoinToTheText()
    {
        string story = HostProcess.Run("generate", "--seed", "1", "-n", "20", "--json").Json.GetProperty("text").GetString()!;
        Tokenizer tokenizer = Tokenizer.Load(Path.Combine(AppContext.BaseDirectory, "default-model.gguf"));
        TokenTexts texts = new(tokenizer);
        int[] ids = tokenizer.Encode($"{story} ☃", addSpecial: false);
        Assert.Equal(tokenizer.Decode(ids), string.Concat(ids.Select(texts.Append)) + texts.Flush());
        Assert.Equal("\uFFFD", texts.Append(tokenizer.VocabularySize));
    }

    [Theory]
    [InlineData(1, "no expert-choice router", "generate", "-m", "mor/mor_token_rec3_cache", "--routing", "official")]
    [InlineData(2, "--routing: expected one of causal, official, found 'best'", "generate", "--routing", "best")]
    [InlineData(1, "all 2 recursions", "generate", "-m", "mor/recursive_mc_rec2", "--show-depth")]
    [InlineData(1, "not recursive", "generate", "-m", "parscale/dynamic/dyn_p1", "--depth-out", "x.json")]
    [InlineData(2, "--depth-out", "generate", "-m", "mor/mor_token_rec3_cache", "--depth-out", "")]
    [InlineData(1, "no-such-folder", "generate", "-m", "no-such-model", "--depth-out", "no-such-folder/x.json")] // Before the model is looked at.
    public void WrongUseIsRefused(int exitCode, string mention, params string[] arguments) =>
        HostProcess.Run([.. arguments.Select(GoldenModel.Resolve), "--ids", "1", "--json"]).AssertFailed(exitCode, mention);

    [GeneratedRegex("\u001b\\[([0-9;]+)m[^\u001b]*\u001b\\[0m")]
    private static partial Regex Coloured();

    [GeneratedRegex("\u001b\\[[0-9;]*m")]
    private static partial Regex Escapes();
}
