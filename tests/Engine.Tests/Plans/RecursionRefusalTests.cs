using System.Text;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Tests.Text;

namespace Engine.Tests.Plans;

/// <summary>Recursive models that ask for what is not computed, or do not say what they ask for.</summary>
public sealed class RecursionRefusalTests
{
    private const string Expert = """
        {"type": "expert", "router_type": "linear", "expert": {"router_func": "sigmoid", "alpha": 0.1, "sampling": "aux_loss"}}
        """;

    private const string Token = """{"type": "token", "router_type": "linear", "token": {"router_func": "softmax"}}""";

    /// <summary>Router, path of the setting, its value, the item of the message, a part of the reason.</summary>
    public static TheoryData<string?, string, string, string, string> Settings => new()
    {
        { Expert, "mor.mor.rand_router", "true", "mor.mor.rand_router", "random numbers" },
        { Expert, "mor.mor.type", "\"both\"", "mor.mor.type", "'both'" },
        { Expert, "mor.mor.type", "null", "mor.mor.type", "missing" },
        { Expert, "mor.mor.router_type", "\"conv\"", "mor.mor.router_type", "'conv'" },
        { Expert, "mor.mor.temp", "0", "mor.mor.temp", "above zero" },
        { Expert, "mor.mor.noise", "0.1", "mor.mor.noise", "not known" },
        { Expert, "mor.mor.expert", "null", "mor.mor.expert", "missing" },
        { Expert, "mor.mor.expert.router_func", "\"relu\"", "mor.mor.expert.router_func", "'relu'" },
        { Expert, "mor.mor.expert.sampling", "\"topk\"", "mor.mor.expert.sampling", "'topk'" },
        { Expert, "mor.mor.expert.gating", "\"hard\"", "mor.mor.expert.gating", "'hard'" },
        { Expert, "mor.mor.expert.threshold", "0.3", "mor.mor.expert.threshold", "not known" },
        { Expert, "mor.mor.capacity", "\"1.0,0.5\"", "mor.mor.capacity", "expected 3 numbers" },
        { Expert, "mor.mor.capacity", "0.5", "mor.mor.capacity", "expected 3 numbers" },
        { Expert, "mor.mor.capacity", "\"1.0,0.5,0.7\"", "mor.mor.capacity", "do not rise" },
        { Expert, "mor.mor.capacity", "\"1.5,0.5,0.3\"", "mor.mor.capacity", "at most 1" },
        { Expert, "mor.mor.capacity", "\"1.0,0.5,0\"", "mor.mor.capacity", "above 0" },
        { Expert, "mor.mor.capacity", "\"1.0,half,NaN\"", "mor.mor.capacity", "expected numbers" },
        { Expert, "mor.mor.enable", "false", "mor.mor.enable", "expected true" },
        { Expert, "mor.mor", "null", "mor", "no router" },
        { Expert, "mor.recursive.sharing", "\"middle_sequence\"", "mor.recursive.sharing", "cycle and middle_cycle only" },
        { Token, "mor.mor.token.router_func", "\"tanh\"", "mor.mor.token.router_func", "softmax or sigmoid" },
        { Token, "mor.mor.token.balancing", "\"dice\"", "mor.mor.token.balancing", "'dice'" },
        { Token, "mor.mor.token.top_k", "2", "mor.mor.token.top_k", "not known" },
        { Token, "mor.mor.token.balancing", "\"loss_free\"", "model.layers.1.router_bias", "missing" },
        { null, "mor.recursive", "null", "mor.recursive", "missing" },
        { null, "mor.recursive.num_recursion", "4", "mor.recursive.num_recursion", "divisor of the 6 layers" },
        { null, "mor.recursive.num_recursion", "12", "mor.recursive.num_recursion", "divisor of the 6 layers" },
        { null, "mor.recursive.num_recursion", "null", "mor.recursive.num_recursion", "missing" },
        { null, "mor.recursive.num_recursion", "1", "mor.recursive.sharing", "only cycle and sequence" },
        { null, "mor.recursive.base_depth", "3", "mor.recursive.base_depth", "2 each; found 3" },
        { null, "mor.recursive.sharing", "\"spiral\"", "mor.recursive.sharing", "'spiral'" },
        { null, "mor.recursive.sharing", "null", "mor.recursive.sharing", "missing" },
        { null, "mor.recursive.prelude_depth", "8", "mor.recursive.prelude_depth", "not known" },
        { null, "mor.recursive.ln_share", "\"yes\"", "mor.recursive.ln_share", "true or false" },
        { null, "mor.kv_sharing.update_cache", "true", "", "" }, // nothing is shared: plays no part
        { null, "mor.kv_sharing", """{"enable": true, "update_cache": true}""", "mor.kv_sharing.update_cache", "hybrid" },
        { null, "mor.kv_sharing", """{"enable": true, "num_recursion": 2}""", "mor.kv_sharing.num_recursion", "expected 3" },
        { null, "mor.kv_sharing", """{"enable": true, "sharing": "cycle"}""", "mor.kv_sharing.sharing", "middle_cycle" },
        { null, "mor.kv_sharing", """{"enable": true, "window": 4}""", "mor.kv_sharing.window", "not known" },
        { null, "kv_sharing", """{"enable": true}""", "kv_sharing.enable", "say false; found true" },
        { null, "mor.relaxation", """{"enable": true, "method": "lora"}""", "mor.relaxation.enable", "relaxed sharing" },
        { null, "mor.relaxation", """{"enable": false, "method": "lora", "lora": {"r": 16}}""", "", "" },
        { null, "mor.mor", """{"enable": true, "type": "expert"}""", "mor.mor.enable", "expected false in a LlamaForCausalLM" },
        { null, "mor.mor", """{"enable": false, "type": "expert", "noise": 1}""", "", "" },
        { null, "mor.early_exit", "true", "mor.early_exit", "not known" },
        { null, "mor", "3", "mor", "expected an object" },
        { null, "num_hidden_layers", "5000", "num_hidden_layers", "at most 4096" },
        { null, "num_hidden_layers", "7", "mor.recursive.num_recursion", "divisor of the 5 layers" },
    };

    [Theory]
    [MemberData(nameof(Settings))]
    public void A_setting_is_refused(string? router, string path, string value, string item, string reason)
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, router);
        string[] keys = path.Split('.');
        JsonNode section = model.Config;
        foreach (string key in keys[..^1])
        {
            section = section[key]!;
        }
        section[keys[^1]] = JsonNode.Parse(value);
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        if (item.Length == 0)
        {
            ModelPlanReader.Read(checkpoint);
            return;
        }
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Equal(item, error.Item);
        Assert.Equal(model.Name, error.File);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Keys_and_values_are_not_shared_under_middle_sequence() =>
        Assert.Equal("mor.kv_sharing.enable", Refuse(RecursiveModels.Make("middle_sequence", 8, 3, kv: true)).Item);

    [Fact]
    public void Token_choice_under_cycle_is_refused()
    {
        EngineException error = Refuse(RecursiveModels.Make("cycle", 6, 3, Token));
        Assert.Equal("mor.mor.type", error.Item);
        Assert.Contains("does not run in the reference code", error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void One_recursion_needs_a_base_depth() => Assert.Equal("mor.recursive.base_depth", Refuse(RecursiveModels.Make("cycle", 3, 1)).Item);

    [Fact]
    public void A_routed_model_without_settings_says_where_they_belong()
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, Expert);
        model.Config.Remove("mor");
        EngineException error = Refuse(model);
        Assert.Contains("a section 'mor' in config.json, or a .yaml file beside the weights", error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_routed_models_own_section_of_shared_keys_is_not_enough()
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, Expert);
        model.Config.Remove("mor");
        model.Config["kv_sharing"] = JsonNode.Parse("""{"enable": true, "num_recursion": 3, "sharing": "middle_cycle"}""");
        Assert.Contains("have no router", Refuse(model).Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("model.layers.2.recursion_encoding")]
    [InlineData("model.layers.1.self_attn.q_proj.lora_A.default.weight")]
    [InlineData("model.layers.1.self_attn.adaption_prompt")]
    [InlineData("model.layers.1.mor_router.router.weight")]
    public void Tensors_of_relaxed_sharing_or_of_a_router_that_is_not_asked_for_are_refused(string name)
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3);
        model.AddGain(name, 32);
        EngineException error = Refuse(model);
        Assert.Contains("not known in a mor model: " + name[..12], error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("model.layers.1.block.0.self_attn.k_proj.weight")]
    [InlineData("model.layers.3.mor_router.router.weight")]
    [InlineData("model.layers.4.mlp.up_proj.weight")]
    public void A_missing_tensor_is_named_once(string name)
    {
        TinyModel model = RecursiveModels.Make("middle_cycle", 8, 3, Expert);
        model.Tensors.Remove(name);
        EngineException error = Refuse(model);
        Assert.EndsWith($"a tensor is missing from this mor model: {name}", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_with_pickles_only_is_told_what_to_do()
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), "{}");
        File.WriteAllBytes(Path.Combine(folder.Path, "pytorch_model.bin"), [1, 2, 3]);
        EngineException error = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.Contains("pytorch_model.bin is a pickle of PyTorch, a program that is not run: load it in Python", error.Reason, StringComparison.Ordinal);
    }

    private static EngineException Refuse(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
    }
}
