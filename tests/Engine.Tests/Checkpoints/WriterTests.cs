using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;
using Engine.Checkpoints.Writing;
using Xunit;

namespace Engine.Tests.Checkpoints;

public sealed class WriterTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly int seed = Environment.TickCount;

    public void Dispose() => folder.Dispose();

    [Fact]
    public void Gguf_round_trips_tensors_and_metadata()
    {
        for (int attempt = 0; attempt < 20; attempt++)
        {
            var random = new Random(seed + attempt);
            using MemoryCheckpoint model = RandomModel(random, static info => info.GgmlId is not null, minimumDimension: 1);
            string path = folder.File("model.gguf");
            var metadata = new Dictionary<string, object>
            {
                ["u8"] = byte.MaxValue,
                ["i8"] = sbyte.MinValue,
                ["u16"] = ushort.MaxValue,
                ["i16"] = short.MinValue,
                ["u32"] = uint.MaxValue,
                ["i32"] = int.MinValue,
                ["u64"] = ulong.MaxValue,
                ["i64"] = long.MinValue,
                ["f32"] = 0.1f,
                ["f64"] = 1e-300,
                ["yes"] = true,
                ["no"] = false,
                ["text"] = "h世😀",
                ["empty"] = "",
                ["texts"] = new[] { "a", "", "Ġx" },
                ["none"] = Array.Empty<int>(),
                ["floats"] = new[] { 0.5f, float.NaN },
                ["flags"] = new[] { true, false },
                ["longs"] = new[] { random.NextInt64() },
            };
            GgufWriter.Write(path, metadata, Sources(model), alignment: 1u << random.Next(3, 10));
            using GgufFile read = GgufFile.Open(path);
            AssertSame(model, read);
            foreach ((string key, object value) in metadata)
            {
                Assert.Equal(value, read.Metadata[key]);
                Assert.Equal(value.GetType(), read.Metadata[key].GetType());
            }
        }
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void Safetensors_round_trips_tensors_and_annotations()
    {
        for (int attempt = 0; attempt < 20; attempt++)
        {
            var random = new Random(seed + attempt);
            using MemoryCheckpoint model = RandomModel(random, static info => info.SafetensorsName is not null, minimumDimension: 0);
            string path = folder.File("model.safetensors");
            SafetensorsWriter.Write(path, Sources(model), new Dictionary<string, string> { ["note \""] = "é\n" });
            using SafetensorsFile read = SafetensorsFile.Open(path);
            AssertSame(model, read);
            Assert.Equal("é\n", read.Annotations["note \""]);
        }
    }

    [Fact]
    public void Shards_are_read_back_as_one()
    {
        using MemoryCheckpoint model = RandomModel(new Random(seed), static info => info.SafetensorsName is not null, minimumDimension: 1);
        File.WriteAllText(folder.File("config.json"), """{"model_type":"llama"}""");
        SafetensorsWriter.WriteFolder(folder.Path, Sources(model), shardBytes: 1);
        Assert.True(Directory.GetFiles(folder.Path, "model-*.safetensors").Length > 1);
        using (Checkpoint read = CheckpointFile.Open(folder.Path))
        {
            AssertSame(model, read);
            Assert.Equal("llama", (string?)read.Config["model_type"]);
        }

        // Written again as one file, the old index must not win.
        SafetensorsWriter.WriteFolder(folder.Path, [TensorSource.FromValues("only", [1], [1f])]);
        using Checkpoint single = CheckpointFile.Open(folder.Path);
        Assert.Equal(["only"], single.TensorNames);
    }

    [Fact]
    public void A_failure_leaves_the_old_file_and_nothing_else()
    {
        string path = folder.File("model.gguf");
        File.WriteAllText(path, "old");
        var broken = new TensorSource("b", DType.F32, [1], static _ => throw new EngineException("no"));
        var tooShort = new TensorSource("b", DType.F32, [2], static stream => stream.Write([1]));
        TensorSource[] failing = [TensorSource.FromValues("a", [1], [1f]), broken];
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], failing));
        Assert.Throws<EngineException>(() => SafetensorsWriter.Write(path, failing));
        Assert.Throws<InvalidOperationException>(() => GgufWriter.Write(path, [], [tooShort]));
        Assert.Equal("old", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(folder.Path));
        Assert.Throws<EngineException>(() => GgufWriter.Write(Path.Combine(folder.Path, "missing", "m.gguf"), [], []));
        Assert.Throws<EngineException>(() => SafetensorsWriter.WriteFolder(Path.Combine(path, "below-a-file"), []));
    }

    [Fact]
    public void Cancelling_leaves_the_old_file_and_nothing_else()
    {
        string path = folder.File("model.gguf");
        File.WriteAllText(path, "old");
        using var cancel = new CancellationTokenSource();
        var cancelling = new TensorSource("a", DType.F32, [1], stream =>
        {
            cancel.Cancel();
            stream.Write(new byte[sizeof(float)]);
        });
        Assert.Throws<OperationCanceledException>(() => GgufWriter.Write(path, [], [cancelling], cancellationToken: cancel.Token));
        Assert.Throws<OperationCanceledException>(() => SafetensorsWriter.Write(path, [cancelling], cancellationToken: cancel.Token));
        Assert.Equal("old", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Theory]
    [InlineData(0L, 3L, 4L)]
    [InlineData(0L, 1L << 40)]
    [InlineData(1L << 40, 0L)]
    public void A_tensor_without_elements_is_converted(params long[] shape)
    {
        using var model = new MemoryCheckpoint();
        string path = folder.File("empty.safetensors");
        SafetensorsWriter.Write(path, [TensorSource.Convert(model.Add("a", DType.BF16, shape, []), DType.F32)]);
        using Checkpoint written = CheckpointFile.Open(path);
        Assert.Equal(shape, written["a"].Shape);
        Assert.Equal(0, written["a"].ByteLength);
    }

    [Fact]
    public void Refuses_what_a_format_cannot_hold()
    {
        string path = folder.File("model");
        TensorSource Named(string name, DType dtype = DType.F32, params long[] shape) => new(name, dtype, shape, static _ => { });
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], [Named("a", DType.U8, 1)]));
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], [Named("a", DType.F32, 1, 1, 1, 1, 1)]));
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], [Named("a", DType.F32, 0)]));
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], [Named(new string('a', 64), DType.F32, 1)]));
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [], [Named("a", DType.F32, 1), Named("a", DType.F32, 1)]));
        Assert.Throws<EngineException>(() => GgufWriter.Write(path, [new("key", new object())], []));
        Assert.Throws<EngineException>(() => SafetensorsWriter.Write(path, [Named("a", DType.Q8_0, 32)]));
        Assert.Throws<EngineException>(() => SafetensorsWriter.Write(path, [Named("__metadata__", DType.F32, 1)]));
        Assert.Empty(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void A_tensor_that_is_not_finite_is_not_converted()
    {
        using var model = new MemoryCheckpoint();
        model.Add("w", DType.F32, [2, 1], BitConverter.GetBytes(1f).Concat(BitConverter.GetBytes(float.NaN)).ToArray());
        EngineException exception = Assert.Throws<EngineException>(
            () => SafetensorsWriter.Write(folder.File("m"), [TensorSource.Convert(model["w"], DType.F16)]));
        Assert.Contains("row 1", exception.Message, StringComparison.Ordinal);
        Assert.Equal("w", exception.Item);
    }

    private static List<TensorSource> Sources(Checkpoint model) => [.. model.TensorNames.Select(name => TensorSource.From(model[name]))];

    private void AssertSame(Checkpoint expected, Checkpoint actual)
    {
        Assert.Equal(expected.TensorNames, actual.TensorNames);
        foreach (string name in expected.TensorNames)
        {
            TensorView want = expected[name], found = actual[name];
            Assert.Equal(want.DType, found.DType);
            Assert.Equal(want.Shape.Length == 0 && actual is GgufFile ? [1] : want.Shape, found.Shape);
            Assert.True(want.Bytes.SequenceEqual(found.Bytes), $"seed {seed}: {name} changed");
        }
    }

    private static MemoryCheckpoint RandomModel(Random random, Func<DTypeInfo, bool> stored, int minimumDimension)
    {
        var model = new MemoryCheckpoint();
        DTypeInfo[] types = [.. DTypes.All.Where(stored)];
        int count = random.Next(5, 15);
        for (int i = 0; i < count; i++)
        {
            DTypeInfo type = types[random.Next(types.Length)];
            var shape = new long[random.Next(0, 4)];
            for (int d = 0; d < shape.Length; d++)
                shape[d] = random.Next(minimumDimension, 6);
            if (shape.Length == 0 && type.BlockElements > 1)
                shape = [1];
            if (shape.Length > 0)
                shape[^1] *= type.BlockElements;
            long elements = shape.Aggregate(1L, static (product, dimension) => product * dimension);
            var bytes = new byte[elements / type.BlockElements * type.BlockBytes];
            random.NextBytes(bytes);
            model.Add($"tensor.{i}.\"é", type.DType, shape, bytes);
        }
        return model;
    }
}
