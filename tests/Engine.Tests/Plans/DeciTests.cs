using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.FamiliesAgainstOracleTests;

namespace Engine.Tests.Plans;

/// <summary>Nemotron-NAS and DeciLM: layers of several kinds give the logits of the authors' forward pass in doubles.</summary>
public sealed class DeciTests
{
    private const string Blocks = """
        [{"attention": {"n_heads_in_group": 2, "no_op": false, "replace_with_linear": false, "sparsify": null, "unshifted_sink": false},
          "ffn": {"ffn_mult": 2.625, "no_op": false, "replace_with_linear": false}},
         {"attention": {"n_heads_in_group": null, "no_op": true, "replace_with_linear": false}, "ffn": {"ffn_mult": 20.0, "no_op": false, "replace_with_linear": false}},
         {"attention": {"n_heads_in_group": null, "no_op": false, "replace_with_linear": true}, "ffn": {"ffn_mult": 1.0, "no_op": false, "replace_with_linear": false}},
         {"attention": {"n_heads_in_group": null, "no_op": true, "replace_with_linear": false}, "ffn": {"ffn_mult": null, "no_op": true, "replace_with_linear": false}},
         {"attention": {"n_heads_in_group": 4, "no_op": false, "replace_with_linear": false}, "ffn": {"ffn_mult": 1.0, "no_op": false, "replace_with_linear": false}}]
        """;

    /// <summary>GGUF has no place for this one.</summary>
    private const string LinearFeedForward = """
        {"attention": {"n_heads_in_group": 1, "no_op": false, "replace_with_linear": false}, "ffn": {"ffn_mult": null, "no_op": false, "replace_with_linear": true}}
        """;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Layers_of_all_kinds_give_the_logits_of_the_forward_pass(bool reference)
    {
        TinyModel model = DeciOracle.Make(Random.Shared.Next(), $"{Blocks.TrimEnd()[..^1]}, {LinearFeedForward}]");
        int[] tokens = model.Tokens(15);
        using var folder = new TemporaryFolder();
        using var harness = new ModelHarness(
            CheckpointFile.Open(LayerSurgery.Write(model, folder)), reference ? new ReferenceBackend() : new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4);
        AssertClose(new DeciOracle(model).Logits(tokens), harness.Run(tokens, chunk: 6), reference ? ReferenceTolerance : 1e-4, model);
    }

    [Fact]
    public void Gguf_has_them_as_llama_cpp_writes_them()
    {
        TinyModel model = DeciOracle.Make(Random.Shared.Next(), Blocks);
        int[] tokens = model.Tokens(11);
        using var folder = new TemporaryFolder();
        string path = folder.File("model.gguf");
        using (Checkpoint source = CheckpointFile.Open(LayerSurgery.Write(model, folder)))
        {
            GgufConverter.Convert(source, path, QuantizationRecipe.Named("F32"));
        }
        using (GgufFile file = GgufFile.Open(path))
        {
            Assert.Equal("deci", file.Metadata["general.architecture"]);
            Assert.Equal([4, 0, 4, 0, 4], ((int[])file.Metadata["deci.attention.head_count"]));
            Assert.Equal([2, 0, 0, 0, 1], ((int[])file.Metadata["deci.attention.head_count_kv"]));
            Assert.Equal([256, 512, 256, 0, 256], ((int[])file.Metadata["deci.feed_forward_length"]));
            Assert.Equal([24, 24], file["blk.2.attn_output.weight"].Shape);
            Assert.False(file.TryGetTensor("blk.2.attn_q.weight", out _));
            Assert.DoesNotContain(file.TensorNames, static name => name.StartsWith("blk.3.", StringComparison.Ordinal));
        }
        using var harness = new ModelHarness(CheckpointFile.Open(path), new ReferenceBackend(), pageTokens: 4);
        AssertClose(new DeciOracle(model).Logits(tokens), harness.Run(tokens, chunk: 4), ReferenceTolerance, model);
    }

    [Fact]
    public void Deci_7b_says_key_heads_per_layer()
    {
        TinyModel model = TinyModels.Make("llama tied", Random.Shared.Next());
        int[] tokens = model.Tokens(9);
        double[][] expected = OracleLogits(model, tokens);
        // A copy of each key and value head is the same model with as many of them as of queries.
        foreach (string linear in (string[])["k_proj", "v_proj"])
        {
            string name = $"model.layers.1.self_attn.{linear}.weight";
            float[][] rows = [.. model.Tensors[name].Values.Chunk(32 * 8)];
            model.Tensors[name] = ([32, 32], [.. rows.SelectMany(static head => head.Concat(head))]);
        }
        model.Config["model_type"] = "deci";
        model.Config["num_key_value_heads_per_layer"] = new JsonArray(2, 4, 2);
        using var folder = new TemporaryFolder();
        using var harness = new ModelHarness(CheckpointFile.Open(LayerSurgery.Write(model, folder)), new ReferenceBackend(), pageTokens: 4);
        Assert.Equal([2, 4, 2], harness.Plan.Layers.KvSlots.Select(static slot => slot.KvHeads));
        AssertClose(expected, harness.Run(tokens, chunk: 9), ReferenceTolerance, model);
    }

    [Theory]
    [InlineData("attention", "window_length", "512", "block_configs[1].attention.window_length", "not supported")]
    [InlineData("attention", "unshifted_sink", "true", "block_configs[1].attention.unshifted_sink", "not supported")]
    [InlineData("attention", "mamba", "{}", "block_configs[1].attention.mamba", "not supported")]
    [InlineData("attention", "n_heads_in_group", "3", "block_configs[1].attention.n_heads_in_group", "expected a divisor of the 4 heads; found 3")]
    [InlineData("attention", "no_op", "1", "block_configs[1].attention.no_op", "expected true or false; found 1")]
    [InlineData("ffn", "ffn_mult", "-1", "block_configs[1].ffn.ffn_mult", "expected a number above zero; found -1")]
    [InlineData("ffn", "ffn_mult", "1e300", "block_configs[1].ffn.ffn_mult", "expected a number above zero")]
    [InlineData("ffn", "moe", "{}", "block_configs[1].ffn.moe", "not supported")]
    [InlineData("ffn", "hidden_act", "\"gelu\"", "block_configs[1].ffn.hidden_act", "expected the model's own")]
    public void What_is_not_computed_is_refused_by_name(string section, string key, string value, string item, string reason)
    {
        TinyModel model = DeciOracle.Make(Random.Shared.Next(), Blocks);
        JsonNode block = model.Config["block_configs"]![1]!;
        block["attention"]!["no_op"] = false;
        block["attention"]!["n_heads_in_group"] = 2;
        block[section]![key] = JsonNode.Parse(value);
        EngineException error = Refusal(model);
        Assert.Equal(item, error.Item);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Entries_are_counted_and_tensors_are_checked_against_them()
    {
        TinyModel model = DeciOracle.Make(Random.Shared.Next(), Blocks);
        model.AddMatrix("model.layers.1.self_attn.q_proj.weight", 24, 24, 24);
        Assert.Contains("not known in a deci model: model.layers.1.self_attn.q_proj.weight", Refusal(model).Reason, StringComparison.Ordinal);
        model.Config["num_hidden_layers"] = 4;
        EngineException error = Refusal(model);
        Assert.Equal(("block_configs", "expected 4 entries, one per layer; found 5"), (error.Item, error.Reason));
        model.Config["block_configs"] = "all";
        Assert.Equal("block_configs", Refusal(model).Item);
    }

    private static EngineException Refusal(TinyModel model)
    {
        using var folder = new TemporaryFolder();
        LayerSurgery.Write(model, folder);
        return Assert.Throws<EngineException>(() =>
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            ModelPlanReader.Read(checkpoint);
        });
    }
}
