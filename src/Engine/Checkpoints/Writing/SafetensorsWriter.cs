using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Writing;

/// <summary>Writes safetensors files, one tensor at a time, completely or not at all.</summary>
public static class SafetensorsWriter
{
    /// <summary>The shard size that Hugging Face's libraries use.</summary>
    public const long DefaultShardBytes = 5_000_000_000;

    // Data then begins at a multiple of eight, which lets every type but mapped 16-byte vectors be aligned.
    private const int HeaderAlignment = 8;

    /// <summary>Writes one file.</summary>
    /// <param name="path">The file; replaced if it exists.</param>
    /// <param name="tensors">The tensors in file order.</param>
    /// <param name="annotations">Strings for <c>__metadata__</c>, or null.</param>
    /// <param name="cancellationToken">Ends the writing; nothing is left behind.</param>
    /// <exception cref="EngineException">A type has no safetensors name, a name occurs twice, or writing fails.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void Write(
        string path,
        IReadOnlyList<TensorSource> tensors,
        IReadOnlyDictionary<string, string>? annotations = null,
        CancellationToken cancellationToken = default)
    {
        byte[] header = Header(path, tensors, annotations);
        AtomicFile.Write(path, stream =>
        {
            Span<byte> length = stackalloc byte[sizeof(ulong)];
            BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)header.Length);
            stream.Write(length);
            stream.Write(header);
            foreach (TensorSource tensor in tensors)
            {
                long start = stream.Position;
                tensor.WriteTo(stream);
                if (stream.Position - start != tensor.ByteLength)
                    throw new InvalidOperationException(
                        $"{tensor.Name} wrote {stream.Position - start} bytes instead of {tensor.ByteLength}");
            }
        }, cancellationToken);
    }

    /// <summary>
    /// Writes a folder's weights: <c>model.safetensors</c> where they fit in one shard, else <c>model-0000k-of-0000N.safetensors</c> and
    /// the index, which is written last.
    /// </summary>
    /// <param name="folder">The folder; made if it does not exist.</param>
    /// <param name="tensors">The tensors in file order.</param>
    /// <param name="annotations">Strings for <c>__metadata__</c> of every shard, or null.</param>
    /// <param name="shardBytes">A shard is closed before a tensor that would take it past this; a larger tensor has a shard of its
    /// own.</param>
    /// <param name="cancellationToken">Ends the writing; no index is left behind.</param>
    /// <exception cref="EngineException">As <see cref="Write"/>.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void WriteFolder(
        string folder,
        IReadOnlyList<TensorSource> tensors,
        IReadOnlyDictionary<string, string>? annotations = null,
        long shardBytes = DefaultShardBytes,
        CancellationToken cancellationToken = default)
    {
        List<List<TensorSource>> shards = Divide(tensors, shardBytes);
        AtomicFile.CreateFolder(folder);
        string index = Path.Combine(folder, HfFolder.IndexName);
        if (shards.Count == 1)
        {
            Write(Path.Combine(folder, HfFolder.WeightsName), tensors, annotations, cancellationToken);
            // An index of earlier shards would take precedence over the file just written.
            File.Delete(index);
            return;
        }

        using var json = new MemoryStream();
        using (var writer = new Utf8JsonWriter(json, new JsonWriterOptions { Indented = true }))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("metadata");
            writer.WriteNumber("total_size", tensors.Sum(static tensor => tensor.ByteLength));
            writer.WriteEndObject();
            writer.WriteStartObject("weight_map");
            for (int shard = 0; shard < shards.Count; shard++)
            {
                string name = string.Create(CultureInfo.InvariantCulture, $"model-{shard + 1:D5}-of-{shards.Count:D5}.safetensors");
                Write(Path.Combine(folder, name), shards[shard], annotations, cancellationToken);
                foreach (TensorSource tensor in shards[shard])
                    writer.WriteString(tensor.Name, name);
            }
            writer.WriteEndObject();
            writer.WriteEndObject();
        }
        AtomicFile.Write(index, stream => stream.Write(json.GetBuffer().AsSpan(0, (int)json.Length)), cancellationToken);
    }

    private static List<List<TensorSource>> Divide(IReadOnlyList<TensorSource> tensors, long shardBytes)
    {
        var shards = new List<List<TensorSource>> { new() };
        long used = 0;
        foreach (TensorSource tensor in tensors)
        {
            if (shards[^1].Count > 0 && used + tensor.ByteLength > shardBytes)
            {
                shards.Add([]);
                used = 0;
            }
            shards[^1].Add(tensor);
            used += tensor.ByteLength;
        }
        return shards;
    }

    private static byte[] Header(string path, IReadOnlyList<TensorSource> tensors, IReadOnlyDictionary<string, string>? annotations)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartObject();
            if (annotations is { Count: > 0 })
            {
                writer.WriteStartObject(SafetensorsHeader.MetadataName);
                foreach ((string key, string value) in annotations)
                    writer.WriteString(key, value);
                writer.WriteEndObject();
            }
            var names = new HashSet<string> { SafetensorsHeader.MetadataName };
            long offset = 0;
            foreach (TensorSource tensor in tensors)
            {
                if (!names.Add(tensor.Name))
                    throw new EngineException("the name is used twice or reserved", path, tensor.Name);
                string dtype = tensor.DType.Info().SafetensorsName
                    ?? throw new EngineException(
                        $"safetensors has no type {tensor.DType.Info().Name}; write GGUF, or convert the tensor", path, tensor.Name);
                writer.WriteStartObject(tensor.Name);
                writer.WriteString("dtype", dtype);
                writer.WriteStartArray("shape");
                foreach (long dimension in tensor.Shape)
                    writer.WriteNumberValue(dimension);
                writer.WriteEndArray();
                writer.WriteStartArray("data_offsets");
                writer.WriteNumberValue(offset);
                writer.WriteNumberValue(offset += tensor.ByteLength);
                writer.WriteEndArray();
                writer.WriteEndObject();
            }
            writer.WriteEndObject();
        }
        var header = new byte[(buffer.WrittenCount + HeaderAlignment - 1) / HeaderAlignment * HeaderAlignment];
        header.AsSpan().Fill((byte)' ');
        buffer.WrittenSpan.CopyTo(header);
        return header;
    }
}
