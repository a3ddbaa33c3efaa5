using System.IO.Compression;
using System.Text;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Cpu.Matmul.Kernels;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Checkpoints;

/// <summary>Masks in a .npz beside a dense folder (MaskLLM).</summary>
public sealed class MaskedFolderTests
{
    private const string Query = "model.layers.0.self_attn.q_proj.weight", Usual = "mask_compressed.npz";

    [Theory]
    [InlineData("F32", true)]
    [InlineData("F16", true)]
    [InlineData("BF16", false)]
    public void Weights_whose_bit_is_zero_are_zero(string type, bool compressed)
    {
        Random random = Seed.Fresh();
        DType dtype = Enum.Parse<DType>(type);
        TinyModel model = TinyModels.Make("llama tied", random.Next());
        model.Tensors["model.layers.1.mlp.up_proj.bias"] = ([44], new float[44]); // not a multiple of 8 elements
        using var folder = new TemporaryFolder();
        Write(model, folder, dtype);
        Dictionary<string, bool[]> masks = model.Tensors.Where(static tensor => tensor.Key.Contains("_proj.", StringComparison.Ordinal))
            .ToDictionary(static tensor => tensor.Key, tensor => TwoOfFour(tensor.Value.Values.Length, random));
        folder.Write(Usual, Npz(masks.Select(static mask => ($"{mask.Key}.mask.npy", Npy(Pack(mask.Value)))), compressed));
        using Checkpoint masked = CheckpointFile.Open(folder.Path);
        Assert.DoesNotContain(Usual, masked.AssetNames);
        Assert.Null(masked.ReadAsset(Usual));
        foreach ((string name, (long[] shape, float[] _)) in model.Tensors)
        {
            TensorView tensor = masked[name];
            Assert.Equal((dtype, true), (tensor.DType, tensor.Shape.AsSpan().SequenceEqual(shape)));
            float[] dense = Dense(folder, name);
            Assert.Equal(
                masks.TryGetValue(name, out bool[]? mask) ? [.. dense.Select((value, i) => BitConverter.SingleToInt32Bits(mask[i] ? value : 0f))] : [.. dense.Select(BitConverter.SingleToInt32Bits)],
                tensor.ToFloats().Select(BitConverter.SingleToInt32Bits).ToArray());
        }
    }

    [Fact]
    public void A_masked_model_runs_as_two_of_four()
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make("llama tied", random.Next());
        using var folder = new TemporaryFolder();
        Write(model, folder, DType.BF16);
        string masks = folder.Write("other.npz", Npz(model.Tensors.Where(static tensor => tensor.Key.Contains("_proj.", StringComparison.Ordinal))
            .Select(tensor => ($"{tensor.Key}.mask.npy", Npy(Pack(TwoOfFour(tensor.Value.Values.Length, random))))), compressed: true));
        int[] tokens = model.Tokens(6);
        using var dense = new ModelHarness(CheckpointFile.Open(folder.Path), new CpuBackend(new CpuOptions { Threads = 1 }));
        using var masked = new ModelHarness(CheckpointFile.Open(folder.Path, masks), new CpuBackend(new CpuOptions { Threads = 1 }));
        Assert.Equal(MatmulInstructionSupport.Best.ExpandsWords(), masked.Executor.WeightBytes < dense.Executor.WeightBytes);
        // The same model with its zeros stored.
        using var plain = new TemporaryFolder();
        using (Checkpoint source = CheckpointFile.Open(folder.Path, masks))
        {
            SafetensorsWriter.WriteFolder(plain.Path, [.. source.TensorNames.Select(name => TensorSource.Convert(source[name], DType.BF16))]);
        }
        plain.Write("config.json", model.Config.ToJsonString());
        using var stored = new ModelHarness(CheckpointFile.Open(plain.Path), new CpuBackend(new CpuOptions { Threads = 1 }));
        Assert.Equal(stored.Run(tokens, chunk: 6), masked.Run(tokens, chunk: 6));
    }

    /// <summary>Written by numpy.savez_compressed's own rules, spelled out: the first element is the highest bit of the first byte.</summary>
    [Fact]
    public void The_first_element_is_the_highest_bit()
    {
        var model = new TinyModel("bits", new() { ["model_type"] = "none" }, 1);
        model.Tensors.Add("a", ([3, 4], [.. Enumerable.Range(1, 12).Select(static value => (float)value)]));
        using var folder = new TemporaryFolder();
        Write(model, folder, DType.F32);
        folder.Write(Usual, Npz([("a.mask.npy", Npy([0b1010_0001, 0b0110_0000]))], compressed: true));
        using Checkpoint masked = CheckpointFile.Open(folder.Path);
        Assert.Equal([1, 0, 3, 0, 0, 0, 0, 8, 0, 10, 11, 0], masked["a"].ToFloats());
    }

    [Fact]
    public void What_fits_nothing_is_refused()
    {
        TinyModel model = TinyModels.Make("llama tied", Seed.Fresh().Next());
        byte[] whole = new byte[32 * 32 / 8];
        Refused($"{Query}.mask", "expected 128 bytes for [32, 32]; found 127", ($"{Query}.mask.npy", Npy(whole[..^1])));
        Refused("model.layers.9.mlp.up_proj.weight.mask", "the model has no tensor", ("model.layers.9.mlp.up_proj.weight.mask.npy", Npy(whole)));
        Refused(Query, "expected the name of a tensor and .mask", ($"{Query}.npy", Npy(whole)));
        Refused("readme.txt", "expected an array", ("readme.txt", whole));
        Refused($"{Query}.mask", "two arrays", ($"{Query}.mask.npy", Npy(whole)), ($"{Query}.mask.npy", Npy(whole)));
        Refused($"{Query}.mask", "it does not begin as a .npy", ($"{Query}.mask.npy", whole));
        Refused($"{Query}.mask", "expected bytes (|u1)", ($"{Query}.mask.npy", Npy(whole, "{'descr': '<f4', 'fortran_order': False, 'shape': (128,), }")));
        Refused($"{Query}.mask", "expected bytes (|u1)", ($"{Query}.mask.npy", Npy(whole, "{'descr': '|u1', 'fortran_order': False, 'shape': (32, 4), }")));
        Refused($"{Query}.mask", "expected bytes (|u1)", ($"{Query}.mask.npy", Npy(whole, "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,), }")));
        Refused($"{Query}.mask", "version 9", ($"{Query}.mask.npy", Npy(whole, version: 9)));

        void Refused(string item, string reason, params (string Name, byte[] Content)[] entries)
        {
            using var folder = new TemporaryFolder();
            Write(model, folder, DType.F32);
            folder.Write(Usual, Npz(entries, compressed: true));
            EngineException error = Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path).Dispose());
            Assert.Equal((folder.File(Usual), item), (error.File, error.Item));
            Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Contents_are_as_long_as_their_headers_say()
    {
        TinyModel model = TinyModels.Make("llama tied", Seed.Fresh().Next());
        const string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (128,), }";
        // A bomb: a gigabyte would follow, of which no more than a byte is unpacked.
        Refused("expected 128 bytes; found more", Npy(new byte[1 << 20], header));
        Refused("cannot be read", Npy(new byte[127], header));
        using var odd = new TemporaryFolder();
        var small = new TinyModel("bits", new() { ["model_type"] = "none" }, 1);
        small.Tensors.Add("a", ([3], [1, 2, 3]));
        Write(small, odd, DType.F32);
        odd.Write(Usual, Npz([("a.mask.npy", Npy([0b1011_0000]))], compressed: false));
        using Checkpoint checkpoint = CheckpointFile.Open(odd.Path);
        Assert.Contains("behind the last element", Assert.Throws<EngineException>(() => checkpoint["a"]).Reason, StringComparison.Ordinal);

        void Refused(string reason, byte[] array)
        {
            using var folder = new TemporaryFolder();
            Write(model, folder, DType.F32);
            folder.Write(Usual, Npz([($"{Query}.mask.npy", array)], compressed: true));
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            EngineException error = Assert.Throws<EngineException>(() => checkpoint[Query]);
            Assert.Equal(($"{Query}.mask", folder.File(Usual)), (error.Item, error.File));
            Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Damaged_files_are_refused_and_nothing_else_happens()
    {
        Random random = Seed.Fresh();
        var model = new TinyModel("bits", new() { ["model_type"] = "none" }, 1);
        model.AddMatrix("a", 16, 16, 16);
        model.AddMatrix("b", 16, 16, 16);
        using var folder = new TemporaryFolder();
        Write(model, folder, DType.F32);
        byte[] good = Npz([("a.mask.npy", Npy(new byte[32])), ("b.mask.npy", Npy(new byte[32]))], compressed: true);
        for (int round = 0; round < 400; round++)
        {
            byte[] bad = [.. good];
            for (int i = random.Next(1, 4); i > 0; i--)
            {
                bad[random.Next(bad.Length)] = (byte)random.Next(256);
            }
            folder.Write(Usual, random.Next(5) == 0 ? bad[..random.Next(bad.Length)] : bad);
            try
            {
                using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
                Assert.Equal((256, 256), (checkpoint["a"].ToFloats().Length, checkpoint["b"].ToFloats().Length));
            }
            catch (EngineException)
            {
            }
        }
    }

    [Fact]
    public void Masks_are_for_folders_of_floats()
    {
        using var folder = new TemporaryFolder();
        string masks = folder.Write("mask.npz", Npz([], compressed: false));
        Assert.Contains("folder", Assert.Throws<EngineException>(() => CheckpointFile.Open(ModelHarness.ShippedModel, masks)).Reason, StringComparison.Ordinal);
        TinyModel model = TinyModels.Make("llama tied", 1);
        Write(model, folder, DType.F32);
        Assert.Equal(folder.File("none.npz"), Assert.Throws<EngineException>(() => CheckpointFile.Open(folder.Path, folder.File("none.npz"))).File);
    }

    [Theory]
    [InlineData("model.pt", new byte[] { (byte)'P', (byte)'K', 3, 4, 0 })]
    [InlineData("pruned.bin", new byte[] { 0x80, 2, 0x8a, 10, 0 })]
    public void Pickles_are_refused_with_what_to_do(string name, byte[] content)
    {
        using var folder = new TemporaryFolder();
        string file = folder.Write(name, content);
        foreach (string path in (string[])[file, folder.Path])
        {
            string reason = Assert.Throws<EngineException>(() => CheckpointFile.Open(path)).Reason;
            Assert.Contains($"{name} is a pickle of PyTorch", reason, StringComparison.Ordinal);
            Assert.Contains("safetensors.torch.save_file", reason, StringComparison.Ordinal);
        }
    }

    private static float[] Dense(TemporaryFolder folder, string name)
    {
        using Checkpoint dense = CheckpointFile.Open(folder.File("model.safetensors.copy.safetensors"));
        return dense[name].ToFloats();
    }

    private static void Write(TinyModel model, TemporaryFolder folder, DType dtype)
    {
        using MemoryCheckpoint source = model.ToCheckpoint();
        SafetensorsWriter.WriteFolder(folder.Path, [.. source.TensorNames.Select(name => TensorSource.Convert(source[name], dtype))]);
        folder.Write("config.json", model.Config.ToJsonString());
        File.Copy(folder.File("model.safetensors"), folder.File("model.safetensors.copy.safetensors"), overwrite: true);
    }

    private static bool[] TwoOfFour(int count, Random random)
    {
        bool[] mask = new bool[count];
        for (int group = 0; group + 4 <= count; group += 4)
        {
            int[] kept = [.. Enumerable.Range(0, 4)];
            random.Shuffle(kept);
            mask[group + kept[0]] = mask[group + kept[1]] = true;
        }
        return mask;
    }

    private static byte[] Pack(bool[] mask)
    {
        byte[] bytes = new byte[(mask.Length + 7) / 8];
        for (int i = 0; i < mask.Length; i++)
        {
            bytes[i / 8] |= (byte)(mask[i] ? 128 >> (i % 8) : 0);
        }
        return bytes;
    }

    /// <summary>An array as numpy.lib.format writes it: magic, version, length of the header, the header padded to 64 bytes, the data.</summary>
    private static byte[] Npy(byte[] data, string? header = null, byte version = 1)
    {
        string text = header ?? $"{{'descr': '|u1', 'fortran_order': False, 'shape': ({data.Length},), }}";
        text = text.PadRight((10 + text.Length + 1 + 63) / 64 * 64 - 11) + "\n";
        return [0x93, .. "NUMPY"u8, version, 0, (byte)text.Length, (byte)(text.Length >> 8), .. Encoding.Latin1.GetBytes(text), .. data];
    }

    private static byte[] Npz(IEnumerable<(string Name, byte[] Content)> entries, bool compressed)
    {
        using var stream = new MemoryStream();
        using (var archive = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true))
        {
            foreach ((string name, byte[] content) in entries)
            {
                using Stream entry = archive.CreateEntry(name, compressed ? CompressionLevel.Fastest : CompressionLevel.NoCompression).Open();
                entry.Write(content);
            }
        }
        return stream.ToArray();
    }
}
