using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>RMoE models that cannot be computed as asked are refused, with the key or tensor and what was found.</summary>
public sealed class RecurrentRouterRefusalTests
{
    private const string Gru = "llama_moe_rnn", Rnn = "llama_moe_rnn plain cell", Whole = "llama_moe_rnn shared expert, bias, first layer dense",
        Plain = "llama_moe_rnn without recurrence";

    /// <summary>Model, what is changed in its configuration but not in its tensors, the item that the message must name, and a part of the reason.</summary>
    public static TheoryData<string, string, string, string> Configurations => new()
    {
        { Gru, """{"moe_num_layers": null}""", "moe_num_layers", "missing" },
        { Gru, """{"moe_num_layers": 0}""", "moe_num_layers", "found 0" },
        { Gru, """{"moe_num_layers": 4}""", "moe_num_layers", "at most the 3 layers; found 4" },
        { Gru, """{"moe_num_layers": 2}""", "", "model.layers.0.mlp.gate_proj.weight" },
        { Gru, """{"moe_router_type": 1}""", "moe_router_type", "expected a string" },
        { Gru, """{"moe_router_type": "rnn"}""", "", "model.rnn_router.weight_ir" },
        { Gru, """{"moe_router_type": "other"}""", "", "model.layers.{0…2}.block_sparse_moe.gate.weight" },
        { Gru, """{"moe_router_type": null}""", "", "model.layers.{0…2}.block_sparse_moe.gate.weight" },
        { Rnn, """{"moe_router_type": "gru"}""", "", "model.rnn_router.weight_iz" },
        { Plain, """{"moe_router_type": "gru"}""", "", "18 tensors are missing" },
        { Gru, """{"moe_router_rnn_hidden_size": 15}""", "model.rnn_router.weight_ir", "expected shape [15, 15]; found [14, 14]" },
        { Gru, """{"moe_router_rnn_hidden_size": null}""", "model.rnn_router.weight_ir", "expected shape [256, 256]" },
        { Gru, """{"moe_router_rnn_hidden_size": 0}""", "moe_router_rnn_hidden_size", "found 0" },
        { Gru, """{"add_moe_share_expert": true}""", "", "model.layers.{0…2}.mlp_share.gate_proj.weight" },
        { Gru, """{"add_moe_bias": true}""", "", "model.layers.{0…2}.block_sparse_moe.bias" },
        { Gru, """{"add_moe_bias": 1}""", "add_moe_bias", "true or false" },
        { Whole, """{"add_moe_share_expert": false}""", "", "mlp_share" },
        { Whole, """{"add_moe_bias": false}""", "", "block_sparse_moe.bias" },
        { Whole, """{"share_weight": "half"}""", "share_weight", "expected a finite number" },
        { Whole, """{"moe_weight": 1e300}""", "moe_weight", "float32" },
        { Whole, """{"num_experts_per_tok": 7}""", "num_experts_per_tok", "at most the 6 experts of layer 1; found 7" },
        { Gru, """{"routed_scaling_factor": 2}""", "routed_scaling_factor", "no scale" },
        { Gru, """{"architectures": ["MixtralForCausalLM"]}""", "architectures", "llama_moe_rnn has LlamaForCausalLM" },
    };

    /// <summary>Names of models with tensors of every kind.</summary>
    public static TheoryData<string> Models => [Gru, Rnn, Whole];

    [Theory]
    [MemberData(nameof(Configurations))]
    public void A_configuration_is_refused(string name, string differences, string item, string reason)
    {
        TinyModel model = MoeModels.Make(name, 1);
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            model.Config[key] = value?.DeepClone();
        }
        EngineException error = Refuse(model);
        Assert.Equal(name, error.File);
        Assert.Equal(item, error.Item ?? "");
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Every_tensor_of_routers_and_what_is_beside_them_is_needed(string name)
    {
        TinyModel model = MoeModels.Make(name, 1);
        foreach (string tensor in OfRouters(model))
        {
            (long[], float[]) value = model.Tensors[tensor];
            model.Tensors.Remove(tensor);
            EngineException error = Refuse(model);
            Assert.True(error.Message.Contains(tensor, StringComparison.Ordinal), $"without {tensor}: {error.Message}");
            model.Tensors.Add(tensor, value);
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Every_shape_of_routers_and_what_is_beside_them_is_checked(string name)
    {
        TinyModel model = MoeModels.Make(name, 1);
        foreach (string tensor in OfRouters(model))
        {
            (long[] actual, float[] values) = model.Tensors[tensor];
            long[][] wrongShapes = [[.. actual[..^1], actual[^1] + 1], [.. actual[..^1], actual[^1] - 1], [actual[0] - 1, .. actual[1..]], [1, .. actual], []];
            foreach (long[] shape in wrongShapes)
            {
                model.Tensors[tensor] = (shape, new float[shape.Aggregate(1L, static (a, b) => a * b)]);
                EngineException error = Refuse(model);
                Assert.True(error.Item == tensor, $"{tensor} [{string.Join(", ", shape)}]: {error.Message}");
            }
            model.Tensors[tensor] = (actual, values);
        }
    }

    [Fact]
    public void A_bias_that_an_expert_cannot_add_is_refused()
    {
        TinyModel model = MoeModels.Make(Whole, 1);
        model.AddBias("model.layers.2.block_sparse_moe.experts.3.w2.bias", 32);
        EngineException error = Refuse(model);
        Assert.Equal(("model.layers.2.block_sparse_moe.bias", "the bias is added by every expert, and expert 3 has one of its own"), (error.Item, error.Reason));
        model = MoeModels.Make(Whole, 1);
        MoeLayouts.Empty(model);
        error = Refuse(model);
        Assert.Equal("model.layers.1.block_sparse_moe.bias", error.Item);
        Assert.Contains("expert 1 has no elements", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Whatever_a_configuration_says_it_makes_a_plan_or_our_exception(string name)
    {
        Random random = Seed.Fresh();
        string[] values = ["null", "0", "-1", "1", "2", "3", "14", "1e308", "2147483647", "536870911", "0.5", "true", "\"gru\"", "\"rnn\"", "[]", "{}", "[1,2,3]"];
        TinyModel model = MoeModels.Make(name, 1);
        foreach (string tensor in model.Tensors.Keys.Where(_ => random.Next(20) == 0).ToArray())
        {
            model.Tensors.Remove(tensor);
        }
        string[] keys = [.. model.Config.Select(static pair => pair.Key)];
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
                Assert.Fail($"{name}: {checkpoint.Config.ToJsonString()}: {exception}");
            }
            catch (EngineException)
            {
            }
        }
    }

    private static string[] OfRouters(TinyModel model) => [.. model.Tensors.Keys.Where(static key => key.StartsWith("model.rnn_router.", StringComparison.Ordinal)
        || key.StartsWith("model.layers.1.mlp_share", StringComparison.Ordinal)
        || (key.StartsWith("model.layers.1.block_sparse_moe.", StringComparison.Ordinal) && !key.Contains(".experts.", StringComparison.Ordinal)))];

    private static EngineException Refuse(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
    }
}
