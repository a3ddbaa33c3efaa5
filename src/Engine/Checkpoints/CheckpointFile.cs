using System.Buffers.Binary;
using Engine.Checkpoints.Coded;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Pruned;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints;

/// <summary>Opens a checkpoint of any known format.</summary>
public static class CheckpointFile
{
    /// <summary>
    /// Opens a GGUF file (recognised by its first bytes), a safetensors file or index, a Hugging Face folder, or a llama2.c <c>.bin</c>.
    /// Tensor names and configuration are in Hugging Face's vocabulary, whatever the format.
    /// </summary>
    /// <param name="path">The file or folder.</param>
    /// <param name="mask">
    /// A .npz with a bit per weight (MaskLLM), which sets weights of a folder to zero; null for <c>mask_compressed.npz</c> in the folder, where there is one.
    /// </param>
    /// <exception cref="EngineException">There is nothing at the path, or it is malformed or of an unknown format.</exception>
    public static Checkpoint Open(string path, string? mask = null)
    {
        if (Directory.Exists(path))
            return OpenFolder(path, mask);
        if (!File.Exists(path))
            throw new EngineException("there is no such file or folder", path);
        string name = Path.GetFileName(path), folder = Path.GetDirectoryName(path) is { Length: > 0 } directory ? directory : ".";
        bool safetensors = string.Equals(Path.GetExtension(path), ".safetensors", StringComparison.OrdinalIgnoreCase);
        if (name == HfFolder.IndexName || name == HfFolder.WeightsName || (safetensors && HfFolder.HoldsAll(path)))
            return OpenFolder(folder, mask);
        if (mask is not null)
            throw new EngineException("masks are for the weights of a Hugging Face folder, and this is none", path, mask);
        if (IsGguf(path))
            return GgufVocabulary.Open(path);
        if (IsPickle(path))
            throw new EngineException(Pickles.Reason(name), path);
        return Path.GetExtension(path).ToLowerInvariant() switch
        {
            ".safetensors" => SafetensorsFile.Open(path),
            ".bin" => Llama2cFile.Open(path),
            ".gguf" => throw new EngineException("the file does not begin with \"GGUF\"", path),
            _ => throw new EngineException(
                "the format is not recognised; expected GGUF, safetensors, a Hugging Face folder, or a llama2.c .bin", path),
        };
    }

    private static Checkpoint OpenFolder(string path, string? mask)
    {
        HfFolder folder = HfFolder.Open(path);
        Checkpoint opened = folder;
        try
        {
            opened = QuantizedFolder.Open(folder);
            if (mask is not null || MaskedFolder.Beside(path) is not null)
                opened = MaskedFolder.Open(opened, mask ?? MaskedFolder.Beside(path)!);
            return folder.HasConfig ? PrunedFolder.Open(opened) : opened;
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    private static bool IsGguf(string path) => FirstBytes(path) == GgufPart.Magic;

    private static bool IsPickle(string path) =>
        Pickles.IsName(path) && FirstBytes(path) is { } first && Pickles.BeginsAs(first);

    /// <summary>The first four bytes as a number, little-endian; null of a shorter file.</summary>
    private static uint? FirstBytes(string path)
    {
        try
        {
            using FileStream stream = File.OpenRead(path);
            Span<byte> magic = stackalloc byte[sizeof(uint)];
            return stream.ReadAtLeast(magic, magic.Length, throwOnEndOfStream: false) == magic.Length
                ? BinaryPrimitives.ReadUInt32LittleEndian(magic) : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the file cannot be opened: {exception.Message}", path, inner: exception);
        }
    }
}
