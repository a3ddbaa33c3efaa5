using System.Text.Json.Nodes;
using Engine.Checkpoints;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Folders as older tools wrote them: settings in other places, weights under other names.</summary>
public sealed class OldFolderTests
{
    private const string Module = "model.layers.0.mlp.up_proj", Norm = "model.norm";

    public static TheoryData<string, string, string> BadSparsity => new()
    {
        { "\"sparse-bitmask\"", "sparsity_config", "object" },
        { """{"format": "sparse-25"}""", "sparsity_config.format", "sparse-25" },
        { """{"format": 24}""", "sparsity_config.format", "text" },
        { """{"format": "sparse-bitmask", "targets": "Linear"}""", "sparsity_config.targets", "list" },
        { """{"format": "sparse-bitmask", "targets": []}""", Module, "does not say" },
        { """{"format": "sparse-bitmask", "ignore": ["re:.*up_proj"]}""", Module, "does not say" },
        { """{"format": "dense"}""", Module, "dense" },
        { """{"format": "sparse-24-bitmask"}""", Module, "expected the shape" },
        { "null", "", "" },
    };

    /// <summary>By itself, within <c>compression_config</c>, or beside a <c>quantization_config</c>; with and without targets.</summary>
    [Theory]
    [InlineData("sparse-24-bitmask", "")]
    [InlineData("sparse-bitmask", "")]
    [InlineData("sparse-24-bitmask", "compression_config")]
    [InlineData("sparse-bitmask", "compression_config")]
    [InlineData("sparse-24-bitmask int8", "quantization_config")]
    [InlineData("sparse-bitmask fp8", "quantization_config")]
    [InlineData("sparse-24-bitmask fp8", "compression_config")]
    public void Sparsity_is_told_in_several_places(string name, string key)
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make(name, random);
        PackedModule module = format.Pack(random, 24, 32, 1);
        var settings = (JsonObject)format.Config.DeepClone();
        JsonNode sparsity = settings["sparsity_config"]!.DeepClone();
        if (random.Next(2) == 0)
        {
            ((JsonObject)sparsity).Remove("targets");
        }
        var config = new JsonObject { ["model_type"] = "llama" };
        switch (key)
        {
            case "":
                config["sparsity_config"] = sparsity;
                break;
            case "compression_config":
                settings["sparsity_config"] = sparsity;
                config[key] = settings;
                break;
            default:
                settings.Remove("sparsity_config");
                config["sparsity_config"] = sparsity;
                config[key] = settings;
                break;
        }
        using var folder = new TemporaryFolder();
        PackedFolder.Write(folder, config, [.. CodedPackingTests.Named(module, Module)]);
        using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
        Assert.Equal([Module + ".weight"], checkpoint.TensorNames);
        GoldenTests.AssertSame(module.Weights, checkpoint[Module + ".weight"].ToFloats(), $"{name} in '{key}', {sparsity.ToJsonString()}");
        Assert.False(checkpoint.Config.ContainsKey("sparsity_config") || checkpoint.Config.ContainsKey("compression_config"));
    }

    [Theory]
    [MemberData(nameof(BadSparsity))]
    public void Sparsity_that_is_not_told_or_malformed_is_refused(string sparsity, string item, string inMessage)
    {
        Random random = Seed.Fresh();
        PackedModule module = PackedFormat.Make("sparse-bitmask", random).Pack(random, 24, 32, 1);
        var config = new JsonObject { ["model_type"] = "llama", ["sparsity_config"] = JsonNode.Parse(sparsity) };
        using var folder = new TemporaryFolder();
        PackedFolder.Write(folder, config, [.. CodedPackingTests.Named(module, Module)]);
        if (item.Length == 0)
        {
            // Nothing says what the tensors are: they are there as they are, and no plan has a use for them.
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            Assert.Contains(Module + ".bitmask", checkpoint.TensorNames);
            return;
        }
        EngineException refusal = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.StartsWith(item, refusal.Item, StringComparison.Ordinal);
        Assert.Contains(inMessage, refusal.Message, StringComparison.Ordinal);
    }

    /// <summary>Before 2024-12 the name of the weight stood before the names of its parts, and vectors had parts too.</summary>
    [Fact]
    public void Names_of_parts_may_have_that_of_the_weight_before_them()
    {
        Random random = Seed.Fresh();
        PackedModule module = PackedFormat.Make("sparse-bitmask", random).Pack(random, 24, 40, 1);
        float[] norm = [.. Enumerable.Range(0, 37).Select(_ => random.Next(3) == 0 ? 0f : Scale(random, 1))];
        RawTensor[] tensors = [.. CodedPackingTests.Named(module, Module + ".weight"), .. Vector(norm).Select(static part => part with { Name = $"{Norm}.weight.{part.Name}" })];
        using (var folder = new TemporaryFolder())
        using (Checkpoint checkpoint = Open(folder, tensors))
        {
            Assert.Equal([Module + ".weight", Norm + ".weight"], checkpoint.TensorNames);
            GoldenTests.AssertSame(module.Weights, checkpoint[Module + ".weight"].ToFloats(), "matrix");
            Assert.Equal([37], checkpoint[Norm + ".weight"].Shape);
            GoldenTests.AssertSame(norm, checkpoint[Norm + ".weight"].ToFloats(), "vector");
        }
        foreach (RawTensor tensor in tensors)
        {
            Assert.Equal(tensor.Name, Assert.Throws<EngineException>(() => Read([.. tensors.Where(other => other != tensor)])).Item);
            RawTensor longer = tensor with { Shape = [.. tensor.Shape.Append(1), 2], Bytes = [.. tensor.Bytes, .. tensor.Bytes] };
            EngineException refusal = Assert.Throws<EngineException>(() => Read([.. tensors.Select(other => other == tensor ? longer : other)]));
            Assert.StartsWith(tensor.Name[..tensor.Name.LastIndexOf('.')], refusal.Item, StringComparison.Ordinal); // Two sizes are those of a matrix.
        }
    }

    [Fact]
    public void A_vector_that_contradicts_itself_is_refused()
    {
        Random random = Seed.Fresh();
        RawTensor[] good = Vector([.. Enumerable.Range(0, 37).Select(_ => Scale(random, 1))]);
        foreach ((string part, byte[] bytes) in new[] { ("bitmask", new byte[] { 1, 2, 3, 4, 5 }), ("bitmask", [255, 255, 255, 255, 63]), ("row_offsets", Bytes<long>([1])) })
        {
            RawTensor[] tensors = [.. good.Select(tensor => (tensor.Name == part ? tensor with { Bytes = bytes } : tensor) with { Name = $"{Norm}.weight.{tensor.Name}" })];
            Assert.Equal($"{Norm}.weight.bitmask", Assert.Throws<EngineException>(() => Read(tensors)).Item);
        }
    }

    [Theory]
    [InlineData("gptq_v1_4bit_desc_act", "gptq_model-4bit-128g.safetensors", "quantize_config.json")]
    [InlineData("gptq_v2_4bit_asym", "model-int4.safetensors", null)]
    [InlineData("awq_4bit", "awq_model_w4_g128.safetensors", "quant_config.json")]
    [InlineData("awq_4bit", "model.safetensors", "quantize_config.json")]
    [InlineData("awq_4bit", "model.safetensors", "quant_config.json")]
    [InlineData("ct_w4_group_sym", "weights.safetensors", null)]
    public void Weights_and_settings_are_found_under_other_names(string golden, string weights, string? settingsFile)
    {
        using var folder = new TemporaryFolder();
        string source = FormatGoldens.PathOf(golden);
        Copy(source, folder, weights, settingsFile);
        using Checkpoint expected = CheckpointFile.Open(source), found = CheckpointFile.Open(folder.Path), file = CheckpointFile.Open(folder.File(weights));
        foreach (Checkpoint checkpoint in new[] { found, file })
        {
            Assert.Equal(expected.TensorNames, checkpoint.TensorNames);
            Assert.All(expected.TensorNames, name => Assert.Equal(expected[name].ToFloats(), checkpoint[name].ToFloats()));
        }
    }

    [Fact]
    public void An_index_may_have_another_name_too()
    {
        using var folder = new TemporaryFolder();
        Copy(FormatGoldens.PathOf("gptq_v1_4bit_borrow"), folder, "gptq_model-4bit-32g-00001-of-00001.safetensors", "quantize_config.json");
        using Checkpoint expected = CheckpointFile.Open(FormatGoldens.PathOf("gptq_v1_4bit_borrow"));
        using (Checkpoint raw = Engine.Checkpoints.Safetensors.SafetensorsFile.Open(folder.File("gptq_model-4bit-32g-00001-of-00001.safetensors")))
        {
            var map = new JsonObject(raw.TensorNames.Select(static name => KeyValuePair.Create(name, (JsonNode?)"gptq_model-4bit-32g-00001-of-00001.safetensors")));
            folder.Write("gptq_model-4bit-32g.safetensors.index.json", new JsonObject { ["weight_map"] = map }.ToJsonString());
        }
        using (Checkpoint found = CheckpointFile.Open(folder.Path))
        {
            Assert.Equal(expected.TensorNames.Order(), found.TensorNames.Order());
        }
        File.Delete(folder.File("gptq_model-4bit-32g-00001-of-00001.safetensors"));
        EngineException refusal = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.Contains("gptq_model-4bit-32g.safetensors.index.json lists it", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Several_files_and_adapters_alone_are_refused()
    {
        string golden = FormatGoldens.PathOf("awq_4bit");
        using var folder = new TemporaryFolder();
        Copy(golden, folder, "adapter_model.safetensors", null);
        Assert.Contains("neither", Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path)).Message, StringComparison.Ordinal);
        foreach (string name in new[] { "a.safetensors", "b.safetensors" })
        {
            File.Copy(Path.Combine(golden, "model.safetensors"), folder.File(name));
        }
        EngineException refusal = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.Equal(folder.Path, refusal.File);
        Assert.Contains("a.safetensors, b.safetensors", refusal.Message, StringComparison.Ordinal);
        folder.Write("a.safetensors.index.json", "{}");
        folder.Write("b.safetensors.index.json", "{}");
        Assert.Contains("index.json, b", Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{", "not valid JSON")]
    [InlineData("[]", "object")]
    [InlineData("""{"w_bit": 3, "q_group_size": 32, "version": "GEMM"}""", "expected 4")]
    [InlineData("""{"w_bit": 4, "version": "GEMM"}""", "group_size")]
    [InlineData("""{"w_bit": 4, "q_group_size": 32, "version": "GEMV"}""", "GEMV")]
    [InlineData("""{"quant_method": "hqq"}""", "hqq")]
    [InlineData("""{"quant_method": 4}""", "quant_method")]
    public void Settings_beside_the_weights_are_refused_by_file(string settings, string inMessage)
    {
        using var folder = new TemporaryFolder();
        Copy(FormatGoldens.PathOf("awq_4bit"), folder, "model.safetensors", "quant_config.json");
        folder.Write("quant_config.json", settings);
        EngineException refusal = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path));
        Assert.Equal(folder.File("quant_config.json"), refusal.File);
        Assert.Contains(inMessage, refusal.Message, StringComparison.Ordinal);
    }

    /// <summary>ModelOpt's AWQ: activations would have to be multiplied first.</summary>
    [Fact]
    public void Factors_of_inputs_are_refused_by_name()
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make("modelopt nvfp4", random);
        PackedModule module = format.Pack(random, 8, 32, 1);
        using var folder = new TemporaryFolder();
        RawTensor factors = new(Module + ".pre_quant_scale", "F32", [32], Bytes([.. Enumerable.Repeat(1.5f, 32)]));
        PackedFolder.Write(folder, CodedPackingTests.Config(format), [.. CodedPackingTests.Named(module, Module), factors]);
        Assert.Equal(factors.Name, Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path)).Item);
    }

    /// <summary>A golden's weights under another name, and its settings in another file where one is named.</summary>
    private static void Copy(string golden, TemporaryFolder folder, string weights, string? settingsFile)
    {
        File.Copy(Path.Combine(golden, "model.safetensors"), folder.File(weights));
        var config = (JsonObject)JsonNode.Parse(File.ReadAllText(Path.Combine(golden, "config.json")))!;
        if (settingsFile is not null)
        {
            var settings = (JsonObject)config["quantization_config"]!.DeepClone();
            if ((string?)settings["quant_method"] != "awq" || settingsFile == "quant_config.json")
            {
                settings.Remove("quant_method"); // The file's name says it.
            }
            config.Remove("quantization_config");
            folder.Write(settingsFile, settings.ToJsonString());
        }
        folder.Write("config.json", config.ToJsonString());
    }

    /// <summary>The parts of a vector under <c>sparse-bitmask</c>.</summary>
    private static RawTensor[] Vector(float[] values)
    {
        var mask = new byte[Ceiling(values.Length, 8)];
        for (int i = 0; i < values.Length; i++)
        {
            mask[i / 8] |= (byte)((values[i] != 0 ? 1 : 0) << i % 8);
        }
        float[] kept = [.. values.Where(static value => value != 0)];
        return
        [
            Floats("compressed", [kept.Length], kept, "F32"), new("bitmask", "U8", [mask.Length], mask), new("shape", "I64", [1], Bytes<long>([values.Length])),
            new("row_offsets", "I64", [], Bytes<long>([0])),
        ];
    }

    private static Checkpoint Open(TemporaryFolder folder, RawTensor[] tensors)
    {
        var config = new JsonObject { ["model_type"] = "llama", ["sparsity_config"] = new JsonObject { ["format"] = "sparse-bitmask", ["sparsity_structure"] = "unstructured" } };
        PackedFolder.Write(folder, config, tensors);
        return CheckpointFile.Open(folder.Path);
    }

    private static void Read(RawTensor[] tensors)
    {
        using var folder = new TemporaryFolder();
        using Checkpoint checkpoint = Open(folder, tensors);
        foreach (string name in checkpoint.TensorNames)
        {
            _ = checkpoint[name].ToFloats();
        }
    }
}
