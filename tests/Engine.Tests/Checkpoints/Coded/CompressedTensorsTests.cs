using System.Text.Json.Nodes;
using Engine.Checkpoints;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>What the configuration of compressed-tensors says of modules, and tensors that contradict it or themselves.</summary>
public sealed class CompressedTensorsTests : IDisposable
{
    private const string Module = "model.layers.0.mlp.up_proj";

    private readonly List<TemporaryFolder> folders = [];

    public static TheoryData<string, string, bool> Targets => new()
    {
        { """["Linear"]""", "[]", true },
        { """["model.layers.0.mlp.up_proj"]""", "[]", true },
        { """["re:.*up_proj$"]""", "[]", true },
        { """["re:model\\.layers\\.[0-3]\\."]""", "[]", true },
        { """["re:(?!.*down).*"]""", "[]", true },
        { """["re:layers"]""", "[]", false },
        { """["re:.*gate_proj"]""", "[]", false },
        { """["Embedding"]""", "[]", false },
        { """["up_proj"]""", "[]", false },
        { """["Linear"]""", """["lm_head", "re:.*mlp.*"]""", false },
        { """["Linear"]""", """["model.layers.0.mlp.up_proj"]""", false },
    };

    public static TheoryData<string, string> Refusals => new()
    {
        { "format", "\"super-quantized\"" }, { "format", "4" }, { "config_groups", "[]" }, { "config_groups", """{"a": 1}""" }, { "config_groups", """{"W99": ["Linear"]}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": 4}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 9}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "token"}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group", "group_size": 0}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group"}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "type": "float"}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "dynamic": true}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "actorder": "random"}}}""" },
        { "config_groups", """{"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "block", "block_structure": "0x4"}}}""" },
        { "config_groups", """{"a": {"targets": ["re:("], "weights": {"num_bits": 4, "group_size": 32}}}""" },
        { "config_groups", """{"a": {"targets": ["re:(([a-z]|\\.|_|[0-9])+)+#"], "weights": {"num_bits": 4, "group_size": 32}}}""" },
        { "config_groups", """{"a": {"targets": [5], "weights": {"num_bits": 4, "group_size": 32}}}""" },
        { "config_groups", """{"a": {"targets": "Linear", "weights": {"num_bits": 4, "group_size": 32}}}""" },
        { "ignore", "\"lm_head\"" }, { "quantization_status", "\"calibration\"" }, { "sparsity_config", """{"format": "sparse-25"}""" },
        { "transform_config", """{"config_groups": {"u": {"type": "hadamard"}}}""" }, { "format", "\"mixed-precision\"" }, { "format", "\"dense\"" },
    };

    public void Dispose() => folders.ForEach(static folder => folder.Dispose());

    [Theory]
    [MemberData(nameof(Targets))]
    public void A_module_is_quantized_where_a_target_names_it_and_none_ignores_it(string targets, string ignore, bool quantized)
    {
        JsonObject settings = Int4();
        settings["config_groups"]!["group_0"]!["targets"] = JsonNode.Parse(targets);
        settings["ignore"] = JsonNode.Parse(ignore);
        PackedModule module = Packed(Seed.Fresh());
        if (quantized)
        {
            using Checkpoint checkpoint = Open(settings, CodedPackingTests.Named(module, Module));
            GoldenTests.AssertSame(module.Weights, checkpoint[Module + ".weight"].ToFloats(), targets);
        }
        else
        {
            AssertRefused(settings, CodedPackingTests.Named(module, Module));
        }
    }

    [Theory]
    [MemberData(nameof(Refusals))]
    public void A_configuration_that_cannot_be_obeyed_is_refused(string key, string value)
    {
        JsonObject settings = Int4();
        settings[key] = JsonNode.Parse(value);
        AssertRefused(settings, CodedPackingTests.Named(Packed(Seed.Fresh()), Module));
    }

    [Fact]
    public void Of_several_groups_the_closest_counts_and_each_may_have_a_format_of_its_own()
    {
        Random random = Seed.Fresh();
        PackedModule four = Packed(random), eight = Packed(random, bits: 8, groupColumns: 16);
        JsonObject settings = Int4();
        settings["format"] = "mixed-precision";
        JsonObject groups = settings["config_groups"]!.AsObject();
        groups["group_0"]!["format"] = "pack-quantized";
        groups["group_1"] = JsonNode.Parse("""{"targets": ["re:.*gate_proj"], "format": "pack-quantized", "weights": {"num_bits": 8, "group_size": 16}}""");
        groups["group_2"] = JsonNode.Parse("""{"targets": ["re:.*gate_proj"], "format": "int-quantized", "weights": {"num_bits": 8, "strategy": "channel"}}""");
        groups["group_3"] = JsonNode.Parse("""{"targets": ["re:.*attn.*"], "input_activations": {"num_bits": 8}, "weights": null}""");
        using Checkpoint checkpoint = Open(settings,
        [
            .. CodedPackingTests.Named(four, Module), .. CodedPackingTests.Named(eight, "model.layers.0.mlp.gate_proj"),
            new("model.layers.0.self_attn.k_scale", "F32", [1], Bytes([1f])), new("model.layers.0.self_attn.q_proj.weight", "F32", [1, 2], Bytes([1f, 2f])),
            new("model.layers.0.self_attn.q_proj.input_scale", "F32", [1], Bytes([1f])), new("model.embed_tokens.weight", "F32", [1, 2], Bytes([1f, 2f])),
        ]);
        GoldenTests.AssertSame(four.Weights, checkpoint[Module + ".weight"].ToFloats(), "int4");
        GoldenTests.AssertSame(eight.Weights, checkpoint["model.layers.0.mlp.gate_proj.weight"].ToFloats(), "int8");
        Assert.Equal(
            ["model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight", Module + ".weight", "model.layers.0.self_attn.q_proj.weight"],
            checkpoint.TensorNames.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("W4A16", 4, true)]
    [InlineData("W4A16_ASYM", 4, false)]
    public void A_preset_stands_for_its_settings(string name, int bits, bool symmetric)
    {
        PackedModule module = PackQuantizedPacker.Pack(Seed.Fresh(), 9, 160, 1, bits, 128, whole: false, symmetric, padded: false, byActivation: false);
        JsonObject settings = Int4();
        settings["config_groups"] = new JsonObject { [name] = new JsonArray("Linear") };
        using Checkpoint checkpoint = Open(settings, CodedPackingTests.Named(module, Module));
        GoldenTests.AssertSame(module.Weights, checkpoint[Module + ".weight"].ToFloats(), name);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Where_the_width_fits_both_layouts_another_module_tells(bool padded)
    {
        Random random = Seed.Fresh();
        // 20 codes of 3 bits have two words in either layout; 64 have seven or six.
        PackedModule open = PackQuantizedPacker.Pack(random, 5, 20, 1, 3, 4, false, false, padded, false), wide = PackQuantizedPacker.Pack(random, 5, 64, 1, 3, 4, false, false, padded, false);
        JsonObject settings = Int4();
        JsonNode weights = settings["config_groups"]!["group_0"]!["weights"]!;
        (weights["num_bits"], weights["group_size"], weights["symmetric"]) = (3, 4, false);
        using Checkpoint checkpoint = Open(settings, [.. CodedPackingTests.Named(open, Module), .. CodedPackingTests.Named(wide, "model.layers.1.mlp.up_proj")]);
        GoldenTests.AssertSame(open.Weights, checkpoint[Module + ".weight"].ToFloats(), $"padded: {padded}");
        AssertRefused(settings, CodedPackingTests.Named(open, Module));
    }

    [Fact]
    public void Groups_that_were_never_filled_in_are_runs_and_others_have_to_be_there()
    {
        Random random = Seed.Fresh();
        JsonObject settings = Int4();
        PackedModule module = Packed(random);
        settings["config_groups"]!["group_0"]!["weights"]!["actorder"] = "group";
        RawTensor unset = new("weight_g_idx", "I32", [64], Bytes(Enumerable.Repeat(-1, 64)));
        using (Checkpoint checkpoint = Open(settings, CodedPackingTests.Named(new PackedModule([.. module.Tensors, unset], module.Weights), Module)))
        {
            GoldenTests.AssertSame(module.Weights, checkpoint[Module + ".weight"].ToFloats(), "unset");
        }
        AssertRefused(settings, CodedPackingTests.Named(module, Module));
        foreach (RawTensor bad in new RawTensor[]
        {
            unset with { Shape = [63], Bytes = unset.Bytes[4..] }, unset with { Type = "U8", Shape = [64], Bytes = unset.Bytes[..64] },
            unset with { Bytes = Bytes(Enumerable.Repeat(2, 64)) }, unset with { Bytes = Bytes(Enumerable.Repeat(-2, 64)) },
        })
        {
            AssertRefused(settings, CodedPackingTests.Named(new PackedModule([.. module.Tensors, bad], []), Module));
        }
    }

    [Fact]
    public void Weights_that_were_not_compressed_or_are_so_twice_are_refused()
    {
        RawTensor floats = new(Module + ".weight", "F32", [4, 64], Bytes(new float[256])), scale = new(Module + ".weight_scale", "F32", [4, 2], Bytes(new float[8]));
        AssertRefused(Int4(), [floats, scale]);
        AssertRefused(Int4(), [scale]);
        JsonObject blocks = Int4();
        blocks["config_groups"]!["group_0"]!["weights"] = JsonNode.Parse("""{"num_bits": 4, "symmetric": false, "strategy": "block", "block_structure": [2, 32]}""");
        PackedModule module = Packed(Seed.Fresh());
        AssertRefused(blocks, CodedPackingTests.Named(new PackedModule([.. module.Tensors, new("weight_zero_point", "I32", [1, 2], new byte[8])], []), Module));
        // [2^62] columns would not fit when doubled.
        JsonObject nvfp4 = CompressedTensorsSettings.Of("nvfp4-pack-quantized", (JsonObject)JsonNode.Parse("""{"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}""")!);
        AssertRefused(nvfp4, [new(Module + ".weight_packed", "U8", [0, 1L << 62], [])]);
    }

    [Fact]
    public void Masks_that_do_not_fit_what_is_kept_are_refused_when_they_are_read()
    {
        (RawTensor kept, RawTensor mask, RawTensor shape) = (
            new(Module + ".compressed", "F32", [2, 6], Bytes(new float[12])), new(Module + ".bitmask", "U8", [2, 2], [0x33, 0x03, 0x5A, 0x0C]),
            new(Module + ".shape", "I64", [2, 1], Bytes([2L, 12L])));
        JsonObject settings = CompressedTensorsSettings.Of("dense", null, "sparse-24-bitmask");
        using (Checkpoint checkpoint = Open(settings, [kept, mask, shape]))
        {
            Assert.Equal(new float[24], checkpoint[Module + ".weight"].ToFloats());
        }
        foreach (byte[] bits in new byte[][] { [0x37, 0x03, 0x5A, 0x0C], [0x31, 0x03, 0x5A, 0x0C], [0x33, 0x03, 0x5A, 0x1C], [0x33, 0x03, 0x5A, 0x00] })
        {
            AssertRefused(settings, [kept, mask with { Bytes = bits }, shape]);
        }
        AssertRefused(CompressedTensorsSettings.Of("dense", null), [kept, mask, shape]);
        AssertRefused(CompressedTensorsSettings.Of("dense", null, "sparse-bitmask"), [kept, mask, shape]);
        JsonObject others = CompressedTensorsSettings.Of("dense", null, "sparse-24-bitmask");
        others["sparsity_config"]!["targets"] = new JsonArray("re:.*down_proj");
        AssertRefused(others, [kept, mask, shape]);

        JsonObject any = CompressedTensorsSettings.Of("dense", null, "sparse-bitmask");
        RawTensor flat = kept with { Shape = [12] };
        foreach (long[] offsets in new long[][] { [1, 6], [0, 5], [0, 13], [-6, 6], [0, long.MaxValue], [long.MinValue, 6] })
        {
            AssertRefused(any, [flat, mask, shape, new(Module + ".row_offsets", "I64", [2], Bytes(offsets))]);
        }
    }

    [Fact]
    public void Places_of_marlin_that_are_no_two_are_refused_when_they_are_read()
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make("marlin-24 4 bit", random);
        PackedModule module = format.Pack(random, 64, 64, 1);
        byte[] places = [.. module.Tensors.Single(static tensor => tensor.Name == "meta").Bytes];
        places[random.Next(places.Length)] ^= 0x0F; // Both places of a group are mirrored, and with them their order.
        AssertRefused(format.Config, CodedPackingTests.Named(
            new PackedModule([.. module.Tensors.Select(tensor => tensor.Name == "meta" ? tensor with { Bytes = places } : tensor)], []), Module));
    }

    [Fact]
    public void Zeros_keep_their_signs_where_they_are_kept_and_have_none_where_not()
    {
        RawTensor[] tensors =
        [
            new(Module + ".compressed", "F32", [1, 2], Bytes([-0f, 1f])), new(Module + ".bitmask", "U8", [1, 1], [0b0110]), new(Module + ".shape", "I64", [2, 1], Bytes([1L, 4L])),
        ];
        using Checkpoint checkpoint = Open(CompressedTensorsSettings.Of("dense", null, "sparse-24-bitmask"), tensors);
        Assert.Equal([0, 0x80000000, 0x3F800000, 0], checkpoint[Module + ".weight"].ToFloats().Select(BitConverter.SingleToUInt32Bits));
    }

    [Fact]
    public void Floats_without_their_zeros_are_written_out_only_when_they_are_asked_for()
    {
        // No mask is right, so that reading fails.
        RawTensor[] tensors =
        [
            new(Module + ".compressed", "BF16", [1, 2], new byte[4]), new(Module + ".bitmask", "U8", [1, 1], [0]), new(Module + ".shape", "I64", [2, 1], Bytes([1L, 4L])),
        ];
        using Checkpoint checkpoint = Open(CompressedTensorsSettings.Of("dense", null, "sparse-24-bitmask"), tensors);
        TensorView outline = checkpoint.Outline(Module + ".weight");
        Assert.Equal((DType.BF16, 8L), (outline.DType, outline.ByteLength));
        Assert.Equal([1L, 4L], outline.Shape);
        EngineException refusal = Assert.Throws<EngineException>(() => checkpoint[Module + ".weight"]);
        Assert.Equal(Module + ".bitmask", refusal.Item);
    }

    [Fact]
    public void Rows_of_a_coded_matrix_are_a_matrix()
    {
        Random random = Seed.Fresh();
        PackedModule module = PackQuantizedPacker.Pack(random, 20, 64, 1, 4, 32, whole: false, symmetric: false, padded: false, byActivation: true);
        JsonObject settings = Int4();
        settings["config_groups"]!["group_0"]!["weights"]!["symmetric"] = false;
        using Checkpoint checkpoint = Open(settings, CodedPackingTests.Named(module, Module));
        TensorView whole = checkpoint[Module + ".weight"];
        int first = random.Next(20), count = random.Next(1, 21 - first);
        TensorView rows = whole.SliceRows(first, count);
        Assert.Equal([count, 64], rows.Shape);
        Assert.Equal(whole.ByteLength * count / 20, rows.ByteLength);
        GoldenTests.AssertSame(module.Weights.AsSpan(first * 64, count * 64), rows.ToFloats(), $"{count} rows from {first}");
        Assert.True(rows.ContentEquals(whole.SliceRows(first, count)));
        Assert.False(count == 20 || rows.ContentEquals(whole.SliceRows(first == 0 ? 20 - count : 0, count)));
        Assert.Throws<ArgumentOutOfRangeException>(() => whole.SliceRows(first, 21 - first));
    }

    private static JsonObject Int4() => CompressedTensorsSettings.Of("pack-quantized", (JsonObject)JsonNode.Parse("""{"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}""")!);

    private static PackedModule Packed(Random random, int bits = 4, int groupColumns = 32) =>
        PackQuantizedPacker.Pack(random, 4, 64, 1, bits, groupColumns, whole: false, symmetric: true, padded: false, byActivation: false);

    private Checkpoint Open(JsonObject settings, IEnumerable<RawTensor> tensors)
    {
        var folder = new TemporaryFolder();
        folders.Add(folder);
        PackedFolder.Write(folder, new JsonObject { ["model_type"] = "llama", ["quantization_config"] = settings.DeepClone() }, [.. tensors]);
        return CheckpointFile.Open(folder.Path);
    }

    private void AssertRefused(JsonObject settings, IEnumerable<RawTensor> tensors)
    {
        EngineException refusal = Assert.Throws<EngineException>(() =>
        {
            using Checkpoint checkpoint = Open(settings, tensors);
            _ = checkpoint[Module + ".weight"].ToFloats();
        });
        Assert.False(string.IsNullOrEmpty(refusal.File));
        Assert.False(string.IsNullOrEmpty(refusal.Item));
    }
}
