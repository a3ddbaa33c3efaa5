using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Settings of quantized folders: what they change, and what is refused by name.</summary>
public sealed class CodedSettingsTests
{
    public static TheoryData<string, string> Refused => new()
    {
        { """{"quant_method": "gptq", "bits": 5, "group_size": 32}""", "bits" },
        { """{"quant_method": "gptq", "group_size": 32}""", "bits" },
        { """{"quant_method": "gptq", "bits": 4}""", "group_size" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 0}""", "group_size" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"}""", "marlin" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 32, "is_marlin_format": true}""", "marlin" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_p"}""", "gptq_p" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:.*": {"bits": 7}}}""", "bits" },
        { """{"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:(": {}}}""", "regular expression" },
        { """{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}""", "gemv" },
        { """{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv_fast"}""", "gemv_fast" },
        { """{"quant_method": "awq", "bits": 8, "group_size": 32}""", "bits" },
        { """{"quant_method": "fp8", "fmt": "e5m2"}""", "e5m2" },
        { """{"quant_method": "fp8", "weight_block_size": [128, 0]}""", "weight_block_size" },
        { """{"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}""", "NVFP4_AWQ" },
        { """{"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}""", "group_size" },
        { """{"quant_method": "hqq"}""", "hqq" },
        { """{"quant_method": "aqlm"}""", "aqlm" },
        { """{"bits": 4}""", "none named" },
        { """[]""", "object" },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void What_is_not_read_is_refused_by_name(string config, string inMessage)
    {
        Random random = Seed.Fresh();
        using var folder = new TemporaryFolder();
        PackedModule module = PackedFormat.Make("gptq 4 bit", random).Pack(random, 8, 32, 1);
        PackedFolder.Write(folder, new JsonObject { ["quantization_config"] = JsonNode.Parse(config) }, [.. CodedPackingTests.Named(module, "m")]);
        EngineException refusal = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.Contains(inMessage, refusal.Message, StringComparison.Ordinal);
        Assert.Equal(folder.File("config.json"), refusal.File);
        Assert.StartsWith("quantization_config", refusal.Item, StringComparison.Ordinal);
    }

    [Fact]
    public void Gptq_overrides_the_settings_of_modules_by_expressions_from_their_beginning()
    {
        Random random = Seed.Fresh();
        PackedFormat four = MakeUntil("gptq 4 bit", random, static config => config["desc_act"]!.GetValue<bool>());
        PackedFormat eight = MakeUntil("gptq 8 bit", random, config => Agree(config, four.Config, "checkpoint_format"));
        PackedModule first = four.Pack(random, 16, 160, 1), second = eight.Pack(random, 16, 160, 1);
        RawTensor[] tensors = [.. CodedPackingTests.Named(first, "a.up"), .. CodedPackingTests.Named(second, "a.down")];
        JsonObject config = CodedPackingTests.Config(four);
        var dynamic = new JsonObject
        {
            ["+:up"] = new JsonObject { ["bits"] = 3 }, // Not at the beginning.
            [@"+:a\.d(?!x)"] = new JsonObject { ["bits"] = 8, ["group_size"] = eight.Config["group_size"]!.DeepClone() },
            ["-:a.down"] = new JsonObject(), // The first that matches has decided.
        };
        config["quantization_config"]!["dynamic"] = dynamic;
        using (var folder = new TemporaryFolder())
        {
            PackedFolder.Write(folder, config, tensors);
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            GoldenTests.AssertSame(first.Weights, checkpoint["a.up.weight"].ToFloats(), $"{four}");
            GoldenTests.AssertSame(second.Weights, checkpoint["a.down.weight"].ToFloats(), $"{eight}");
        }
        dynamic.Clear();
        dynamic["-:a.down"] = new JsonObject();
        using (var folder = new TemporaryFolder())
        {
            PackedFolder.Write(folder, config, tensors);
            Assert.Equal("a.down.qweight", Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path)).Item);
        }
    }

    [Fact]
    public void A_name_that_awq_spares_is_part_of_a_module_by_whole_words()
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make("awq", random);
        PackedModule module = format.Pack(random, 8, 128, 1);
        JsonObject config = CodedPackingTests.Config(format);
        config["quantization_config"]!["modules_to_not_convert"] = new JsonArray("mlp.gate", "lm_head");
        RawTensor router = new("l.mlp.gate.weight", "F32", [1, 2], RawValues.Bytes([1f, 2f]));
        using (var folder = new TemporaryFolder())
        {
            PackedFolder.Write(folder, config, [router, .. CodedPackingTests.Named(module, "l.mlp.gate_proj")]);
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            Assert.Equal(["l.mlp.gate.weight", "l.mlp.gate_proj.weight"], checkpoint.TensorNames.Order(StringComparer.Ordinal));
        }
        using (var folder = new TemporaryFolder())
        {
            PackedFolder.Write(folder, config, [.. CodedPackingTests.Named(module, "l.mlp.gate")]);
            Assert.Equal("l.mlp.gate.qweight", Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path)).Item);
        }
    }

    [Fact]
    public void Settings_of_modelopt_are_found_beside_the_weights()
    {
        Random random = Seed.Fresh();
        PackedModule module = PackedFormat.Make("modelopt nvfp4", random).Pack(random, 5, 48, 1);
        using var folder = new TemporaryFolder();
        PackedFolder.Write(folder, new JsonObject { ["model_type"] = "llama" }, [.. CodedPackingTests.Named(module, "m")]);
        folder.Write("hf_quant_config.json", """{"quantization": {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}""");
        using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
        Assert.Equal(["m.weight"], checkpoint.TensorNames);
        GoldenTests.AssertSame(module.Weights, checkpoint["m.weight"].ToFloats(), "m.weight");
    }

    [Fact]
    public void Two_modules_that_differ_in_the_groups_of_their_columns_alone_are_not_equal()
    {
        Random random = Seed.Fresh();
        PackedFormat format = MakeUntil("gptq 4 bit", random, static config => config["desc_act"]!.GetValue<bool>() && config["group_size"]!.GetValue<int>() == 8);
        PackedModule module = format.Pack(random, 8, 32, 1);
        RawTensor groups = module.Tensors.Single(static tensor => tensor.Name == "g_idx");
        byte[] turned = [.. groups.Bytes.Skip(sizeof(int)), .. groups.Bytes.Take(sizeof(int))];
        using var folder = new TemporaryFolder();
        PackedFolder.Write(folder, CodedPackingTests.Config(format),
        [
            .. CodedPackingTests.Named(module, "a"), .. CodedPackingTests.Named(module, "b"),
            .. CodedPackingTests.Named(module with { Tensors = [.. module.Tensors.Where(tensor => tensor != groups), groups with { Bytes = turned }] }, "c"),
        ]);
        using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
        Assert.True(checkpoint["a.weight"].ContentEquals(checkpoint["b.weight"]));
        Assert.Equal(turned.SequenceEqual(groups.Bytes), checkpoint["a.weight"].ContentEquals(checkpoint["c.weight"]));
    }

    private static PackedFormat MakeUntil(string name, Random random, Func<JsonObject, bool> wanted)
    {
        while (true)
        {
            PackedFormat format = PackedFormat.Make(name, random);
            if (wanted(format.Config))
            {
                return format;
            }
        }
    }

    private static bool Agree(JsonObject a, JsonObject b, string key) =>
        JsonNode.DeepEquals(a[key], b[key]) && (!b["desc_act"]!.GetValue<bool>() || a["desc_act"]!.GetValue<bool>());
}
