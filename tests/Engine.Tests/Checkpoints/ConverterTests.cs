using System.Text;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Pruning;
using Xunit;

namespace Engine.Tests.Checkpoints;

public sealed class ConverterTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly int seed = Environment.TickCount;

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("stories260K/hf")]
    [InlineData("stories260K/stories260K.bin")]
    public void A_real_model_becomes_the_gguf_that_llama_cpp_made(string source)
    {
        string expectedPath = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        using (Checkpoint model = CheckpointFile.Open(SharedFiles.Require("models/" + source)))
            GgufConverter.Convert(model, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using GgufFile expected = GgufFile.Open(expectedPath), converted = GgufFile.Open(folder.File("m.gguf"));
        Assert.Equal(expected.TensorNames.Order(), converted.TensorNames.Order());
        foreach (string name in expected.TensorNames)
            Assert.True(expected[name].Bytes.SequenceEqual(converted[name].Bytes), name);
        foreach ((string key, object value) in expected.Metadata.Where(static pair => pair.Key.StartsWith("llama.")))
            Assert.Equal(value, converted.Metadata[key]);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_real_tokenizer_is_carried_over(bool sentencePiece)
    {
        string source = SharedFiles.Require("models/stories15M/hf");
        using GgufFile expected = GgufFile.Open(SharedFiles.Require("models/stories15M/stories15M-q8_0.gguf"));
        foreach (string file in (ReadOnlySpan<string>)["config.json", "model.safetensors", "tokenizer.json"])
            File.Copy(Path.Combine(source, file), folder.File(file));
        if (sentencePiece)
            File.Copy(Path.Combine(source, "tokenizer.model"), folder.File("tokenizer.model"));
        using (Checkpoint model = CheckpointFile.Open(folder.Path))
            GgufConverter.Convert(model, folder.File("m.gguf"), QuantizationRecipe.Named("Q8_0"));
        using GgufFile converted = GgufFile.Open(folder.File("m.gguf"));
        foreach ((string key, object value) in expected.Metadata.Where(static pair => pair.Key.StartsWith("tokenizer.")))
        {
            // The scores of a tokenizer.json are ranks, which order merges in the same way.
            if (sentencePiece || !key.EndsWith("scores", StringComparison.Ordinal))
                Assert.Equal(value, converted.Metadata[key]);
        }
        Assert.Equal(true, converted.Metadata["tokenizer.ggml.add_bos_token"]);
    }

    [Fact]
    public void Llama_rows_are_permuted_and_gguf_reads_back_as_the_same_model()
    {
        const string scaling =
            """{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}""";
        using MemoryCheckpoint model = Llama(new Random(seed), scaling);
        GgufConverter.Convert(model, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using Checkpoint read = CheckpointFile.Open(folder.File("m.gguf"));
        const string q = "model.layers.0.self_attn.q_proj.weight", v = "model.layers.0.self_attn.v_proj.weight";
        float[] original = model[q].ToFloats(), permuted = read[q].ToFloats();
        for (int row = 0; row < 64; row++)
        {
            int source = row / 32 * 32 + row % 2 * 16 + row % 32 / 2;
            GoldenTests.AssertSame(original.AsSpan(source * 64, 64), permuted.AsSpan(row * 64, 64), $"seed {seed}, row {row}");
        }
        GoldenTests.AssertSame(model[v].ToFloats(), read[v].ToFloats(), v);
        Assert.Equal(model.TensorNames.Count + 1, read.TensorNames.Count);
        float[] factors = read[(string)read.Config["rope_factors_tensor"]!].ToFloats();
        Assert.Equal(16, factors.Length);
        Assert.Equal(1f, factors[0]);
        Assert.Equal(8f, factors[^1]);
        foreach ((string key, JsonNode? value) in model.Config)
        {
            if (key is not ("rope_scaling" or "attention_bias" or "mlp_bias"))
                Assert.True(JsonNode.DeepEquals(value, read.Config[key]), $"{key}: {value} became {read.Config[key]}");
        }
    }

    [Fact]
    public void Requantizing_keeps_the_metadata_and_mixes_formats_as_llama_cpp_does()
    {
        using (MemoryCheckpoint model = Llama(new Random(seed), null))
            GgufConverter.Convert(model, folder.File("f32.gguf"), QuantizationRecipe.Named("F32"));
        using (Checkpoint full = CheckpointFile.Open(folder.File("f32.gguf")))
            GgufConverter.Convert(full, folder.File("q.gguf"), QuantizationRecipe.Named("q4_k_m"));
        using GgufFile before = GgufFile.Open(folder.File("f32.gguf")), after = GgufFile.Open(folder.File("q.gguf"));
        Assert.Equal(before.Metadata["llama.rope.freq_base"], after.Metadata["llama.rope.freq_base"]);
        Assert.Equal(15u, after.Metadata["general.file_type"]);
        // 64 columns fall back from Q4_K and Q6_K; 256 columns do not.
        Assert.Equal(DType.Q5_0, after["blk.0.attn_q.weight"].DType);
        Assert.Equal(DType.Q8_0, after["token_embd.weight"].DType);
        Assert.Equal(DType.Q6_K, after["blk.0.ffn_down.weight"].DType);
        Assert.Equal(DType.F32, after["blk.0.attn_norm.weight"].DType);
    }

    [Fact]
    public void Q4_K_M_gives_more_bits_to_the_layers_that_llama_cpp_chooses()
    {
        QuantizationRecipe recipe = QuantizationRecipe.Named("Q4_K_M");
        int[] chosen = [.. Enumerable.Range(0, 24).Where(layer =>
            recipe.For($"blk.{layer}.attn_v.weight", [256, 256], 24, tied: true) == DType.Q6_K)];
        Assert.Equal([0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23], chosen);
        Assert.Equal(DType.Q4_K, recipe.For("token_embd.weight", [512, 256], 24, tied: false));
        Assert.Equal(DType.F16, recipe.For("blk.0.ffn_down.weight", [64, 172], 24, tied: true));
        Assert.Throws<EngineException>(() => QuantizationRecipe.Named("Q3_K_XL"));
    }

    [Theory]
    [InlineData("Q2_K", DType.Q2_K, DType.IQ4_NL)]
    [InlineData("Q3_K", DType.Q3_K, DType.IQ4_NL)]
    [InlineData("IQ4_XS", DType.IQ4_XS, DType.IQ4_NL)]
    [InlineData("TQ2_0", DType.TQ2_0, DType.Q4_0)]
    [InlineData("Q1_0", DType.Q1_0, DType.Q4_0)]
    public void Rows_that_are_not_whole_blocks_fall_back_as_in_llama_cpp(string name, DType whole, DType fallback)
    {
        QuantizationRecipe recipe = QuantizationRecipe.Named(name);
        Assert.Equal(whole, recipe.For("blk.0.ffn_down.weight", [64, 512], 24, tied: true));
        Assert.Equal(fallback, recipe.For("blk.0.ffn_down.weight", [64, 864], 24, tied: true));
        Assert.Equal(DType.F16, recipe.For("blk.0.ffn_down.weight", [64, 172], 24, tied: true));
    }

    [Theory]
    [InlineData("llama", "Q4_K_M")]
    [InlineData("qwen2", "Q8_0")]
    [InlineData("llama", "Q2_K")]
    [InlineData("qwen2", "IQ4_XS")]
    public void A_synthetic_model_is_complete_and_repeatable(string architecture, string format)
    {
        var shape = new SyntheticShape(architecture, 2, 128, 256, 4, 2, 32, 300, true, 10000f, 512);
        SyntheticModel.WriteGguf(folder.File("a.gguf"), shape, QuantizationRecipe.Named(format), seed);
        SyntheticModel.WriteGguf(folder.File("b.gguf"), shape, QuantizationRecipe.Named(format), seed);
        Assert.Equal(File.ReadAllBytes(folder.File("a.gguf")), File.ReadAllBytes(folder.File("b.gguf")));
        using Checkpoint model = CheckpointFile.Open(folder.File("a.gguf"));
        foreach (string name in model.TensorNames)
            model[name].RequireFinite();
        Assert.Equal(architecture, (string?)model.Config["model_type"]);
        Assert.Equal(300, model.Config["vocab_size"]!.GetValue<int>());
        var tokens = (string[])model.Metadata["tokenizer.ggml.tokens"];
        Assert.Equal(300, tokens.Distinct().Count());
        Assert.Contains("Ċ", tokens);
        Assert.Contains("Ġt", tokens);
    }

    [Fact]
    public void A_synthetic_model_can_have_two_zeros_in_every_four_weights()
    {
        var shape = new SyntheticShape("llama", 2, 128, 256, 4, 2, 32, 300, true, 10000f, 512) { Sparsity = SparsityPattern.TwoOfFour };
        SyntheticModel.WriteGguf(folder.File("a.gguf"), shape, QuantizationRecipe.Named("Q8_0"), seed);
        using Checkpoint model = CheckpointFile.Open(folder.File("a.gguf"));
        foreach (string name in model.TensorNames.Where(name => model[name].Shape.Length == 2))
        {
            bool conforms = model[name].ToFloats().Chunk(4).All(static four => four.Count(static value => value == 0) >= 2);
            Assert.Equal(name != "model.embed_tokens.weight", conforms);
        }
    }

    [Fact]
    public void A_synthetic_model_can_have_a_part_of_the_weights_of_each_row_zero()
    {
        var shape = new SyntheticShape("llama", 2, 128, 256, 4, 2, 32, 300, true, 10000f, 512) { Sparsity = SparsityPattern.Unstructured(0.75) };
        SyntheticModel.WriteGguf(folder.File("a.gguf"), shape, QuantizationRecipe.Named("F16"), seed);
        using Checkpoint model = CheckpointFile.Open(folder.File("a.gguf"));
        foreach (string name in model.TensorNames.Where(name => model[name].Shape.Length == 2))
        {
            bool conforms = model[name].ToFloats().Chunk((int)model[name].Columns).All(static row => row.Count(static value => value == 0) == row.Length * 3 / 4);
            Assert.Equal(name != "model.embed_tokens.weight", conforms);
        }
    }

    [Fact]
    public void Gpt2_matrices_are_transposed_and_its_tokenizer_named()
    {
        var config = (JsonObject)JsonNode.Parse(
            """
            {"model_type":"gpt2","n_embd":4,"n_layer":1,"n_head":2,"n_positions":8,"vocab_size":6,"layer_norm_epsilon":1e-5,
             "activation_function":"gelu_new"}
            """)!;
        using var model = new MemoryCheckpoint("gpt2", config);
        model.Add("wte.weight", [6, 4], CodecTests.Gaussian(new Random(seed), 24, 1));
        float[] qkv = CodecTests.Gaussian(new Random(seed), 48, 1);
        model.Add("h.0.attn.c_attn.weight", [4, 12], qkv);
        model.Add("h.0.attn.c_attn.bias", [12], qkv.AsSpan(0, 12));
        model.AddAsset("tokenizer.json", Encoding.UTF8.GetBytes(
            """
            {"added_tokens":[{"id":5,"content":"<|end|>","special":true}],"pre_tokenizer":{"type":"ByteLevel","use_regex":true},
             "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}
            """));
        GgufConverter.Convert(model, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using Checkpoint read = CheckpointFile.Open(folder.File("m.gguf"));
        TensorView transposed = read["transformer.h.0.attn.c_attn.weight"];
        Assert.Equal([12L, 4L], transposed.Shape);
        float[] values = transposed.ToFloats();
        for (int i = 0; i < 48; i++)
            Assert.Equal(qkv[i], values[i % 12 * 4 + i / 12]);
        Assert.False(read.Config["conv1d_transposed"]!.GetValue<bool>());
        Assert.Equal(["a", "b", "ab", "[PAD3]", "[PAD4]", "<|end|>"], (string[])read.Metadata["tokenizer.ggml.tokens"]);
        Assert.Equal([1, 1, 1, 5, 5, 3], (int[])read.Metadata["tokenizer.ggml.token_type"]);
        Assert.Equal(["a b"], (string[])read.Metadata["tokenizer.ggml.merges"]);
        Assert.Equal("gpt-2", read.Metadata["tokenizer.ggml.pre"]);
    }

    private static MemoryCheckpoint Llama(Random random, string? scaling)
    {
        var config = (JsonObject)JsonNode.Parse(
            """
            {"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":32,
             "intermediate_size":256,"vocab_size":96,"max_position_embeddings":512,"rms_norm_eps":1e-5,"rope_theta":10000,
             "tie_word_embeddings":true,"hidden_act":"silu"}
            """)!;
        if (scaling is not null)
            config["rope_scaling"] = JsonNode.Parse(scaling);
        var model = new MemoryCheckpoint("llama", config);
        void Add(string name, params long[] shape) => model.Add(
            name, shape, CodecTests.Gaussian(random, (int)shape.Aggregate(1L, static (product, dimension) => product * dimension), 0.1f));
        Add("model.embed_tokens.weight", 96, 64);
        Add("model.layers.0.input_layernorm.weight", 64);
        Add("model.layers.0.self_attn.q_proj.weight", 64, 64);
        Add("model.layers.0.self_attn.k_proj.weight", 32, 64);
        Add("model.layers.0.self_attn.v_proj.weight", 32, 64);
        Add("model.layers.0.self_attn.o_proj.weight", 64, 64);
        Add("model.layers.0.post_attention_layernorm.weight", 64);
        Add("model.layers.0.mlp.gate_proj.weight", 256, 64);
        Add("model.layers.0.mlp.up_proj.weight", 256, 64);
        Add("model.layers.0.mlp.down_proj.weight", 64, 256);
        Add("model.norm.weight", 64);
        return model;
    }
}
