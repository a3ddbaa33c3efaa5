using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Folders of random modules that independent packers wrote.</summary>
public sealed class CodedPackingTests
{
    private const int Repetitions = 8;

    // Scales of activations: products are computed as the kernels do it.
    private static readonly string[] unread = ["input_scale"];

    public static TheoryData<string> Formats => PackedFormat.Names;

    [Theory]
    [MemberData(nameof(Formats))]
    public void Weights_are_those_that_were_packed(string name)
    {
        Random random = Seed.Fresh();
        for (int repetition = 0; repetition < Repetitions; repetition++)
        {
            PackedFormat format = PackedFormat.Make(name, random);
            (int rows, int columns) = Shape(random, format);
            PackedModule module = format.Pack(random, rows, columns, 1), expert = format.Pack(random, rows, columns, 0.25f);
            using var folder = new TemporaryFolder();
            RawTensor bias = new("model.layers.0.mlp.up_proj.bias", "F32", [2], RawValues.Bytes([1f, -2f]));
            RawTensor dense = new("lm_head.weight", "F16", [1, 3], RawValues.Bytes([(Half)1, (Half)2, (Half)3]));
            PackedFolder.Write(
                folder, Config(format),
                [.. Named(module, "model.layers.0.mlp.up_proj"), bias, .. Named(expert, "model.layers.0.mlp.experts.3.w1"), dense]);
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            string at = $"{format} [{rows}, {columns}]";
            Assert.Equal(
                ["lm_head.weight", "model.layers.0.mlp.experts.3.w1.weight", "model.layers.0.mlp.up_proj.bias", "model.layers.0.mlp.up_proj.weight"],
                checkpoint.TensorNames.Order(StringComparer.Ordinal));
            AssertWeights(format, module.Weights, checkpoint["model.layers.0.mlp.up_proj.weight"], rows, columns, at);
            AssertWeights(format, expert.Weights, checkpoint["model.layers.0.mlp.experts.3.w1.weight"], rows, columns, at);
            Assert.Equal([1f, -2f], checkpoint["model.layers.0.mlp.up_proj.bias"].ToFloats());
            Assert.Equal([1f, 2f, 3f], checkpoint["lm_head.weight"].ToFloats());
            Assert.False(checkpoint.Config.ContainsKey("quantization_config"));
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_tensor_that_is_missing_or_of_another_shape_or_type_is_refused(string name)
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make(name, random);
        (int rows, int columns) = Shape(random, format);
        PackedModule module = format.Pack(random, rows, columns, 1);
        string at = $"{format} [{rows}, {columns}]";
        foreach (RawTensor tensor in module.Tensors.Where(static tensor => !unread.Contains(tensor.Name)))
        {
            // Groups are runs where no tensor says otherwise, unless there is something to say; the layout of bytes is that of rows.
            bool optional = tensor.Name == "weight_format" || (tensor.Name == "g_idx" && !NeedsIndices(format, columns));
            if (!optional)
            {
                AssertRefused(format, [.. module.Tensors.Where(other => other != tensor)], $"{at} without {tensor.Name}");
            }
            for (int axis = 0; axis < tensor.Shape.Length; axis++)
            {
                long[] longer = [.. tensor.Shape];
                longer[axis]++;
                if (IsAnotherMatrix(module, tensor, axis) || (tensor.Name == "weight_scale" && longer is [var scales] && scales == rows))
                {
                    continue;
                }
                long bytes = tensor.Bytes.Length / Math.Max(1, tensor.Shape.Aggregate(1L, static (a, b) => a * b));
                AssertRefused(
                    format, With(module, tensor, tensor with { Shape = longer, Bytes = new byte[bytes * longer.Aggregate(1L, static (a, b) => a * b)] }),
                    $"{at}: {tensor.Name} is [{string.Join(", ", longer)}]");
            }
            AssertRefused(
                format, With(module, tensor, tensor with { Type = "F64", Bytes = new byte[8 * tensor.Shape.Aggregate(1L, static (a, b) => a * b)] }),
                $"{at}: {tensor.Name} is F64");
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Scales_that_are_not_finite_are_refused(string name)
    {
        Random random = Seed.Fresh();
        PackedFormat format = PackedFormat.Make(name, random);
        (int rows, int columns) = Shape(random, format);
        PackedModule module = format.Pack(random, rows, columns, 1);
        foreach (RawTensor tensor in module.Tensors.Where(static tensor => tensor.Type.StartsWith('F') && !unread.Contains(tensor.Name)))
        {
            byte[] bytes = [.. tensor.Bytes];
            // All bits set is a NaN in every float type.
            int size = (int)(bytes.Length / Math.Max(1, tensor.Shape.Aggregate(1L, static (a, b) => a * b)));
            // A table of codes need not be used as a whole.
            bool all = tensor.Name.Contains("map", StringComparison.Ordinal);
            bytes.AsSpan(all ? 0 : random.Next(bytes.Length / size) * size, all ? bytes.Length : size).Fill(0xFF);
            AssertRefused(format, With(module, tensor, tensor with { Bytes = bytes }), $"{format} [{rows}, {columns}]: NaN in {tensor.Name}");
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_configuration_of_nonsense_is_refused_or_means_something(string name)
    {
        Random random = Seed.Fresh();
        string[] nonsense =
        [
            "null", "0", "-1", "-7", "3", "5", "1e300", "2147483647", "9223372036854775807", "1.5", "\"\"", "\"x\"", "true", "[]", "[0, 0]", "[\"\", 1]", "{}",
        ];
        PackedFormat format = PackedFormat.Make(name, random);
        (int rows, int columns) = Shape(random, format);
        PackedModule module = format.Pack(random, rows, columns, 1);
        foreach (string key in format.Config.Select(static pair => pair.Key).Append("dynamic").Append("modules_to_not_convert").ToArray())
        {
            foreach (string value in random.GetItems(nonsense, 6))
            {
                var config = (JsonObject)format.Config.DeepClone();
                config[key] = JsonNode.Parse(value);
                _ = Refusal(config, module.Tensors);
            }
        }
    }

    internal static JsonObject Config(PackedFormat format) => new() { ["model_type"] = "llama", ["quantization_config"] = format.Config.DeepClone() };

    internal static IEnumerable<RawTensor> Named(PackedModule module, string name) =>
        module.Tensors.Select(tensor => tensor with { Name = $"{name}.{tensor.Name}" });

    /// <summary>A shape that the format can store, of one row or column sometimes.</summary>
    private static (int Rows, int Columns) Shape(Random random, PackedFormat format)
    {
        while (true)
        {
            (int rows, int columns) = (1 + random.Next(70), 1 + random.Next(random.Next(2) == 0 ? 70 : 400));
            if (format.Fits(rows, columns))
            {
                return (rows, columns);
            }
        }
    }

    private static void AssertWeights(PackedFormat format, float[] expected, TensorView found, int rows, int columns, string at)
    {
        Assert.Equal([rows, columns], found.Shape);
        Assert.Equal(format.IsCoded, found.Coded is not null);
        GoldenTests.AssertSame(expected, found.ToFloats(), at);
        if (found.Coded is { } coded)
        {
            CodedChecks.AssertConsistent(coded, expected);
        }
        found.RequireFinite();
    }

    /// <summary>The tensor alone says how many inputs (or, of bytes, outputs) there are: with more of them it is another matrix.</summary>
    private static bool IsAnotherMatrix(PackedModule module, RawTensor tensor, int axis) =>
        tensor is { Name: "weight", Type: "I8" or "F8_E4M3" }
        || (tensor is { Name: "weight_packed", Type: "I32" } && axis == 1) // A word more is another layout of the same codes, sometimes.
        || (tensor.Name == "qweight" && axis == 0 && module.Tensors.All(static other => other.Name != "g_idx"));

    private static bool NeedsIndices(PackedFormat format, int columns) =>
        format.Config["desc_act"]!.GetValue<bool>() && columns > format.Config["group_size"]!.GetValue<int>();

    private static RawTensor[] With(PackedModule module, RawTensor tensor, RawTensor instead) =>
        [.. module.Tensors.Select(other => other == tensor ? instead : other)];

    private static void AssertRefused(PackedFormat format, IReadOnlyList<RawTensor> tensors, string what)
    {
        EngineException? refusal = Refusal(format.Config, tensors);
        Assert.True(refusal is not null, $"{what}: it was read");
        Assert.False(string.IsNullOrEmpty(refusal.File), what);
        Assert.False(string.IsNullOrEmpty(refusal.Item), what);
    }

    /// <summary>Opens a folder and reads all of it; what it is refused for, or null.</summary>
    private static EngineException? Refusal(JsonObject quantization, IReadOnlyList<RawTensor> tensors)
    {
        using var folder = new TemporaryFolder();
        var config = new JsonObject { ["model_type"] = "llama", ["quantization_config"] = quantization.DeepClone() };
        PackedFolder.Write(folder, config, [.. Named(new PackedModule(tensors, []), "m")]);
        try
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            foreach (string name in checkpoint.TensorNames)
            {
                checkpoint[name].RequireFinite();
                _ = checkpoint[name].ToFloats();
            }
            return null;
        }
        catch (EngineException refusal)
        {
            return refusal;
        }
    }
}
