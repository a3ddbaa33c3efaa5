using System.Buffers.Binary;
using Engine.Checkpoints.Coded;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints;

/// <summary>Opens a checkpoint of any known format.</summary>
public static class CheckpointFile
{
    /// <summary>
    /// Opens a GGUF file (recognised by its first bytes), a safetensors file or index, a Hugging Face folder, or a llama2.c <c>.bin</c>.
    /// Tensor names and configuration are in Hugging Face's vocabulary, whatever the format.
    /// </summary>
    /// <exception cref="EngineException">There is nothing at the path, or it is malformed or of an unknown format.</exception>
    public static Checkpoint Open(string path)
    {
        if (Directory.Exists(path))
            return OpenFolder(path);
        if (!File.Exists(path))
            throw new EngineException("there is no such file or folder", path);
        if (IsGguf(path))
            return GgufVocabulary.Open(path);

        string name = Path.GetFileName(path), folder = Path.GetDirectoryName(path) is { Length: > 0 } directory ? directory : ".";
        if (name == HfFolder.IndexName || name == HfFolder.WeightsName)
            return OpenFolder(folder);
        return Path.GetExtension(path).ToLowerInvariant() switch
        {
            ".safetensors" => SafetensorsFile.Open(path),
            ".bin" => Llama2cFile.Open(path),
            ".gguf" => throw new EngineException("the file does not begin with \"GGUF\"", path),
            _ => throw new EngineException(
                "the format is not recognised; expected GGUF, safetensors, a Hugging Face folder, or a llama2.c .bin", path),
        };
    }

    private static Checkpoint OpenFolder(string path)
    {
        HfFolder folder = HfFolder.Open(path);
        try
        {
            return QuantizedFolder.Open(folder);
        }
        catch
        {
            folder.Dispose();
            throw;
        }
    }

    private static bool IsGguf(string path)
    {
        try
        {
            using FileStream stream = File.OpenRead(path);
            Span<byte> magic = stackalloc byte[sizeof(uint)];
            return stream.ReadAtLeast(magic, magic.Length, throwOnEndOfStream: false) == magic.Length
                && BinaryPrimitives.ReadUInt32LittleEndian(magic) == GgufPart.Magic;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the file cannot be opened: {exception.Message}", path, inner: exception);
        }
    }
}
