using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;
using Engine.Checkpoints;
using Host.Inspection;

namespace Host.Tests;

/// <summary><c>inspect</c> and <c>convert</c>.</summary>
public sealed class CheckpointCommandTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("models/stories15M/hf", "BF16")]
    [InlineData("models/stories15M/stories15M-q8_0.gguf", "Q8_0")]
    public void InspectDescribesTheModel(string path, string format)
    {
        JsonElement json = HostProcess.Run("inspect", "-m", SharedFiles.Require(path), "--json").Json;
        Assert.Equal("llama", json.GetProperty("family").GetString());
        Assert.True(json.GetProperty("supported").GetBoolean());
        JsonElement plan = json.GetProperty("plan");
        Assert.Equal((32000, 288, 256, 6), (Int("vocabulary_size"), Int("hidden_size"), Int("context_length"), Int("layers")));
        Assert.Equal((6, 6, 48, 768), (Int("heads"), Int("kv_heads"), Int("head_dim"), Int("feed_forward_width")));
        Assert.True(plan.GetProperty("tied_embeddings").GetBoolean());
        Assert.Equal(format, json.GetProperty("formats")[0].GetProperty("format").GetString());
        Assert.Equal(15_191_712, json.GetProperty("parameters").GetInt64());
        Assert.Equal(0, json.GetProperty("sharing").GetArrayLength());

        int Int(string name) => plan.GetProperty(name).GetInt32();
    }

    [Fact]
    public void InspectNamesTheFormatOfQuantizedFolders()
    {
        string golden = Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden", "formats", "gptq_v1_4bit_desc_act");
        JsonElement json = HostProcess.Run("inspect", "-m", golden, "--json").Json;
        JsonElement format = Assert.Single(json.GetProperty("formats").EnumerateArray());
        Assert.Equal(("GPTQ int4", 2), (format.GetProperty("format").GetString(), format.GetProperty("tensors").GetInt32()));
        // Codes, zero points, scales and indices of [32, 128] and [64, 96].
        Assert.Equal(2048 + 64 + 256 + 512 + 3072 + 96 + 384 + 384, format.GetProperty("bytes").GetInt64());
        Assert.Equal(32 * 128 + 64 * 96, format.GetProperty("parameters").GetInt64());
        Assert.Equal(
            [("model.layers.0.mlp.gate_proj.weight", 128), ("model.layers.0.mlp.up_proj.weight", 96)],
            json.GetProperty("tensors").EnumerateArray().Select(static tensor => (tensor.GetProperty("name").GetString(), tensor.GetProperty("shape")[1].GetInt32())));

        string dump = folder.File("up.safetensors");
        HostProcess.Run("inspect", "-m", golden, "--dump", "model.layers.0.mlp.up_proj.weight", "--out", dump, "--json");
        using Checkpoint dumped = CheckpointFile.Open(dump), expected = CheckpointFile.Open(Path.Combine(golden, "expected.safetensors"));
        Assert.Equal(expected["w.model.layers.0.mlp.up_proj.weight"].ToFloats(), dumped["model.layers.0.mlp.up_proj.weight"].ToFloats());
    }

    [Fact]
    public void InspectTellsRecursionAndStreams()
    {
        string goldens = Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden");
        JsonElement plan = HostProcess.Run("inspect", "-m", Path.Combine(goldens, "mor", "mor_token_rec3_kvshare"), "--no-scan", "--json")
            .Json.GetProperty("plan");
        Assert.Equal((8, 4, 4), (plan.GetProperty("layers").GetInt32(), plan.GetProperty("distinct_blocks").GetInt32(),
            plan.GetProperty("kv_slots").GetInt32()));
        JsonElement recursion = plan.GetProperty("recursion");
        Assert.Equal((3, 2, "TokenChoice"), (recursion.GetProperty("depths").GetInt32(), recursion.GetProperty("layers").GetInt32(),
            recursion.GetProperty("router").GetString()));
        Assert.True(recursion.GetProperty("shared_kv").GetBoolean());
        Assert.True(recursion.GetProperty("shared_blocks").GetBoolean());

        string parscale = Path.Combine(goldens, "parscale", "dynamic", "dyn_p4");
        string text = HostProcess.Run("inspect", "-m", parscale, "--no-scan").Output;
        Assert.Contains("parallel streams: 4", text, StringComparison.Ordinal);
    }

    [Fact]
    public void SharedExpertsAreFound()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-moe4clone-f32.gguf");
        JsonElement json = HostProcess.Run("inspect", "-m", model, "--json").Json;
        Assert.True(json.GetProperty("supported").GetBoolean());
        // They are one slot, which a token that goes to two of them reads once.
        JsonElement experts = json.GetProperty("plan").GetProperty("experts");
        Assert.All(experts.GetProperty("layers").EnumerateArray(), static layer =>
            Assert.Equal((4, 1), (layer.GetProperty("experts").GetInt32(), layer.GetProperty("slots").GetInt32())));
        Assert.Equal(experts.GetProperty("bytes").GetInt64(), experts.GetProperty("bytes_per_token").GetInt64());
        // Five layers with three matrices of four identical experts each.
        JsonElement[] sharing = [.. json.GetProperty("sharing").EnumerateArray()];
        Assert.Equal(15, sharing.Length);
        Assert.All(sharing, shared => Assert.Equal(4, shared.GetProperty("tensors").GetArrayLength()));
    }

    [Fact]
    public void SparsityIsFound()
    {
        // One tensor with the pattern two of four and a row of zeros, one that has no zero.
        float[] sparse = [.. Enumerable.Range(0, 64).Select(i => i % 4 < 2 || i < 16 ? 0f : i)];
        float[] dense = [.. Enumerable.Range(1, 64).Select(i => (float)i)];
        string path = folder.Write("sparse.safetensors", Safetensors(("sparse", sparse), ("dense", dense)));
        JsonElement sparsity = HostProcess.Run("inspect", "-m", path, "--json").Json.GetProperty("sparsity");
        Assert.Equal(16 + 24, sparsity.GetProperty("zeros").GetInt64());
        Assert.Equal(40 / 128.0, sparsity.GetProperty("fraction").GetDouble());
        Assert.Equal(1, sparsity.GetProperty("zero_rows").GetInt64());
        Assert.Equal("sparse", Assert.Single(sparsity.GetProperty("two_of_four").EnumerateArray()).GetString());
    }

    [Fact]
    public void TensorsWithoutElementsAreDescribed()
    {
        using MemoryCheckpoint checkpoint = new();
        checkpoint.Add("experts", DType.F32, [0, 3, 4], []);
        checkpoint.Add("wide", DType.BF16, [0, 1L << 40], []);
        checkpoint.Add("tall", DType.BF16, [1L << 40, 0], []);
        InspectResult result = CheckpointInspector.Inspect(checkpoint, scan: true, static _ => { }, CancellationToken.None);
        Assert.Equal(["experts", "wide", "tall"], result.Tensors.Select(tensor => tensor.Name));
        Assert.Equal((0, 0), (result.Sharing!.Count, result.Sparsity!.Fraction));
    }

    [Fact]
    public void ADumpIsTheTensorInFloat32()
    {
        string model = SharedFiles.Require("models/stories15M/stories15M-q8_0.gguf"), path = folder.File("norm.safetensors");
        // The file's own name and Hugging Face's mean the same tensor.
        foreach (string name in new[] { "output_norm.weight", "model.norm.weight" })
        {
            JsonElement json = HostProcess.Run("inspect", "-m", model, "--dump", name, "--out", path, "--json").Json;
            Assert.Equal(288, json.GetProperty("shape")[0].GetInt32());
            (string stored, long[] shape, float[] values) = ReadSafetensors(path);
            Assert.Equal("model.norm.weight", stored);
            Assert.Equal([288], shape);
            Assert.True(values.Distinct().Count() > 100, "a norm has many values");
            File.Delete(path);
        }
    }

    [Theory]
    [InlineData("Q8_0", 0.02)]
    [InlineData("F32", 1e-6)]
    public void AConvertedModelIsTheSameModel(string format, double tolerance)
    {
        string source = SharedFiles.Require("models/stories15M/hf"), target = folder.File("converted.gguf");
        JsonElement json = HostProcess.Run("convert", "-m", source, "-o", target, "--format", format, "--json").Json;
        Assert.Equal(new FileInfo(target).Length, json.GetProperty("bytes").GetInt64());
        const string Name = "model.layers.3.mlp.down_proj.weight";
        float[] before = Dump(source, Name), after = Dump(target, Name);
        Assert.Equal(before.Length, after.Length);
        double largest = before.Max(Math.Abs);
        Assert.True(before.Zip(after).All(pair => Math.Abs(pair.First - pair.Second) <= tolerance * largest));
    }

    private float[] Dump(string model, string tensor)
    {
        string path = folder.File($"{Guid.NewGuid()}.safetensors");
        Assert.Equal(0, HostProcess.Run("inspect", "-m", model, "--dump", tensor, "--out", path, "--json").ExitCode);
        return ReadSafetensors(path).Values;
    }

    private static (string Name, long[] Shape, float[] Values) ReadSafetensors(string path)
    {
        byte[] file = File.ReadAllBytes(path);
        int header = checked((int)BinaryPrimitives.ReadInt64LittleEndian(file));
        using JsonDocument document = JsonDocument.Parse(file.AsMemory(8, header));
        JsonProperty tensor = document.RootElement.EnumerateObject().Single(property => property.Name != "__metadata__");
        Assert.Equal("F32", tensor.Value.GetProperty("dtype").GetString());
        long[] shape = [.. tensor.Value.GetProperty("shape").EnumerateArray().Select(dimension => dimension.GetInt64())];
        return (tensor.Name, shape, MemoryMarshal.Cast<byte, float>(file.AsSpan(8 + header)).ToArray());
    }

    private static byte[] Safetensors(params (string Name, float[] Values)[] tensors)
    {
        int offset = 0;
        Dictionary<string, object> header = [];
        foreach ((string name, float[] values) in tensors)
        {
            int end = offset + values.Length * sizeof(float);
            header[name] = new { dtype = "F32", shape = new[] { values.Length / 16, 16 }, data_offsets = new[] { offset, end } };
            offset = end;
        }
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(header);
        byte[] length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, json.Length);
        return [.. length, .. json, .. tensors.SelectMany(tensor => MemoryMarshal.AsBytes(tensor.Values.AsSpan()).ToArray())];
    }
}
