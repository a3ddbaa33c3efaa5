using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.ExpertModels;

namespace Engine.Tests.Checkpoints;

/// <summary>Mixtures of experts in GGUF: they are written as llama.cpp has them, and read back as the same plan.</summary>
public sealed class ExpertConverterTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("mixtral", "llama", "{}", false)]
    [InlineData("mixtral", "llama", "{}", true)]
    [InlineData("qwen2_moe", "qwen2moe", "{}", false)]
    [InlineData("qwen2_moe", "qwen2moe", "{}", true)]
    [InlineData("qwen3_moe", "qwen3moe", """{"norm_topk_prob": true}""", false)]
    [InlineData("olmoe", "olmoe", "{}", true)]
    [InlineData("deepseek", "deepseek", """{"first_k_dense_replace": 1}""", false)]
    public void A_mixture_is_written_and_read_back(string family, string architecture, string differences, bool fused)
    {
        TinyModel model = Make(family, differences, family == "deepseek" ? [0] : []);
        using MemoryCheckpoint source = model.ToCheckpoint();
        ModelPlan plan = ModelPlanReader.Read(source);
        using MemoryCheckpoint laid = (fused ? Fuse(model) : model).ToCheckpoint();
        GgufConverter.Convert(laid, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));

        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        Assert.Equal(architecture, file.Metadata["general.architecture"]);
        Assert.Equal([Experts, Width, Hidden], file["blk.1.ffn_gate_exps.weight"].Shape);
        Assert.Equal([Experts, Hidden, Width], file["blk.2.ffn_down_exps.weight"].Shape);
        Assert.Equal([Experts, Hidden], file["blk.2.ffn_gate_inp.weight"].Shape);
        if (family == "qwen2_moe")
        {
            Assert.Equal([Hidden], file["blk.0.ffn_gate_inp_shexp.weight"].Shape);
        }
        Assert.DoesNotContain(file.TensorNames, static name => name.Contains(".ffn_gate.0.", StringComparison.Ordinal));

        using Checkpoint read = CheckpointFile.Open(folder.File("m.gguf"));
        ModelPlan again = ModelPlanReader.Read(read);
        Assert.Equal(family, again.Family);
        Assert.Equal(Weights(source, plan), Weights(read, again));
        for (int layer = 0; layer < Layers; layer++)
        {
            BlockPlan before = plan.Layers.Blocks[layer], after = again.Layers.Blocks[layer];
            Assert.Equal(before.FeedForward?.Width, after.FeedForward?.Width);
            Assert.Equal($"{before.Experts?.Router}", $"{after.Experts?.Router}");
            Assert.Equal(before.Experts?.Shared ?? [], after.Experts?.Shared ?? []);
            Assert.Equal(before.Experts?.Router.Logits.Parts.Length, after.Experts?.Router.Logits.Parts.Length);
            Assert.Equal(before.Attention!.NormsWholeProjection, after.Attention!.NormsWholeProjection);
        }
    }

    [Fact]
    public void Experts_of_old_files_have_tensors_of_their_own()
    {
        TinyModel model = Make("mixtral");
        using MemoryCheckpoint source = model.ToCheckpoint();
        GgufConverter.Convert(source, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        MemoryCheckpoint old = GgufCopy.Of(file, keep: static name => !name.Contains("_exps", StringComparison.Ordinal));
        foreach (string name in file.TensorNames.Where(static name => name.Contains("_exps", StringComparison.Ordinal)))
        {
            TensorView tensor = file[name];
            for (int expert = 0; expert < Experts; expert++)
            {
                TensorView slice = tensor.SliceRows(expert * tensor.Shape[1], tensor.Shape[1]);
                old.Add(name.Replace("_exps.", $".{expert}.", StringComparison.Ordinal), slice.DType, slice.Shape, slice.Bytes);
            }
        }
        using var vocabulary = new GgufVocabulary(old);
        Assert.Equal("blk.2.ffn_down.5.weight", vocabulary.RawName("model.layers.2.mlp.experts.5.down_proj.weight"));
        ModelPlan plan = ModelPlanReader.Read(vocabulary);
        Assert.Equal("mixtral", plan.Family);
        Assert.Equal(Weights(source, ModelPlanReader.Read(source)), Weights(vocabulary, plan));
    }

    [Fact]
    public void Dense_layers_of_qwen_are_seen_by_their_tensors()
    {
        using MemoryCheckpoint source = Make("qwen3_moe", """{"norm_topk_prob": true}""").ToCheckpoint();
        GgufConverter.Convert(source, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        MemoryCheckpoint mixed = GgufCopy.Of(
            file, keep: static name => !name.StartsWith("blk.1.ffn_", StringComparison.Ordinal) || name == "blk.1.ffn_norm.weight");
        mixed.Add("blk.1.ffn_gate.weight", [DenseWidth, Hidden], new float[DenseWidth * Hidden]);
        mixed.Add("blk.1.ffn_up.weight", [DenseWidth, Hidden], new float[DenseWidth * Hidden]);
        mixed.Add("blk.1.ffn_down.weight", [Hidden, DenseWidth], new float[DenseWidth * Hidden]);
        using var vocabulary = new GgufVocabulary(mixed);
        Assert.Equal([null, DenseWidth, null], ModelPlanReader.Read(vocabulary).Layers.Blocks.Select(static block => block.FeedForward?.Width));
    }

    [Theory]
    [InlineData("qwen2moe.expert_used_count", null, "missing")]
    [InlineData("qwen2moe.expert_gating_func", 2u, "expected 1 (softmax), found 2")]
    [InlineData("qwen2moe.expert_weights_norm", 1u, "expected true or false")]
    public void Metadata_that_does_not_fit_is_refused(string key, object? value, string reason)
    {
        using MemoryCheckpoint source = Make("qwen2_moe").ToCheckpoint();
        GgufConverter.Convert(source, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        using var vocabulary = new GgufVocabulary(GgufCopy.Of(file, new Dictionary<string, object?> { [key] = value }));
        EngineException error = Assert.Throws<EngineException>(() => vocabulary.Config);
        Assert.Equal(key, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("qwen3_moe", "{}", "norm_topk_prob")]
    [InlineData("olmoe", """{"norm_topk_prob": true}""", "norm_topk_prob")]
    [InlineData("olmoe", """{"clip_qkv": 8.0}""", "clip_qkv")]
    [InlineData("qwen2_moe", """{"decoder_sparse_step": 2}""", "decoder_sparse_step")]
    [InlineData("qwen2_moe", """{"mlp_only_layers": [0]}""", "mlp_only_layers")]
    public void What_gguf_has_no_place_for_is_refused(string family, string differences, string key)
    {
        using MemoryCheckpoint model = Make(family, differences).ToCheckpoint();
        EngineException error = Assert.Throws<EngineException>(
            () => GgufConverter.Convert(model, folder.File("m.gguf"), QuantizationRecipe.Named("F32")));
        Assert.Equal(key, error.Item);
    }

    [Fact]
    public void Experts_that_differ_in_width_or_number_are_refused()
    {
        TinyModel ragged = Make("mixtral");
        Resize(ragged, 1, 2, 8);
        Assert.Equal("model.layers.1.block_sparse_moe.experts.2.w1.weight", Refuse(ragged).Item);
        TinyModel fewer = Make("olmoe");
        Remove(fewer, 2, 5);
        CutRouter(fewer, 2, 5);
        Assert.Contains("expected 6 experts, found 5", Refuse(fewer).Reason, StringComparison.Ordinal);

        EngineException Refuse(TinyModel model)
        {
            using MemoryCheckpoint checkpoint = model.ToCheckpoint();
            return Assert.Throws<EngineException>(
                () => GgufConverter.Convert(checkpoint, folder.File("m.gguf"), QuantizationRecipe.Named("F32")));
        }
    }
}
