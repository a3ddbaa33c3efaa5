using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;
using Xunit;

namespace Engine.Tests.Checkpoints;

public sealed class GoldenTests
{
    public static TheoryData<string, string> Decodable => new()
    {
        { "gguf_f16", "model.gguf" }, { "gguf_bf16", "model.gguf" }, { "gguf_q8_0", "model.gguf" }, { "gguf_q4_0", "model.gguf" },
        { "gguf_q4_1", "model.gguf" }, { "gguf_q5_0", "model.gguf" }, { "gguf_q5_1", "model.gguf" }, { "gguf_q4_k", "model.gguf" },
        { "gguf_q5_k", "model.gguf" }, { "gguf_q6_k", "model.gguf" }, { "gguf_mxfp4", "model.gguf" }, { "gguf_v2_align128", "model.gguf" },
        { "gguf_q2_k", "model.gguf" }, { "gguf_q3_k", "model.gguf" }, { "gguf_iq4_nl", "model.gguf" }, { "gguf_iq4_xs", "model.gguf" },
        { "gguf_iq3_xxs", "model.gguf" }, { "gguf_iq3_s", "model.gguf" }, { "gguf_iq2_xxs", "model.gguf" }, { "gguf_iq2_xs", "model.gguf" },
        { "gguf_iq2_s", "model.gguf" }, { "gguf_iq1_s", "model.gguf" }, { "gguf_iq1_m", "model.gguf" }, { "gguf_tq2_0", "model.gguf" },
        { "gguf_extra_tq1_0", "model.gguf" }, { "gguf_extra_nvfp4", "model.gguf" }, { "gguf_q1_0", "model.gguf" }, { "gguf_q2_0", "model.gguf" },
        { "gguf_split", "model-00001-of-00003.gguf" }, { "gguf_split", "model-00003-of-00003.gguf" },
        { "st_sharded", HfFolder.IndexName }, { "st_sharded", "." },
    };

    [Theory]
    [MemberData(nameof(Decodable))]
    public void Decodes_bit_exactly(string name, string file)
    {
        using Checkpoint checkpoint = CheckpointFile.Open(FormatGoldens.PathOf(name, file));
        using SafetensorsFile expected = SafetensorsFile.Open(FormatGoldens.PathOf(name, "expected.safetensors"));
        JsonArray matrices = FormatGoldens.Case(name)["matrices"]!.AsArray();
        Assert.NotEmpty(matrices);
        foreach (JsonNode? matrix in matrices)
        {
            string tensorName = matrix!["name"]!.GetValue<string>();
            TensorView tensor = checkpoint[tensorName];
            Assert.Equal([matrix["rows"]!.GetValue<long>(), matrix["cols"]!.GetValue<long>()], tensor.Shape);
            AssertSame(expected["w." + tensorName].ToFloats(), tensor.ToFloats(), tensorName);
        }
        Assert.Equal(matrices.Count, checkpoint.TensorNames.Count);
    }

    [Fact]
    public void Refuses_files_in_the_other_byte_order_by_name()
    {
        string path = FormatGoldens.PathOf("gguf_bigendian", "model.gguf");
        EngineException exception = Assert.Throws<EngineException>(() => CheckpointFile.Open(path));
        Assert.Contains("big-endian", exception.Message, StringComparison.Ordinal);
        Assert.Equal(path, exception.File);
    }

    [Fact]
    public void Every_type_of_weights_is_known_and_the_others_are_refused_by_name()
    {
        // Q8_1 and Q8_K are for activations; the others were removed.
        for (uint id = 0; id < 43; id++)
        {
            if (DTypes.TryFromGgml(id, out DType dtype))
                Assert.Equal(id, dtype.Info().GgmlId);
            else
                Assert.Contains(id, new uint[] { 4, 5, 9, 15, 31, 32, 33, 36, 37, 38 });
        }
        Assert.Equal("ggml type Q8_K (15) is not supported yet", DTypes.DescribeUnsupportedGgml(15));
        Assert.Equal("unknown ggml type 43", DTypes.DescribeUnsupportedGgml(43));
    }

    [Fact]
    public void Reads_every_metadata_type()
    {
        using GgufFile file = GgufFile.Open(FormatGoldens.PathOf("gguf_metadata", "model.gguf"));
        JsonObject expected = FormatGoldens.Case("gguf_metadata")["metadata"]!.AsObject();
        foreach ((string key, JsonNode? entry) in expected)
        {
            object actual = file.Metadata[key];
            JsonNode value = entry!["value"]!;
            if (value is JsonArray array)
            {
                Array elements = Assert.IsType<Array>(actual, exactMatch: false);
                Assert.Equal(array.Count, elements.Length);
                for (int i = 0; i < elements.Length; i++)
                    AssertValue(entry["sub"]!.GetValue<string>(), array[i]!, elements.GetValue(i)!, $"{key}[{i}]");
            }
            else
            {
                AssertValue(entry["type"]!.GetValue<string>(), value, actual, key);
            }
        }
        Assert.True(expected.Count > 20);
    }

    [Fact]
    public void Llama_rows_of_q_and_k_are_stored_for_adjacent_pairs()
    {
        using Checkpoint checkpoint = CheckpointFile.Open(FormatGoldens.PathOf("gguf_llama_qk_permute", "model.gguf"));
        using SafetensorsFile expected = SafetensorsFile.Open(FormatGoldens.PathOf("gguf_llama_qk_permute", "expected.safetensors"));
        foreach (JsonNode? matrix in FormatGoldens.Case("gguf_llama_qk_permute")["matrices"]!.AsArray())
        {
            string rawName = matrix!["name"]!.GetValue<string>();
            TensorView tensor = checkpoint[matrix["hf_name"]!.GetValue<string>()];
            Assert.Equal(checkpoint[rawName].Address, tensor.Address);
            bool permuted = !rawName.Contains("attn_v", StringComparison.Ordinal);
            int headDim = matrix["head_dim"]!.GetValue<int>(), columns = (int)tensor.Columns;
            float[] hf = expected["w." + rawName].ToFloats();
            var row = new float[columns];
            for (int r = 0; r < tensor.Rows; r++)
            {
                int head = r / headDim, j = r % headDim / 2, half = r % 2;
                int hfRow = permuted ? head * headDim + half * headDim / 2 + j : r;
                tensor.DecodeRow(r, row);
                AssertSame(hf.AsSpan(hfRow * columns, columns), row, $"{rawName} row {r}");
            }
        }
    }

    [Fact]
    public void Reads_every_safetensors_type()
    {
        using SafetensorsFile file = SafetensorsFile.Open(FormatGoldens.PathOf("st_dtypes", "model.safetensors"));
        using SafetensorsFile expected = SafetensorsFile.Open(FormatGoldens.PathOf("st_dtypes", "expected.safetensors"));
        foreach (string name in expected.TensorNames)
        {
            float[] want = expected[name].ToFloats(), found = file[name[2..]].ToFloats();
            Assert.Equal(want.Length, found.Length);
            for (int i = 0; i < want.Length; i++)
                Assert.True(want[i].Equals(found[i]), $"{name}[{i}]: expected {want[i]}, found {found[i]}");
        }
        Assert.Equal(0, file["empty"].ElementCount);
        Assert.Equal([0L, 7L], file["empty"].Shape);
        Assert.Equal([1f], new float[] { file["scalar"].Rows });
        Assert.True(file.TryGetTensor("name with \"quotes\" \\ and é世 😀", out _));
        Assert.Equal("é", file.Annotations["note"]);
        Assert.Throws<EngineException>(() => file["e4m3"].RequireFinite());
        file["i64"].RequireFinite();
    }

    internal static void AssertSame(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            // The sign of zero is not part of the goldens.
            if (expected[i] != actual[i])
                Assert.Fail($"{what}[{i}]: expected {expected[i]:R}, found {actual[i]:R}");
        }
    }

    private static void AssertValue(string type, JsonNode expected, object actual, string what)
    {
        object value = type switch
        {
            "UINT8" => expected.GetValue<byte>(),
            "INT8" => expected.GetValue<sbyte>(),
            "UINT16" => expected.GetValue<ushort>(),
            "INT16" => expected.GetValue<short>(),
            "UINT32" => expected.GetValue<uint>(),
            "INT32" => expected.GetValue<int>(),
            "FLOAT32" => (float)expected.GetValue<double>(),
            "BOOL" => expected.GetValue<bool>(),
            "STRING" => expected.GetValue<string>(),
            "UINT64" => ulong.Parse(expected.GetValue<string>()),
            "INT64" => long.Parse(expected.GetValue<string>()),
            "FLOAT64" => expected.GetValue<double>(),
            _ => throw new InvalidOperationException(type),
        };
        Assert.True(value.Equals(actual), $"{what}: expected {value} ({value.GetType().Name}), found {actual} ({actual.GetType().Name})");
    }
}
