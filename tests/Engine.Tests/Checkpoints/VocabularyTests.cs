using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Xunit;

namespace Engine.Tests.Checkpoints;

public sealed class VocabularyTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void A_gguf_file_speaks_hugging_face()
    {
        using var vocabulary = new GgufVocabulary(Model("llama"));
        Assert.Contains("model.layers.0.self_attn.q_proj.weight", vocabulary.TensorNames);
        Assert.Equal("blk.0.attn_q.weight", vocabulary.RawName("model.layers.0.self_attn.q_proj.weight"));
        Assert.Equal(vocabulary["blk.0.attn_q.weight"], vocabulary["model.layers.0.self_attn.q_proj.weight"]);
        Assert.Equal("model.layers.0.self_attn.q_proj.weight", vocabulary["blk.0.attn_q.weight"].Name);
        Assert.False(vocabulary.TryGetTensor("model.layers.1.self_attn.q_proj.weight", out _));
        Assert.Equal("llama", (string?)vocabulary.Config["model_type"]);
        Assert.Equal("adjacent", (string?)vocabulary.Config["rope_pairing"]);
        Assert.Equal(2, vocabulary.Config["head_dim"]!.GetValue<int>());
        Assert.Equal(1e-5, vocabulary.Config["rms_norm_eps"]!.GetValue<double>());
        Assert.True(vocabulary.Config["tie_word_embeddings"]!.GetValue<bool>());
        Assert.Null(vocabulary.Config["rope_factors_tensor"]);
    }

    [Fact]
    public void Layers_that_differ_keep_their_arrays()
    {
        MemoryCheckpoint model = Model("qwen3", layers: 3);
        model.AddMetadata("qwen3.attention.key_length", 2u);
        model.AddMetadata("qwen3.attention.value_length", 2u);
        model.AddMetadata("qwen3.attention.head_count", new[] { 4, 3, 2 });
        model.AddMetadata("qwen3.feed_forward_length", new[] { 8u, 8u, 8u });
        model.Add("rope_freqs.weight", [1], [1f]);
        using var vocabulary = new GgufVocabulary(model);
        Assert.Equal("[4,3,2]", vocabulary.Config["num_attention_heads"]!.ToJsonString());
        Assert.Equal("8", vocabulary.Config["intermediate_size"]!.ToJsonString());
        Assert.Equal("halves", (string?)vocabulary.Config["rope_pairing"]);
        Assert.Equal("rope_freqs.weight", (string?)vocabulary.Config["rope_factors_tensor"]);
    }

    [Fact]
    public void An_unknown_architecture_keeps_its_names()
    {
        using var vocabulary = new GgufVocabulary(Model("mamba"));
        Assert.Equal("mamba", (string?)vocabulary.Config["model_type"]);
        Assert.Contains("blk.0.attn_q.weight", vocabulary.TensorNames);
    }

    [Fact]
    public void Keys_that_are_missing_wrong_or_foreign_are_named()
    {
        (string Key, object Value)[] wrong =
        [
            ("llama.embedding_length", "four"), ("llama.attention.layer_norm_rms_epsilon", float.NaN),
            ("llama.attention.head_count", new[] { 1, 2 }),
            ("llama.logit_scale", 0.5f), ("llama.rope.scaling.type", "yarn"), ("llama.block_count", ulong.MaxValue),
        ];
        foreach ((string key, object value) in wrong)
        {
            MemoryCheckpoint model = Model("llama");
            model.AddMetadata(key, value);
            using var vocabulary = new GgufVocabulary(model);
            EngineException exception = Assert.Throws<EngineException>(() => vocabulary.Config);
            Assert.StartsWith(key.Split("scaling")[0], exception.Item!, StringComparison.Ordinal);
        }
        using var empty = new GgufVocabulary(new MemoryCheckpoint());
        Assert.Empty(empty.Config);
    }

    [Fact]
    public void Llama2c_files_are_read_by_offset()
    {
        File.WriteAllBytes(folder.File("small.bin"), FuzzTests.SmallLlama2c());
        File.WriteAllBytes(folder.File("tok6.bin"), [1, 2, 3]);
        using Checkpoint model = CheckpointFile.Open(folder.File("small.bin"));
        Assert.Equal(12, model.TensorNames.Count);
        Assert.Equal(24f, model["model.layers.0.input_layernorm.weight"].ToFloats()[0]);
        Assert.Equal([2L, 4L], model["model.layers.0.self_attn.k_proj.weight"].Shape);
        Assert.Equal(44f, model["model.layers.0.self_attn.k_proj.weight"].ToFloats()[0]);
        Assert.Equal([4L, 8L], model["model.layers.0.mlp.down_proj.weight"].Shape);
        Assert.Equal(186f, model["lm_head.weight"].ToFloats()[0]);
        Assert.Equal([1, 2, 3], model.ReadAsset("tokenizer.bin"));
        Assert.Throws<EngineException>(() => model.ReadAsset("../secret"));
    }

    [Fact]
    public void A_symbolic_link_may_lead_into_the_hubs_cache_and_nowhere_else()
    {
        string snapshot = Directory.CreateDirectory(folder.File("snapshots/abc")).FullName;
        string blobs = Directory.CreateDirectory(folder.File("blobs")).FullName;
        SafetensorsWriter.Write(Path.Combine(blobs, "1234"), [TensorSource.FromValues("a", [1], [1f])]);
        SafetensorsWriter.Write(folder.File("elsewhere"), [TensorSource.FromValues("a", [1], [1f])]);
        string link = Path.Combine(snapshot, "model.safetensors");
        try
        {
            File.CreateSymbolicLink(link, "../../blobs/1234");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            Assert.Skip($"symbolic links cannot be made here: {exception.Message}");
        }
        using (Checkpoint model = CheckpointFile.Open(snapshot))
            Assert.Single(model.TensorNames);
        File.Delete(link);
        File.CreateSymbolicLink(link, folder.File("elsewhere"));
        Assert.Throws<EngineException>(() => CheckpointFile.Open(snapshot));
    }

    [Theory]
    [InlineData("""{"weight_map":{"\ud800":"a.safetensors"}}""")]
    [InlineData("""{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}""")]
    [InlineData("""{"weight_map":{}}""")]
    [InlineData("""{"weight_map":[]}""")]
    [InlineData("[]")]
    [InlineData("{")]
    [InlineData("")]
    public void A_bad_index_is_refused(string index)
    {
        File.WriteAllText(folder.File("model.safetensors.index.json"), index);
        EngineException exception = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.EndsWith("model.safetensors.index.json", exception.File, StringComparison.Ordinal);
    }

    [Fact]
    public void A_bad_or_missing_configuration_is_named()
    {
        SafetensorsWriter.WriteFolder(folder.Path, [TensorSource.FromValues("a", [1], [1f])]);
        using (Checkpoint model = CheckpointFile.Open(folder.Path))
            Assert.Contains("config.json", Assert.Throws<EngineException>(() => model.Config).Message, StringComparison.Ordinal);
        byte[][] notText = [[.. "{\"a\":\""u8, 0xFF, .. "\"}"u8], [.. "{\""u8, 0xC0, .. "\":1}"u8], [.. "{\"\\ud800\":1}"u8]];
        foreach (byte[] config in notText)
        {
            File.WriteAllBytes(folder.File("config.json"), config);
            EngineException exception = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
            Assert.EndsWith("config.json", exception.File, StringComparison.Ordinal);
        }
        foreach (string config in new[] { "[]", "{\"a\":1,\"a\":2}", "nonsense", """{"quantization_config":{"quant_method":"exl2"}}""" })
        {
            File.WriteAllText(folder.File("config.json"), config);
            EngineException exception = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
            Assert.EndsWith("config.json", exception.File, StringComparison.Ordinal);
        }
    }

    private static MemoryCheckpoint Model(string architecture, int layers = 1)
    {
        var model = new MemoryCheckpoint();
        model.AddMetadata("general.architecture", architecture);
        foreach ((string key, object value) in new (string, object)[]
        {
            ("context_length", 16u), ("embedding_length", 4u), ("block_count", layers), ("feed_forward_length", 8u),
            ("attention.head_count", 2u),
            ("attention.layer_norm_rms_epsilon", 1e-5f), ("rope.dimension_count", 2ul),
        })
        {
            model.AddMetadata($"{architecture}.{key}", value);
        }
        model.Add("token_embd.weight", [6, 4], new float[24]);
        model.Add("blk.0.attn_q.weight", [4, 4], new float[16]);
        return model;
    }
}
