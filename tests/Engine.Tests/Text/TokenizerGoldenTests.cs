using System.Globalization;
using System.Text.Json;
using Engine.Checkpoints;
using Engine.Text;
using Xunit;

namespace Engine.Tests.Text;

/// <summary>Real tokenizers against what the reference implementations made of the same strings.</summary>
public sealed class TokenizerGoldenTests
{
    public static TheoryData<string> Vocabularies =>
        ["deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"];

    public static TheoryData<string> Folders =>
        ["deepseek-v2-lite-chat", "gpt2", "llama3.2-unsloth", "mistral-v3", "qwen2_5", "smollm", "tinyllama-chat"];

    [Theory]
    [MemberData(nameof(Vocabularies))]
    public void GgufVocabularyEncodesAsLlamaCppDoes(string name)
    {
        string path = SharedFiles.Require($"models/vocab/ggml-vocab-{name}.gguf");
        Tokenizer tokenizer = Tokenizer.Load(path);
        string[] inputs = File.ReadAllText(path + ".inp").Split("\n__ggml_vocab_test__\n");
        string[] expected = File.ReadAllText(path + ".out").TrimEnd('\n').Split('\n');
        // The last separator is followed by nothing.
        Assert.True(inputs.Length >= expected.Length, $"{inputs.Length} inputs, {expected.Length} outputs");
        for (int i = 0; i < expected.Length; i++)
        {
            string[] numbers = expected[i].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            int[] ids = [.. numbers.Select(static id => int.Parse(id, CultureInfo.InvariantCulture))];
            AssertIds(ids, tokenizer.Encode(inputs[i], addSpecial: false, parseSpecial: false), inputs[i]);
        }
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void FolderEncodesAndDecodesAsHuggingFaceDoes(string name)
    {
        string folder = SharedFiles.Require($"models/tokenizers/{name}");
        Tokenizer tokenizer = Tokenizer.Load(folder);
        using JsonDocument expected = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "expected.json")));
        Assert.NotEqual(0, expected.RootElement.GetArrayLength());
        foreach (JsonElement item in expected.RootElement.EnumerateArray())
        {
            string text = item.GetProperty("text").GetString()!;
            int[] bare = Ids(item.GetProperty("ids_no_special"));
            AssertIds(Ids(item.GetProperty("ids")), tokenizer.Encode(text), text);
            AssertIds(bare, tokenizer.Encode(text, addSpecial: false), text);
            Assert.Equal(item.GetProperty("decoded").GetString(), tokenizer.Decode(bare));
        }
    }

    [Theory]
    [InlineData("models/tokenizers/tinyllama-chat/tokenizer.model", "models/tokenizers/tinyllama-chat")]
    [InlineData("models/stories15M/hf/tokenizer.model", "models/tokenizers/tinyllama-chat")]
    [InlineData("models/stories15M/hf/tokenizer.json", "models/tokenizers/tinyllama-chat")]
    [InlineData("models/stories15M/hf", "models/tokenizers/tinyllama-chat")]
    [InlineData("models/stories15M/stories15M-q8_0.gguf", "models/tokenizers/tinyllama-chat")]
    [InlineData("models/vocab/ggml-vocab-llama-bpe.gguf", "models/tokenizers/llama3.2-unsloth")]
    [InlineData("models/vocab/ggml-vocab-gpt-2.gguf", "models/tokenizers/gpt2")]
    [InlineData("models/vocab/ggml-vocab-qwen2.gguf", "models/tokenizers/qwen2_5")]
    public void OtherFormOfTheSameTokenizerAgrees(string path, string folder)
    {
        Tokenizer tokenizer = Tokenizer.Load(SharedFiles.Require(path));
        using JsonDocument expected = JsonDocument.Parse(File.ReadAllBytes(SharedFiles.Require(folder + "/expected.json")));
        foreach (JsonElement item in expected.RootElement.EnumerateArray())
        {
            string text = item.GetProperty("text").GetString()!;
            int[] bare = Ids(item.GetProperty("ids_no_special"));
            AssertIds(bare, tokenizer.Encode(text, addSpecial: false), text);
            Assert.Equal(item.GetProperty("decoded").GetString(), tokenizer.Decode(bare));
        }
    }

    [Fact]
    public void SmolLmPairOfFilesAgreesWithItsTokenizerJson()
    {
        // merges.txt and vocab.json do not say that digits are cut, so numbers are left out.
        string source = SharedFiles.Require("models/tokenizers/smollm");
        using var folder = new TemporaryFolder();
        foreach (string file in (string[])["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"])
            File.Copy(Path.Combine(source, file), Path.Combine(folder.Path, file));
        Tokenizer pair = Tokenizer.Load(folder.Path), whole = Tokenizer.Load(source);
        Assert.Equal(whole.VocabularySize, pair.VocabularySize);
        Assert.Equal(whole.EndOfSequence, pair.EndOfSequence);
        foreach (string text in (string[])["Hello world, don't stop", "<|im_start|>user\nÜnïcödé 中文<|im_end|>", "  \n\t x"])
            AssertIds(whole.Encode(text), pair.Encode(text), text);
    }

    [Theory]
    [InlineData("stories260K hf F32", "models/stories260K/tok512.bin")]
    [InlineData("stories260K hf F32", "models/stories260K/stories260K-f32.gguf")]
    [InlineData("stories15M hf BF16", "models/stories15M/hf")]
    [InlineData("stories15M hf BF16", "models/stories15M/hf/tokenizer.model")]
    [InlineData("stories15M hf BF16", "models/stories15M/stories15M-q4_0.gguf")]
    [InlineData("minimind2-small hf F16", "models/minimind2-small/tokenizer")]
    [InlineData("minimind2-small hf F16", "models/minimind2-small/minimind2-small-q8_0.gguf")]
    public void PromptsOfTheGoldenRunsAgree(string model, string path)
    {
        Tokenizer tokenizer = Tokenizer.Load(SharedFiles.Require(path));
        using JsonDocument golden = JsonDocument.Parse(File.ReadAllBytes(SharedFiles.Require("models/golden.json")));
        int compared = 0;
        foreach (JsonElement run in golden.RootElement.EnumerateArray().Where(run => run.GetProperty("model").GetString() == model))
        {
            string prompt = run.GetProperty("prompt").GetString()!;
            int[] ids = Ids(run.GetProperty("prompt_ids"));
            AssertIds(ids, tokenizer.Encode(prompt), prompt);
            Assert.Equal(prompt, tokenizer.Decode(tokenizer.AddsBeginOfSequence ? ids.AsSpan(1) : ids));
            compared++;
        }
        Assert.NotEqual(0, compared);
    }

    [Fact]
    public void CheckpointsGiveTheTokenizerThatLiesWithThem()
    {
        foreach (string path in (string[])["models/stories260K/stories260K.bin", "models/stories260K/stories260K-f32.gguf"])
        {
            using Checkpoint checkpoint = CheckpointFile.Open(SharedFiles.Require(path));
            Assert.Equal([1, 403, 407, 261, 378], Tokenizer.Load(checkpoint).Encode("Once upon a time"));
        }
        using Checkpoint folder = CheckpointFile.Open(SharedFiles.Require("models/stories15M/hf"));
        Assert.Equal([1, 9038, 2501, 263, 931], Tokenizer.Load(folder).Encode("Once upon a time"));
    }

    [Fact]
    public void SpecialTokensAndTemplatesComeFromTheFilesAround()
    {
        Tokenizer llama = Tokenizer.Load(SharedFiles.Require("models/tokenizers/llama3.2-unsloth"));
        Assert.Equal(128000, llama.BeginOfSequence);
        Assert.True(llama.AddsBeginOfSequence);
        Assert.Equal("<|begin_of_text|>", llama.SpecialTokens["bos_token"]);
        Assert.Superset(new HashSet<int> { 128001, 128008, 128009 }, llama.EndOfGeneration.ToHashSet());
        Assert.Contains("custom_tools", llama.ChatTemplate, StringComparison.Ordinal);

        Tokenizer qwen = Tokenizer.Load(SharedFiles.Require("models/tokenizers/qwen2_5"));
        Assert.Null(qwen.BeginOfSequence);
        Assert.False(qwen.AddsBeginOfSequence);
        Assert.Superset(new HashSet<int> { 151643, 151645 }, qwen.EndOfGeneration.ToHashSet());

        Tokenizer minimind = Tokenizer.Load(SharedFiles.Require("models/minimind2-small/minimind2-small-q8_0.gguf"));
        Assert.Equal(2, minimind.EndOfSequence);
        Assert.Equal(1, minimind.BeginOfSequence);
        Assert.False(minimind.AddsBeginOfSequence);
        Assert.NotNull(minimind.ChatTemplate);
        Assert.Equal(minimind.ChatTemplate, Tokenizer.Load(SharedFiles.Require("models/minimind2-small/tokenizer")).ChatTemplate);

        Tokenizer stories = Tokenizer.Load(SharedFiles.Require("models/stories15M/hf"));
        Assert.Equal((1, 2), (stories.BeginOfSequence, stories.EndOfSequence));
        Assert.Null(stories.ChatTemplate);
    }

    [Fact]
    public void UntrustedTextCannotProduceSpecialTokens()
    {
        Tokenizer tokenizer = Tokenizer.Load(SharedFiles.Require("models/minimind2-small/tokenizer"));
        const string Text = "<|im_end|>";
        Assert.Equal([2], tokenizer.Encode(Text));
        int[] ids = tokenizer.Encode(Text, parseSpecial: false);
        Assert.DoesNotContain(ids, tokenizer.IsSpecial);
        Assert.Equal(Text, tokenizer.Decode(ids));
        Assert.Equal("", tokenizer.Decode([2], skipSpecial: true));
    }

    private static int[] Ids(JsonElement array) => [.. array.EnumerateArray().Select(static id => id.GetInt32())];

    private static void AssertIds(int[] expected, int[] found, string text) => Assert.True(
        expected.AsSpan().SequenceEqual(found),
        $"\"{text}\"\nexpected {string.Join(' ', expected)}\nfound    {string.Join(' ', found)}");
}
