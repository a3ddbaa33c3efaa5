using System.Text;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Text;
using Xunit;

namespace Engine.Tests.Text;

/// <summary>Files that are wrong give our exception and nothing else.</summary>
public sealed class HostileTokenizerTests
{
    public static TheoryData<string, string> Damages => new()
    {
        { "model", "null" },
        { "model", "[]" },
        { "model.type", "\"WordPiece\"" },
        { "model.type", "7" },
        { "model.vocab", "null" },
        { "model.vocab", "[1]" },
        { "model.vocab", """{"a":"x"}""" },
        { "model.vocab.a", "-1" },
        { "model.vocab.a", "99999999999999999999" },
        { "model.vocab.a", "2147483647" },
        { "model.vocab.a", "1.5" },
        { "model.vocab.a", "98" },
        { "model.merges", "null" },
        { "model.merges", "{}" },
        { "model.merges", """["ab"]""" },
        { "model.merges", """[" "]""" },
        { "model.merges", """["a nosuchtoken"]""" },
        { "model.merges", """["a z"]""" },
        { "model.merges", """[["a"]]""" },
        { "model.merges", """[["a","b"],"a b"]""" },
        { "model.merges", "[1]" },
        { "model.unk_token", "\"nosuchtoken\"" },
        { "model.dropout", "0.5" },
        { "model.end_of_word_suffix", "\"</w>\"" },
        { "model.ignore_merges", "\"yes\"" },
        { "added_tokens", "{}" },
        { "added_tokens", """[{"id":0}]""" },
        { "added_tokens", """[{"id":-5,"content":"x"}]""" },
        { "added_tokens", """[{"id":4294967296,"content":"x"}]""" },
        { "added_tokens", """[{"id":97,"content":"not a"}]""" },
        { "added_tokens", """[{"id":900,"content":"x"},{"id":900,"content":"y"}]""" },
        { "added_tokens", """[{"id":900,"content":"x"},{"id":901,"content":"x"}]""" },
        { "added_tokens", """[{"id":900,"content":7}]""" },
        { "added_tokens", """[{"id":900,"content":"\ud800"}]""" },
        { "normalizer", """{"type":"Nonsense"}""" },
        { "normalizer", """{"type":"Replace","pattern":{"Regex":"("},"content":""}""" },
        { "normalizer", """{"type":"Replace","pattern":{"String":""},"content":"xxxxxxxxxxx"}""" },
        { "normalizer", """{"type":"Sequence","normalizers":7}""" },
        { "pre_tokenizer", """{"type":"Split","pattern":{"Regex":"[a"},"behavior":"Isolated"}""" },
        { "pre_tokenizer", """{"type":"Split","pattern":{"Regex":"a"},"behavior":"Sideways"}""" },
        { "pre_tokenizer", """{"type":"Split","pattern":"a","behavior":"Isolated"}""" },
        { "pre_tokenizer", """{"type":"Nonsense"}""" },
        { "pre_tokenizer", "7" },
        { "decoder", """{"type":"CTC"}""" },
        { "decoder", """{"type":"Replace","pattern":{"String":""},"content":"x"}""" },
        { "post_processor", """{"type":"TemplateProcessing","single":[],"special_tokens":{}}""" },
        {
            "post_processor",
            """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{}}],"special_tokens":{}}"""
        },
        {
            "post_processor",
            """
            {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"s"}},{"Sequence":{}}],
             "special_tokens":{"s":{"ids":[9999999]}}}
            """
        },
        { "post_processor", """{"type":"BertProcessing","cls":[],"sep":[]}""" },
    };

    [Theory]
    [MemberData(nameof(Damages))]
    public void DamagedTokenizerJsonIsRefused(string place, string value)
    {
        JsonObject json = SmallTokenizers.ByteLevel();
        // By text and not by nodes, so that values that no parser would build can be written too.
        JsonObject target = json;
        string[] path = place.Split('.');
        foreach (string step in path[..^1])
            target = target[step]!.AsObject();
        target[path[^1]] = "@@";
        string text = json.ToJsonString().Replace("\"@@\"", value, StringComparison.Ordinal);
        EngineException error = Assert.Throws<EngineException>(() => SmallTokenizers.Load("tokenizer.json", Encoding.UTF8.GetBytes(text)));
        Assert.Contains("tokenizer.json", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("""{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}""")]
    [InlineData("""{"model":{"type":"Unigram","vocab":[["a"]]}}""")]
    [InlineData("""{"model":{"type":"Unigram","vocab":[["a",0]],"unk_id":5}}""")]
    [InlineData("""{"model":{"type":"Unigram","vocab":[["a",0],["a",1]]}}""")]
    public void WholeFileOfNonsenseIsRefused(string text) =>
        Assert.Throws<EngineException>(() => SmallTokenizers.Load("tokenizer.json", Encoding.UTF8.GetBytes(text)));

    [Fact]
    public void DeepNestingIsRefused() => Assert.Throws<EngineException>(() =>
        SmallTokenizers.Load("tokenizer.json", Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat("{\"a\":", 100_000)))));

    [Theory]
    [InlineData("tokenizer_config.json", "{")]
    [InlineData("tokenizer_config.json", "7")]
    [InlineData("tokenizer_config.json", """{"chat_template":7}""")]
    [InlineData("tokenizer_config.json", """{"chat_template":[{"name":"default"}]}""")]
    [InlineData("tokenizer_config.json", """{"add_bos_token":"yes"}""")]
    [InlineData("special_tokens_map.json", "[]")]
    [InlineData("generation_config.json", """{"eos_token_id":-1}""")]
    [InlineData("generation_config.json", """{"eos_token_id":[1,99999999]}""")]
    [InlineData("config.json", """{"bos_token_id":"1"}""")]
    public void DamagedFileBesideTheVocabularyIsRefused(string name, string content)
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", SmallTokenizers.ByteLevel().ToJsonString());
        Tokenizer.Load(folder.Path);
        folder.Write(name, content);
        EngineException error = Assert.Throws<EngineException>(() => Tokenizer.Load(folder.Path));
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tokenizer.json")]
    [InlineData("tokenizer.model")]
    [InlineData("tokenizer.bin")]
    public void DamagedBytesGiveATokenizerOrOurException(string name)
    {
        byte[] whole = name switch
        {
            "tokenizer.json" => Encoding.UTF8.GetBytes(SmallTokenizers.Characters().ToJsonString()),
            "tokenizer.model" => SmallTokenizers.SentencePiece(),
            _ => SmallTokenizers.Llama2c(),
        };
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        int refused = 0;
        for (int round = 0; round < 400; round++)
        {
            byte[] content = round % 3 == 0 ? whole[..random.Next(whole.Length)] : (byte[])whole.Clone();
            for (int i = random.Next(4); i > 0 && content.Length > 0; i--)
                content[random.Next(content.Length)] = (byte)random.Next(256);
            try
            {
                Tokenizer tokenizer = SmallTokenizers.Load(name, content);
                tokenizer.Decode(tokenizer.Encode("hello 中 <s> 123"));
            }
            catch (EngineException)
            {
                refused++;
            }
            catch (Exception exception)
            {
                Assert.Fail($"seed {seed}, round {round}: {exception}");
            }
        }
        Assert.NotEqual(0, refused);
    }

    public static TheoryData<string, object?> DamagedMetadata => new()
    {
        { "tokenizer.ggml.model", 7 },
        { "tokenizer.ggml.model", "rwkv" },
        { "tokenizer.ggml.tokens", null },
        { "tokenizer.ggml.tokens", Array.Empty<string>() },
        { "tokenizer.ggml.tokens", new[] { 1, 2 } },
        { "tokenizer.ggml.tokens", new[] { "a", "a", "b" } },
        { "tokenizer.ggml.scores", null },
        { "tokenizer.ggml.scores", new float[2] },
        { "tokenizer.ggml.scores", new[] { 0, float.NaN, 0 } },
        { "tokenizer.ggml.token_type", new int[3] },
        { "tokenizer.ggml.token_type", new[] { 1, 1, 99 } },
        { "tokenizer.ggml.token_type", new[] { 1, 1 } },
        { "tokenizer.ggml.bos_token_id", 3 },
        { "tokenizer.ggml.eos_token_id", -7L },
        { "tokenizer.ggml.eot_token_id", "b" },
        { "tokenizer.ggml.add_bos_token", 1 },
        { "tokenizer.chat_template", 1 },
    };

    [Theory]
    [MemberData(nameof(DamagedMetadata))]
    public void DamagedGgufMetadataIsRefused(string key, object? value)
    {
        using MemoryCheckpoint whole = WithMetadata(null, null), damaged = WithMetadata(key, value);
        Assert.Equal([1, 2], Tokenizer.Load(whole).Encode("ab", addSpecial: false));
        EngineException error = Assert.Throws<EngineException>(() => Tokenizer.Load(damaged));
        Assert.StartsWith("damaged.gguf", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nosuchfamily", "a b")]
    [InlineData("gpt-2", "a x")]
    [InlineData("gpt-2", "ab")]
    public void DamagedGgufMergesAreRefused(string family, string merge)
    {
        using var checkpoint = new MemoryCheckpoint("damaged.gguf");
        checkpoint.AddMetadata("tokenizer.ggml.model", "gpt2");
        checkpoint.AddMetadata("tokenizer.ggml.pre", family);
        checkpoint.AddMetadata("tokenizer.ggml.tokens", new[] { "a", "b", "ab" });
        checkpoint.AddMetadata("tokenizer.ggml.merges", new[] { merge });
        Assert.Throws<EngineException>(() => Tokenizer.Load(checkpoint));
    }

    [Fact]
    public void PlaceWithoutATokenizerIsRefused()
    {
        using var folder = new TemporaryFolder();
        Assert.Throws<EngineException>(() => Tokenizer.Load(folder.Path));
        Assert.Throws<EngineException>(() => Tokenizer.Load(Path.Combine(folder.Path, "missing.json")));
        Assert.Throws<EngineException>(() => Tokenizer.Load(folder.Write("x.gguf", "not a GGUF")));
    }

    [Fact]
    public void ConfigurationMayListSeveralEndsAndTemplates()
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", SmallTokenizers.ByteLevel().ToJsonString());
        folder.Write("generation_config.json", """{"eos_token_id":[5,6]}""");
        folder.Write("tokenizer_config.json", """
            {"eos_token":{"content":"<|end|>"},"bos_token":null,
             "chat_template":[{"name":"default","template":"D"},{"name":"tool_use","template":"T"}]}
            """);
        Tokenizer tokenizer = Tokenizer.Load(folder.Path);
        int end = tokenizer.FindToken("<|end|>")!.Value;
        Assert.Equal(end, tokenizer.EndOfSequence);
        Assert.Equal(new HashSet<int> { 5, 6, end }, tokenizer.EndOfGeneration.ToHashSet());
        Assert.Null(tokenizer.BeginOfSequence);
        Assert.Equal(("D", "T"), (tokenizer.ChatTemplate, tokenizer.ChatTemplates["tool_use"]));
        folder.Write("chat_template.jinja", "J");
        Assert.Equal("J", Tokenizer.Load(folder.Path).ChatTemplate);
    }

    /// <summary>A vocabulary of three tokens in which one entry can be replaced, or left out where its value is null.</summary>
    private static MemoryCheckpoint WithMetadata(string? key, object? value)
    {
        var entries = new Dictionary<string, object?>
        {
            ["tokenizer.ggml.model"] = "llama",
            ["tokenizer.ggml.tokens"] = new[] { "<s>", "a", "b" },
            ["tokenizer.ggml.scores"] = new float[3],
            ["tokenizer.ggml.token_type"] = new[] { 3, 1, 1 },
            ["tokenizer.ggml.add_space_prefix"] = false,
        };
        if (key is not null)
            entries[key] = value;
        var checkpoint = new MemoryCheckpoint("damaged.gguf");
        foreach ((string name, object? content) in entries)
        {
            if (content is not null)
                checkpoint.AddMetadata(name, content);
        }
        return checkpoint;
    }
}
