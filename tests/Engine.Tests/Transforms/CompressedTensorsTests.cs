using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Transforms;

/// <summary>What compressed-tensors files hold, read back by the format's description (formats.md sections 3.2 and 4.2) and nothing else.</summary>
public sealed class CompressedTensorsTests
{
    [Theory]
    [InlineData("int4:g32", 7, 96)]
    [InlineData("int4", 16, 256)]
    [InlineData("int4:channel", 9, 37)]
    [InlineData("int4:g16:asym", 13, 48)]
    [InlineData("int4:channel:asym", 3, 20)]
    [InlineData("int8", 5, 33)]
    [InlineData("int8:g16", 4, 48)]
    [InlineData("int8:asym", 6, 10)]
    public void Codes_are_where_the_format_has_them(string text, int rows, int columns)
    {
        foreach (DType type in (ReadOnlySpan<DType>)[DType.F32, DType.F16, DType.BF16])
        {
            QuantizedMatrix matrix = Random(text, rows, columns, type, pattern: null);
            Dictionary<string, (TensorSource Tensor, byte[] Bytes)> file = Write(matrix, null);
            float[] decoded = text == "int8" ? Plain(file, rows, columns) : Packed(file, matrix.Format, rows, columns);
            RequireSame(matrix, decoded);
        }
    }

    [Fact]
    public void Two_of_four_are_stored_with_a_bit_for_each()
    {
        const int Rows = 6, Columns = 44; // not a multiple of the eight bits of a byte
        QuantizedMatrix matrix = Random("int8", Rows, Columns, DType.BF16, SparsityPattern.TwoOfFour);
        Dictionary<string, (TensorSource Tensor, byte[] Bytes)> file = Write(matrix, SparsityPattern.TwoOfFour);
        Assert.Equal([Rows, Columns / 2], file["m.compressed"].Tensor.Shape);
        Assert.Equal([Rows, 6], file["m.bitmask"].Tensor.Shape);
        Assert.Equal([2, 1], file["m.shape"].Tensor.Shape);
        Assert.Equal([(long)Rows, Columns], Int64(file["m.shape"].Bytes));
        (byte[] kept, byte[] mask) = (file["m.compressed"].Bytes, file["m.bitmask"].Bytes);
        float[] scales = Floats(file["m.weight_scale"]), decoded = new float[Rows * Columns];
        int next = 0;
        for (int row = 0; row < Rows; row++)
        {
            for (int column = 0; column < Columns; column++)
            {
                if ((mask[row * 6 + column / 8] >> (column % 8) & 1) == 1)
                {
                    decoded[row * Columns + column] = (sbyte)kept[next++] * scales[row];
                }
                if (column % 4 == 3)
                {
                    Assert.Equal((row * Columns + column + 1) / 2, next);
                }
            }
            Assert.Equal(0, mask[row * 6 + 5] >> 4);
        }
        RequireSame(matrix, decoded);
    }

    [Theory]
    [InlineData("int4:g32", null, "ct_w4_group32_sym_ragged")]
    [InlineData("int4", null, "ct_w4_group_sym")]
    [InlineData("int4:channel:asym", null, "ct_w4_channel_asym")]
    [InlineData("int8", null, "ct_int8_channel")]
    [InlineData("int8", "2:4", "ct_sparse24_bitmask_int8")]
    [InlineData("int8:g64", null, "ct_w8_group_sym")]
    public void The_configuration_says_what_the_format_s_own_library_says(string format, string? pattern, string golden)
    {
        string path = SharedFiles.Require($"golden/formats/{golden}/config.json");
        JsonNode expected = JsonNode.Parse(File.ReadAllText(path))!["quantization_config"]!;
        JsonObject found = CompressedTensors.Config(
            IntegerFormat.Parse(format), pattern is null ? null : SparsityPattern.Parse(pattern), ["lm_head"]);
        // Which of two spellings of nothing the observer has is no difference.
        Assert.Equal(Sorted(expected), Sorted(found));
    }

    [Theory]
    [InlineData("int4:g32", 4, 32, true)]
    [InlineData("INT8", 8, null, true)]
    [InlineData("int4:channel:asym", 4, null, false)]
    [InlineData("int8:g64", 8, 64, true)]
    public void Formats_have_names(string text, int bits, int? group, bool symmetric)
    {
        IntegerFormat format = IntegerFormat.Parse(text);
        Assert.Equal(new IntegerFormat(bits, group, symmetric), format);
        Assert.Equal(format, IntegerFormat.Parse(format.ToString()));
    }

    [Theory]
    [InlineData("int3")]
    [InlineData("int4:g0")]
    [InlineData("int4:g")]
    [InlineData("int4:32")]
    [InlineData("")]
    public void Other_names_are_refused(string text) =>
        Assert.Contains($"'{text}'", Assert.Throws<EngineException>(() => IntegerFormat.Parse(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void Rounding_is_off_by_half_a_step_and_by_a_whole_one_at_the_end()
    {
        Random random = Seed.Fresh();
        foreach (string text in (ReadOnlySpan<string>)["int4:g8", "int8:channel", "int4:g8:asym"])
        {
            float[] weights = Cpu.TestRows.Normal(random, 5 * 24);
            weights.AsSpan(8, 8).Clear();
            weights[3] = 0;
            var matrix = new QuantizedMatrix(5, 24, IntegerFormat.Parse(text), DType.F16);
            matrix.RoundToNearest(weights);
            float[] row = new float[24];
            for (int r = 0; r < 5; r++)
            {
                matrix.DecodeRow(r, row);
                for (int column = 0; column < 24; column++)
                {
                    float weight = weights[r * 24 + column], scale = matrix.Scales[r * matrix.Format.GroupsOf(24) + column / matrix.GroupColumns];
                    Assert.Equal(weight, row[column], 1.01 * scale);
                    Assert.True(weight != 0 || row[column] == 0);
                }
            }
        }
    }

    private static QuantizedMatrix Random(string text, int rows, int columns, DType type, SparsityPattern? pattern)
    {
        float[] weights = Cpu.TestRows.Normal(Seed.Fresh(), rows * columns);
        bool[] pruned = pattern is null ? new bool[weights.Length] : PruningMask.Magnitude(weights, rows, columns, pattern);
        for (int i = 0; i < weights.Length; i++)
        {
            weights[i] = pruned[i] ? 0 : weights[i];
        }
        weights.AsSpan(0, 4).Clear(); // a group with fewer than two
        var matrix = new QuantizedMatrix(rows, columns, IntegerFormat.Parse(text), type);
        matrix.RoundToNearest(weights);
        return matrix;
    }

    private static Dictionary<string, (TensorSource Tensor, byte[] Bytes)> Write(QuantizedMatrix matrix, SparsityPattern? pattern) =>
        CompressedTensors.Tensors("m", (matrix.Rows, matrix.Columns), matrix.Format, matrix.ScaleType, pattern, () => matrix)
            .ToDictionary(static tensor => tensor.Name, static tensor =>
            {
                using MemoryStream stream = new();
                tensor.WriteTo(stream);
                Assert.Equal(tensor.ByteLength, stream.Length);
                return (tensor, stream.ToArray());
            });

    private static float[] Plain(Dictionary<string, (TensorSource Tensor, byte[] Bytes)> file, int rows, int columns)
    {
        Assert.Equal(["m.weight", "m.weight_scale"], file.Keys);
        Assert.Equal(DType.I8, file["m.weight"].Tensor.DType);
        Assert.Equal([rows, 1], file["m.weight_scale"].Tensor.Shape);
        float[] scales = Floats(file["m.weight_scale"]);
        return [.. file["m.weight"].Bytes.Select((code, i) => (sbyte)code * scales[i / columns])];
    }

    private static float[] Packed(Dictionary<string, (TensorSource Tensor, byte[] Bytes)> file, IntegerFormat format, int rows, int columns)
    {
        int bits = format.Bits, middle = 1 << (bits - 1), words = (columns * bits + 31) / 32, group = format.GroupColumns ?? columns, groups = columns / group;
        Assert.Equal(DType.I32, file["m.weight_packed"].Tensor.DType);
        Assert.Equal([rows, words], file["m.weight_packed"].Tensor.Shape);
        Assert.Equal([rows, groups], file["m.weight_scale"].Tensor.Shape);
        Assert.Equal([(long)rows, columns], Int64(file["m.weight_shape"].Bytes));
        uint[] codes = UInt32(file["m.weight_packed"].Bytes), zeros = format.IsSymmetric ? [] : UInt32(file["m.weight_zero_point"].Bytes);
        Assert.Equal(format.IsSymmetric, !file.ContainsKey("m.weight_zero_point"));
        float[] scales = Floats(file["m.weight_scale"]), decoded = new float[rows * columns];
        for (int i = 0; i < decoded.Length; i++)
        {
            int row = i / columns, column = i % columns, g = column / group, each = 32 / bits, mask = (1 << bits) - 1;
            int q = (int)(codes[row * words + column / each] >> (column % each * bits)) & mask;
            int zero = zeros.Length == 0 ? 0 : ((int)(zeros[row / each * groups + g] >> (row % each * bits)) & mask) - middle;
            decoded[i] = (q - middle - zero) * scales[row * groups + g];
        }
        return decoded;
    }

    private static void RequireSame(QuantizedMatrix matrix, float[] decoded)
    {
        float[] row = new float[matrix.Columns];
        for (int r = 0; r < matrix.Rows; r++)
        {
            matrix.DecodeRow(r, row);
            Assert.Equal(row, decoded[(r * matrix.Columns)..((r + 1) * matrix.Columns)]);
        }
    }

    private static float[] Floats((TensorSource Tensor, byte[] Bytes) stored)
    {
        float[] values = new float[stored.Tensor.Shape.Aggregate(1L, static (a, b) => a * b)];
        Codec.For(stored.Tensor.DType).Decode(stored.Bytes, values);
        return values;
    }

    private static long[] Int64(byte[] bytes) => [.. bytes.Chunk(8).Select(static part => BitConverter.ToInt64(part))];

    private static uint[] UInt32(byte[] bytes) => [.. bytes.Chunk(4).Select(static part => BitConverter.ToUInt32(part))];

    /// <summary>Everything as text, keys in order; what is null or says how groups were fitted is left out.</summary>
    private static string Sorted(JsonNode? node) => node switch
    {
        JsonObject fields => $"{{{string.Join(',', fields.Where(static field => field.Value is not null && field.Key is not ("observer" or "observer_kwargs"))
            .OrderBy(static field => field.Key, StringComparer.Ordinal).Select(static field => $"{field.Key}:{Sorted(field.Value)}"))}}}",
        JsonArray items => $"[{string.Join(',', items.Select(Sorted))}]",
        _ => node?.ToJsonString() ?? "",
    };
}
