using System.Text;
using System.Text.Json;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary><c>expert_map.json</c>: experts that are one, under whichever of their names they are stored, and experts that were dropped.</summary>
public sealed class ExpertMapTests
{
    private const string FileName = "expert_map.json";

    /// <summary>Experts 0 and 3 are one, 1, 2 and 4 another; 5 was dropped.</summary>
    private static readonly int[] Labels = [4, 1, 1, 4, 1, -1];

    /// <summary>Where each expert's weights are.</summary>
    private static readonly int[] Source = [0, 1, 1, 0, 1, 5];

    public static TheoryData<string, string> Models => [.. new[] { "reference", "cpu" }.SelectMany(static backend =>
        new[] { "mixtral", "phimoe", "mixtral fused", "mixtral stacked" }.Select(model => (backend, model)))];

    [Theory]
    [MemberData(nameof(Models))]
    public void Merged_and_dropped_experts_give_the_logits_of_the_model_they_come_from(string backend, string name)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name.Split(' ')[0], 15, Merge, dropped: 5);
        Action<TinyModel> store = name.Split(' ')[^1] switch { "fused" => MoeLayouts.Fuse, "stacked" => MoeLayouts.Stack, _ => KeepOneName };
        string[] modules = [.. MoeLayouts.Mixtures(model).Select(prefix => name.Contains(' ') ? prefix.Replace("block_sparse_moe.", "mlp.") : prefix)];
        store(model);
        MemoryCheckpoint checkpoint = model.ToCheckpoint();
        checkpoint.AddAsset(FileName, JsonSerializer.SerializeToUtf8Bytes(modules.ToDictionary(static module => module[..^1], static _ => Labels)));
        using var harness = new ModelHarness(
            checkpoint, backend == "cpu" ? new CpuBackend(new CpuOptions { Threads = 2 }) : new ReferenceBackend(), pageTokens: 4, maxRows: 32);
        Assert.All(harness.Plan.Experts(), static experts => Assert.Equal((2, 5), (experts.Slots.Length, experts.Kept)));
        Assert.All(harness.Plan.Experts(), static experts => Assert.Equal([0, 1, 1, 0, 1, -1], experts.Map));
        float[][] chunks = harness.Run(tokens, chunk: 8);
        FamiliesAgainstOracleTests.AssertClose(expected, chunks, 1e-4, model);
        Assert.Equal(chunks, harness.Run(tokens, chunk: 1));
    }

    [Fact]
    public void Mixtures_that_are_not_named_are_as_they_are_stored()
    {
        TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
        ExpertsPlan[] plans = Read(model, """{"model.layers.1.block_sparse_moe": [0, 1, 2, 3, 4, -1]}""");
        Assert.Equal([0, 1, 2, 3, 4, 5], plans[0].Map);
        Assert.Equal([0, 1, 2, 3, 4, -1], plans[1].Map);
        Assert.Equal(5, plans[1].Slots.Length);
    }

    [Fact]
    public void A_folder_has_the_file_beside_its_weights()
    {
        using var folder = new TemporaryFolder();
        TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
        MoeLayouts.Compress(model);
        using (MemoryCheckpoint source = model.ToCheckpoint())
        {
            SafetensorsWriter.WriteFolder(folder.Path, [.. source.TensorNames.Where(static name => !name.Contains("0.block_sparse_moe.experts.1.", StringComparison.Ordinal))
                .Select(name => TensorSource.From(source[name]))]);
        }
        folder.Write("config.json", model.Config.ToJsonString());
        folder.Write(FileName, """{"model.layers.0.block_sparse_moe": [3, 2, 2, 3, -1, 5]}""");
        using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Contains("experts 0 and 3 are group 3, but their weights differ", error.Reason, StringComparison.Ordinal);
        folder.Write(FileName, """{"model.layers.0.block_sparse_moe": [0, 2, 2, 3, -1, 5]}""");
        using Checkpoint again = CheckpointFile.Open(folder.Path);
        ExpertsPlan plan = ModelPlanReader.Read(again).Experts().First();
        Assert.Equal([0, 1, 1, 2, -1, 3], plan.Map);
        Assert.Equal("model.layers.0.block_sparse_moe.experts.2.w1.right.weight", plan.Slots[1].In.Parts[0].LowRank!.A.Tensor);
    }

    [Fact]
    public void A_shared_expert_stays_beside_fewer_slots()
    {
        TinyModel model = MoeModels.Make("qwen2_moe", Random.Shared.Next());
        ExpertsPlan plan = Read(model, """{"model.layers.1.mlp": [-1, 0, 1, 2, -1, 3, 4, 5]}""")[1];
        Assert.Equal([-1, 0, 1, 2, -1, 3, 4, 5], plan.Map);
        Assert.Equal([new SharedExpert(6, 8)], plan.Shared);
        Assert.Equal(28, plan.Slots[6].Width);
    }

    [Fact]
    public void Copies_that_differ_are_refused()
    {
        foreach (string tensor in (string[])["w1", "w2", "w3"])
        {
            TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
            MoeLayouts.Merge(model); // 0, 1 and 4 are one
            string name = $"model.layers.2.block_sparse_moe.experts.4.{tensor}.weight";
            (long[] shape, float[] values) = model.Tensors[name];
            model.Tensors[name] = (shape, [.. values]);
            model.Tensors[name].Values[Random.Shared.Next(values.Length)] += 1;
            EngineException error = Assert.Throws<EngineException>(() => Read(model, """{"model.layers.2.block_sparse_moe": [0, 0, 1, 2, 0, 3]}"""));
            Assert.Equal("model.layers.2.block_sparse_moe", error.Item);
            Assert.Contains("experts 0 and 4 are group 0, but their weights differ", error.Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_group_that_is_not_stored_is_missed()
    {
        TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
        foreach (string name in model.Tensors.Keys.Where(static name => name.Contains("layers.0.block_sparse_moe.experts.3.", StringComparison.Ordinal)
            || name.Contains("layers.0.block_sparse_moe.experts.4.", StringComparison.Ordinal)).ToArray())
        {
            model.Tensors.Remove(name);
        }
        EngineException error = Assert.Throws<EngineException>(() => Read(model, """{"model.layers.0.block_sparse_moe": [0, 0, 0, 1, 1, -1]}"""));
        Assert.Contains("experts 0 and 1", error.Reason, StringComparison.Ordinal);
        error = Assert.Throws<EngineException>(() => Read(model, """{"model.layers.0.block_sparse_moe": [0, 1, 2, 3, 3, -1]}"""));
        Assert.Contains("3 tensors are missing", error.Reason, StringComparison.Ordinal);
        Assert.Contains("experts.3.w1.weight", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""[]""", null, "expected a JSON object")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,0,0,0,0,0], "model.layers.0.block_sparse_moe": [0,1,2,3,4,5]}""", null, "not valid JSON")]
    [InlineData("""{"model.layers.0.block_sparse_moe": """, null, "not valid JSON")]
    [InlineData("""{"model.layers.0.block_sparse_moe": 3}""", "model.layers.0.block_sparse_moe", "expected an array; found 3")]
    [InlineData("""{"model.layers.0.block_sparse_moe": null}""", "model.layers.0.block_sparse_moe", "expected an array; found null")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,1,2,3,4]}""", "model.layers.0.block_sparse_moe", "each of the router's 6 experts; found 5")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,1,2,3,4,6]}""", "model.layers.0.block_sparse_moe[5]", "from -1 to 5; found 6")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [-2,1,2,3,4,5]}""", "model.layers.0.block_sparse_moe[0]", "found -2")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,1,2.5,3,4,5]}""", "model.layers.0.block_sparse_moe[2]", "found 2.5")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,1,"2",3,4,5]}""", "model.layers.0.block_sparse_moe[2]", "found \"2\"")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [0,1,1e99,3,4,5]}""", "model.layers.0.block_sparse_moe[2]", "found 1e99")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [-1,-1,-1,-1,-1,-1]}""", "model.layers.0.block_sparse_moe", "all experts are dropped")]
    [InlineData("""{"model.layers.0.block_sparse_moe": [-1,0,-1,-1,-1,-1]}""", "num_experts_per_tok", "at most the 1 experts of layer 0; found 2")]
    [InlineData("""{"model.layers.3.block_sparse_moe": [0,1,2,3,4,5]}""", "model.layers.3.block_sparse_moe", "no mixture of experts of this name")]
    [InlineData("""{"model.layers.0.mlp": [0,1,2,3,4,5]}""", "model.layers.0.mlp", "no mixture of experts of this name")]
    public void A_file_that_does_not_fit_is_refused(string json, string? item, string reason)
    {
        EngineException error = Assert.Throws<EngineException>(() => Read(MoeModels.Make("mixtral", Random.Shared.Next()), json));
        Assert.Equal(item, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        Assert.Equal(item == "num_experts_per_tok" ? "mixtral" : Path.Combine("mixtral", FileName), error.File);
    }

    [Fact]
    public void A_model_without_experts_has_no_map()
    {
        using MemoryCheckpoint checkpoint = TinyModels.Make("llama tied", 1).ToCheckpoint();
        checkpoint.AddAsset(FileName, "{}"u8.ToArray());
        Assert.Contains("no experts", Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Gguf_has_no_word_for_it()
    {
        using var folder = new TemporaryFolder();
        using MemoryCheckpoint checkpoint = ExpertModels.Make("mixtral").ToCheckpoint();
        checkpoint.AddAsset(FileName, """{"model.layers.0.block_sparse_moe": [0, 1, 2, 3, 4, -1]}"""u8.ToArray());
        EngineException error = Assert.Throws<EngineException>(
            () => GgufConverter.Convert(checkpoint, Path.Combine(folder.Path, "m.gguf"), QuantizationRecipe.Named("F32")));
        Assert.Equal(Path.Combine("mixtral", FileName), error.File);
    }

    [Fact]
    public void Gguf_has_no_names_for_compressed_experts()
    {
        using var folder = new TemporaryFolder();
        TinyModel model = MoeModels.Make("mixtral", Random.Shared.Next());
        MoeLayouts.Compress(model);
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        EngineException error = Assert.Throws<EngineException>(
            () => GgufConverter.Convert(checkpoint, Path.Combine(folder.Path, "m.gguf"), QuantizationRecipe.Named("F32")));
        Assert.Contains("GGUF has no name", error.Reason, StringComparison.Ordinal);
    }

    private static ExpertsPlan[] Read(TinyModel model, string json)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        checkpoint.AddAsset(FileName, Encoding.UTF8.GetBytes(json));
        return [.. ModelPlanReader.Read(checkpoint).Experts()];
    }

    private static void Merge(TinyModel model) => MoeLayouts.Copy(model, static expert => Source[expert]);

    /// <summary>Of each group one expert is stored, not the first of it; a dropped one is there or is not.</summary>
    private static void KeepOneName(TinyModel model)
    {
        foreach ((int layer, string prefix) in MoeLayouts.Mixtures(model).Index())
        {
            int[] stored = layer == 0 ? [3, 4] : layer == 1 ? [0, 2, 5] : [0, 1, 3, 4];
            foreach (string name in model.Tensors.Keys.Where(name => Enumerable.Range(0, 6).Except(stored)
                .Any(expert => name.StartsWith($"{prefix}experts.{expert}.", StringComparison.Ordinal))).ToArray())
            {
                model.Tensors.Remove(name);
            }
        }
    }
}
