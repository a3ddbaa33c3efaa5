using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Xunit;

namespace Engine.Tests.Checkpoints;

/// <summary>Valid files, cut and damaged everywhere: they open or they are refused with our exception, and never with another.</summary>
public sealed class FuzzTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public static TheoryData<string> Formats => ["model.gguf", "model.safetensors", "model.bin"];

    public void Dispose() => folder.Dispose();

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_file_cut_anywhere_is_refused(string name)
    {
        byte[] whole = Valid(name);
        string path = folder.File(name);
        for (int length = 0; length < whole.Length; length++)
        {
            File.WriteAllBytes(path, whole.AsSpan(0, length));
            // GGUF's padding after the last tensor may be missing; everything else is needed.
            bool opened = Opens(path, $"cut at {length}");
            bool allowed = name == "model.gguf" && length > whole.Length - 32;
            Assert.True(!opened || allowed, $"{name} opened when cut at {length} of {whole.Length}");
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_damaged_file_never_does_worse_than_our_exception(string name)
    {
        byte[] whole = Valid(name);
        string path = folder.File(name);
        int seed = Environment.TickCount;
        var random = new Random(seed);
        const int Attempts = 1500;
        int refused = 0;
        byte[] extremes = [0, 1, 0x7F, 0x80, 0xFF, (byte)'"', (byte)'}', (byte)'9'];
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int attempt = 0; attempt < Attempts; attempt++)
        {
            byte[] damaged = [.. whole];
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                int at = random.Next(Math.Min(whole.Length, 1200));
                damaged[at] = random.Next(2) == 0 ? extremes[random.Next(extremes.Length)] : (byte)random.Next(256);
            }
            File.WriteAllBytes(path, damaged);
            refused += Opens(path, $"seed {seed}, attempt {attempt}") ? 0 : 1;
        }
        Assert.InRange(refused, 1, Attempts - 1);
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 2L << 30, "headers are believed before they are checked");
    }

    private static bool Opens(string path, string what)
    {
        try
        {
            using Checkpoint checkpoint = CheckpointFile.Open(path);
            foreach (string name in checkpoint.TensorNames)
                checkpoint[name].RequireFinite();
            foreach ((string _, object _) in checkpoint.Metadata)
            {
            }
            ReadConfig(checkpoint);
            return true;
        }
        catch (EngineException)
        {
            return false;
        }
        catch (Exception exception)
        {
            throw new InvalidOperationException($"{path}, {what}: {exception.GetType().Name}", exception);
        }
    }

    /// <summary>A file may be whole and its metadata still not describe a model; then this, and not opening, is refused.</summary>
    private static void ReadConfig(Checkpoint checkpoint)
    {
        try
        {
            _ = checkpoint.Config;
        }
        catch (EngineException exception)
        {
            Assert.NotNull(exception.Item);
        }
    }

    private byte[] Valid(string name)
    {
        string path = folder.File(name);
        if (name == "model.gguf")
            File.Copy(FormatGoldens.PathOf("gguf_metadata", name), path);
        else if (name == "model.safetensors")
            SafetensorsWriter.Write(
                path, [TensorSource.FromValues("a", [2, 3], new float[6]), TensorSource.FromValues("b\u00e9", [], [1f])]);
        else
            File.WriteAllBytes(path, SmallLlama2c());
        File.WriteAllText(folder.File("config.json"), "{}");
        Assert.True(Opens(path, "whole"));
        return File.ReadAllBytes(path);
    }

    /// <summary>One layer of 4 dimensions, 2 heads, 6 tokens, untied, context 3.</summary>
    internal static byte[] SmallLlama2c()
    {
        using var stream = new MemoryStream();
        using var writer = new BinaryWriter(stream);
        foreach (int value in (ReadOnlySpan<int>)[4, 8, 1, 2, 1, -6, 3])
            writer.Write(value);
        const int floats = (6 * 4) + 4 + (16 + 8 + 8 + 16) + 4 + (3 * 32) + 4 + (2 * 3) + (6 * 4);
        for (int i = 0; i < floats; i++)
            writer.Write((float)i);
        return stream.ToArray();
    }
}
