using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.ExpertModels;

namespace Engine.Tests.Plans;

/// <summary>Mixtures of experts that cannot be computed as asked are refused, with the key or tensor and what was found.</summary>
public sealed class ExpertRefusalTests
{
    /// <summary>Family, what is changed in its configuration, the item that the message must name, and a part of the reason.</summary>
    public static TheoryData<string, string, string, string> Configurations => new()
    {
        { "mixtral", """{"num_experts_per_tok": 7}""", "num_experts_per_tok", "at most the 6 experts of layer 0; found 7" },
        { "mixtral", """{"num_experts_per_tok": [2, 2, 7]}""", "num_experts_per_tok", "of layer 2" },
        { "qwen3_moe", """{"num_experts_per_tok": null}""", "num_experts_per_tok", "missing" },
        { "qwen3_moe", """{"num_experts_per_tok": 0}""", "num_experts_per_tok", "found 0" },
        { "mixtral", """{"num_local_experts": null}""", "num_local_experts", "missing" },
        { "qwen2_moe", """{"num_experts": "6"}""", "num_experts", "found \"6\"" },
        { "mixtral", """{"hidden_act": "relu"}""", "hidden_act", "found 'relu'" },
        { "qwen2_moe", """{"norm_topk_prob": 1}""", "norm_topk_prob", "true or false" },
        { "qwen2_moe", """{"decoder_sparse_step": 0}""", "decoder_sparse_step", "found 0" },
        { "qwen2_moe", """{"mlp_only_layers": 1}""", "mlp_only_layers", "array" },
        { "qwen2_moe", """{"mlp_only_layers": [-1]}""", "mlp_only_layers[0]", "found -1" },
        { "qwen2_moe", """{"mlp_only_layers": [1]}""", "", "model.layers.1.mlp.gate_proj.weight" },
        { "olmoe", """{"clip_qkv": 0}""", "clip_qkv", "above zero" },
        { "mixtral", """{"clip_qkv": 8}""", "clip_qkv", "capped" },
        { "mixtral", """{"routed_scaling_factor": 2.5}""", "routed_scaling_factor", "found 2.5" },
        { "qwen3_moe", """{"n_group": 2}""", "n_group", "no groups" },
        { "qwen3_moe", """{"model_type": "qwen2_moe", "shared_expert_intermediate_size": null}""", "shared_expert_intermediate_size", "missing" },
        { "qwen2_moe", """{"model_type": "qwen3_moe"}""", "", "q_norm" },
        { "phimoe", """{"num_experts_per_tok": 1}""", "num_experts_per_tok", "chooses 2 experts; found 1" },
        { "phimoe", """{"router_jitter_noise": 0}""", "router_jitter_noise", "above zero" },
        { "phimoe", """{"attention_bias": false}""", "attention_bias", "q_proj.bias exists" },
        { "deepseek", """{"first_k_dense_replace": -1}""", "first_k_dense_replace", "found -1" },
        { "deepseek", """{"first_k_dense_replace": 1}""", "", "model.layers.0.mlp.gate_proj.weight" },
        { "deepseek", """{"scoring_func": "sigmoid"}""", "scoring_func", "expected softmax" },
        { "deepseek", """{"routed_scaling_factor": 16.0}""", "routed_scaling_factor", "no scale" },
        { "deepseek", """{"n_shared_experts": 0}""", "", "shared_experts.gate_proj.weight" },
    };

    [Theory]
    [MemberData(nameof(Configurations))]
    public void A_configuration_is_refused(string family, string differences, string item, string reason)
    {
        EngineException error = Refuse(Make(family, differences));
        Assert.Equal(family, error.File);
        Assert.Equal(item, error.Item ?? "");
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Missing_experts_are_named_in_a_few_words()
    {
        foreach (string family in Families)
        {
            TinyModel model = Make(family);
            for (int layer = 0; layer < Layers; layer++)
            {
                Array.ForEach([0, 2, 3], expert => Remove(model, layer, expert));
            }
            string[] names = UsesNumbers(family) ? NumberedNames : UsualNames;
            string module = UsesNumbers(family) ? "block_sparse_moe" : "mlp";
            Assert.Equal(
                $"{family}: 27 tensors are missing from this {family} model: "
                + string.Join(", ", names.Select(name => $"model.layers.{{0…2}}.{module}.experts.{{0,2…3}}.{name}.weight")),
                Refuse(model).Message);
        }
    }

    [Fact]
    public void Experts_that_the_router_does_not_know_are_no_experts()
    {
        foreach (string family in Families)
        {
            TinyModel model = Make(family);
            CutRouter(model, 1, 4);
            EngineException error = Refuse(model);
            Assert.Equal($"{Module(family, 1)}.gate.weight", error.Item);
            Assert.Equal("expected a row for each of the experts, the last of which is number 5; found 4 rows", error.Reason);
        }
    }

    [Fact]
    public void Layers_that_kept_too_few_experts_are_refused()
    {
        TinyModel model = Make("qwen3_moe");
        Array.ForEach([1, 2, 3, 4, 5], expert => Remove(model, 2, expert));
        CutRouter(model, 2, 1);
        EngineException error = Refuse(model);
        Assert.Equal(("num_experts_per_tok", "expected at most the 1 experts of layer 2; found 2"), (error.Item, error.Reason));
    }

    public static TheoryData<string, string> Layouts
    {
        get
        {
            var layouts = new TheoryData<string, string>();
            foreach (string family in Families)
            {
                foreach (string layout in (string[])["single", "fused", "stacked"])
                {
                    layouts.Add(family, layout);
                }
            }
            return layouts;
        }
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Every_tensor_is_needed(string family, string layout)
    {
        TinyModel model = Laid(Make(family), layout);
        // Output biases are taken where they exist, whatever attention_bias says.
        foreach ((string tensor, (long[], float[]) value) in model.Tensors.Where(static entry =>
            entry.Key.Contains(".1.", StringComparison.Ordinal) && !entry.Key.EndsWith("o_proj.bias", StringComparison.Ordinal)).ToArray())
        {
            model.Tensors.Remove(tensor);
            EngineException error = Refuse(model);
            Assert.True(error.Message.Contains(tensor, StringComparison.Ordinal), $"{model} without {tensor}: {error.Message}");
            model.Tensors.Add(tensor, value);
        }
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Every_shape_is_checked(string family, string layout)
    {
        TinyModel model = Laid(Make(family), layout);
        foreach ((string tensor, (long[] Shape, float[] Values) value) in model.Tensors.Where(static entry => entry.Key.Contains(".1.", StringComparison.Ordinal)).ToArray())
        {
            long[] actual = value.Shape;
            long[][] wrongShapes =
                [[.. actual[..^1], actual[^1] + 1], [.. actual[..^1], actual[^1] - 1], [actual[0] - 1, .. actual[1..]], [1, .. actual], []];
            foreach (long[] shape in wrongShapes)
            {
                model.Tensors[tensor] = (shape, new float[shape.Aggregate(1L, static (a, b) => a * b)]);
                // Experts that are in one tensor are as many as the router has rows; which of the two is wrong cannot be told.
                bool couldBeRouter = layout != "single" && tensor.EndsWith("mlp.gate.weight", StringComparison.Ordinal) && shape.Length == 2;
                EngineException error = Refuse(model);
                Assert.True(
                    couldBeRouter ? error.Item!.StartsWith(tensor.Replace("gate.weight", ""), StringComparison.Ordinal) : error.Item == tensor,
                    $"{model}, {tensor} [{string.Join(", ", shape)}]: {error.Message}");
            }
            model.Tensors[tensor] = value;
        }
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Whatever_a_configuration_says_it_makes_a_plan_or_our_exception(string family, string layout)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        string[] values = ["null", "0", "-1", "1", "2", "3", "6", "7", "1e308", "2147483647", "536870911", "0.5", "true", "\"x\"", "[]", "{}",
            "[1,2,3]", "[null]", "[[1],[2],[3]]"];
        TinyModel model = Laid(Make(family), layout);
        foreach (string tensor in model.Tensors.Keys.Where(_ => random.Next(8) == 0).ToArray())
        {
            model.Tensors.Remove(tensor);
        }
        string[] keys = [.. model.Config.Select(static pair => pair.Key), "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers", "clip_qkv",
            "num_local_experts", "first_k_dense_replace", "moe_layer_freq", "n_shared_experts", "n_group", "topk_group", "topk_method",
            "routed_scaling_factor", "scoring_func"];
        for (int round = 0; round < 100; round++)
        {
            using MemoryCheckpoint checkpoint = model.ToCheckpoint();
            checkpoint.Config[keys[random.Next(keys.Length)]] = JsonNode.Parse(values[random.Next(values.Length)]);
            checkpoint.Config[keys[random.Next(keys.Length)]] = JsonNode.Parse(values[random.Next(values.Length)]);
            try
            {
                ModelPlanReader.Read(checkpoint);
            }
            catch (Exception exception) when (exception is not EngineException)
            {
                Assert.Fail($"{model}, configuration of seed {seed}: {checkpoint.Config.ToJsonString()}: {exception}");
            }
            catch (EngineException)
            {
            }
        }
    }

    private static TinyModel Laid(TinyModel model, string layout) => layout switch
    {
        "single" => model,
        "fused" => Fuse(model),
        _ => Fuse(model, ".weight", gateWithUp: false),
    };

    private static EngineException Refuse(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
    }
}
