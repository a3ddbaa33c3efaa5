using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Goldens of folders that the tools of GPTQ, AWQ, bitsandbytes, DeepSeek and compressed-tensors wrote.</summary>
public sealed class CodedMethodTests
{
    // Floats without their zeros are read as floats.
    private const string NotCoded = "";

    /// <summary>The folder, what the format is called, and bits of a code.</summary>
    public static TheoryData<string, string, int> Goldens => new()
    {
        { "gptq_v1_2bit", "GPTQ int2", 2 }, { "gptq_v1_3bit", "GPTQ int3", 3 }, { "gptq_v1_4bit_asym_bias", "GPTQ int4", 4 },
        { "gptq_v1_4bit_borrow", "GPTQ int4", 4 }, { "gptq_v1_4bit_desc_act", "GPTQ int4", 4 }, { "gptq_v1_8bit_channel", "GPTQ int8", 8 },
        { "gptq_v2_4bit_asym", "GPTQ int4", 4 }, { "awq_4bit", "AWQ int4", 4 }, { "bnb_fp4", "bitsandbytes FP4", 4 },
        { "bnb_nf4_double", "bitsandbytes NF4", 4 }, { "bnb_int8", "bitsandbytes int8", 8 }, { "fp8_deepseek_block", "FP8 E4M3", 8 },
        { "ct_fp8_block", "float-quantized fp8", 8 }, { "ct_fp8_channel", "float-quantized fp8", 8 }, { "ct_fp8_tensor", "float-quantized fp8", 8 },
        { "ct_int8_channel", "int-quantized int8", 8 }, { "ct_int8_tensor_asym", "int-quantized int8", 8 },
        { "ct_marlin24_w4_channel", "marlin-24 int4", 4 }, { "ct_marlin24_w4_g128", "marlin-24 int4", 4 }, { "ct_marlin24_w8_channel", "marlin-24 int8", 8 },
        { "ct_mxfp4", "MXFP4", 4 }, { "ct_mxfp8", "MXFP8", 8 }, { "ct_nvfp4", "NVFP4", 4 },
        { "ct_sparse24_bitmask_fp8", "float-quantized sparse-24-bitmask fp8", 8 }, { "ct_sparse24_bitmask_int8", "int-quantized sparse-24-bitmask int8", 8 },
        { "ct_w2w5w6_dense", "pack-quantized int5", 5 }, { "ct_w3_group_dense", "pack-quantized int3", 3 }, { "ct_w3_group_padded_legacy", "pack-quantized int3", 3 },
        { "ct_w4_channel_asym", "pack-quantized int4", 4 }, { "ct_w4_channel_sym", "pack-quantized int4", 4 },
        { "ct_w4_group32_sym_ragged", "pack-quantized int4", 4 }, { "ct_w4_group_actorder", "pack-quantized int4", 4 },
        { "ct_w4_group_asym", "pack-quantized int4", 4 }, { "ct_w4_group_sym", "pack-quantized int4", 4 }, { "ct_w8_group_sym", "pack-quantized int8", 8 },
        { "ct_sparse24_bitmask_dense", NotCoded, 0 }, { "ct_sparse_bitmask_dense", NotCoded, 0 },
    };

    [Theory]
    [MemberData(nameof(Goldens))]
    public void Weights_are_those_of_the_golden(string name, string format, int bits)
    {
        using Checkpoint checkpoint = CheckpointFile.Open(FormatGoldens.PathOf(name));
        using SafetensorsFile expected = SafetensorsFile.Open(FormatGoldens.PathOf(name, "expected.safetensors"));
        Assert.False(checkpoint.Config.ContainsKey("quantization_config"));
        var names = new HashSet<string>();
        foreach (JsonNode? matrix in FormatGoldens.Case(name)["matrices"]!.AsArray())
        {
            string tensorName = matrix!["name"]!.GetValue<string>();
            TensorView tensor = checkpoint[tensorName];
            names.Add(tensorName);
            Assert.Equal([matrix["rows"]!.GetValue<long>(), matrix["cols"]!.GetValue<long>()], tensor.Shape);
            tensor.RequireFinite();
            float[] weights = expected["w." + tensorName].ToFloats(), found = tensor.ToFloats();
            if (name == "bnb_int8")
            {
                // The golden divides a product by 127, where the scale is a quotient here.
                float largest = weights.Max(Math.Abs);
                Assert.All(weights.Zip(found), pair => Assert.InRange(Math.Abs(pair.First - pair.Second), 0, 1e-6f * largest));
            }
            else
            {
                GoldenTests.AssertSame(weights, found, tensorName);
            }
            AssertProduct(expected, tensorName, found);
            bool quantized = format != NotCoded && (matrix["quantized"]?.GetValue<bool>() ?? true);
            Assert.Equal(quantized, tensor.Coded is not null);
            if (tensor.Coded is { } coded)
            {
                CodedChecks.AssertConsistent(coded, found);
                Assert.Equal((format, bits), (coded.Format, coded.Bits));
            }
        }
        foreach (string bias in expected.TensorNames.Where(static tensor => tensor.StartsWith("b.", StringComparison.Ordinal)))
        {
            string biasName = bias[2..] + ".bias";
            names.Add(biasName);
            GoldenTests.AssertSame(expected[bias].ToFloats(), checkpoint[biasName].ToFloats(), biasName);
        }
        Assert.Equal(names.Order(), checkpoint.TensorNames.Order());
    }

    [Fact]
    public void Settings_of_gptq_are_found_beside_the_weights()
    {
        string golden = FormatGoldens.PathOf("gptq_v1_4bit_desc_act");
        using var folder = new TemporaryFolder();
        File.Copy(Path.Combine(golden, "model.safetensors"), folder.File("model.safetensors"));
        JsonObject config = (JsonObject)JsonNode.Parse(File.ReadAllText(Path.Combine(golden, "config.json")))!;
        var settings = (JsonObject)config["quantization_config"]!.DeepClone();
        config.Remove("quantization_config");
        settings.Remove("quant_method");
        folder.Write("config.json", config.ToJsonString());
        folder.Write("quantize_config.json", settings.ToJsonString());
        using Checkpoint expected = CheckpointFile.Open(golden), found = CheckpointFile.Open(folder.Path);
        Assert.Equal(expected.TensorNames, found.TensorNames);
        Assert.All(expected.TensorNames, name => Assert.Equal(expected[name].ToFloats(), found[name].ToFloats()));
    }

    /// <summary>Within 1e-5 of the sum of the products' magnitudes, as the goldens say.</summary>
    private static void AssertProduct(SafetensorsFile expected, string name, float[] weights)
    {
        float[] x = expected["x." + name].ToFloats(), y = expected["y." + name].ToFloats();
        for (int row = 0; row < y.Length; row++)
        {
            double sum = 0, magnitude = 0;
            for (int column = 0; column < x.Length; column++)
            {
                double product = (double)weights[row * x.Length + column] * x[column];
                sum += product;
                magnitude += Math.Abs(product);
            }
            Assert.InRange(Math.Abs(sum - y[row]), 0, 1e-5 * magnitude);
        }
    }
}
