using System.Globalization;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Text;
using Engine.Checkpoints.Gguf;

namespace Engine.Checkpoints.Writing;

/// <summary>Writes GGUF version 3, little-endian, one tensor at a time, completely or not at all.</summary>
public static class GgufWriter
{
    private const int Version = 3, MaxDimensions = 4;

    // llama.cpp keeps names in 64 bytes with a terminating zero.
    private const int MaxNameBytes = 63;

    /// <summary>Writes a file.</summary>
    /// <param name="path">The file; replaced if it exists.</param>
    /// <param name="metadata">
    /// Keys and values in file order. Values are numbers, bool, string, or arrays of one of those; the CLR type decides the type in the
    /// file.
    /// </param>
    /// <param name="tensors">The tensors in file order; shapes are outermost first, as everywhere here.</param>
    /// <param name="alignment">Alignment of every tensor's data, a power of two.</param>
    /// <param name="cancellationToken">Ends the writing; nothing is left behind.</param>
    /// <exception cref="EngineException">A name or value cannot be stored in GGUF, or writing fails.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void Write(
        string path,
        IEnumerable<KeyValuePair<string, object>> metadata,
        IReadOnlyList<TensorSource> tensors,
        uint alignment = GgufPart.DefaultAlignment,
        CancellationToken cancellationToken = default)
    {
        if (!BitOperations.IsPow2(alignment))
            throw new ArgumentOutOfRangeException(nameof(alignment), alignment, "expected a power of two");
        List<KeyValuePair<string, object>> keys = [.. metadata.Where(static pair => pair.Key != GgufPart.AlignmentKey)];
        if (alignment != GgufPart.DefaultAlignment)
            keys.Add(new(GgufPart.AlignmentKey, alignment));
        Check(path, keys, tensors);

        AtomicFile.Write(path, stream =>
        {
            using (var writer = new BinaryWriter(stream, Encoding.UTF8, leaveOpen: true))
            {
                writer.Write(GgufPart.Magic);
                writer.Write(Version);
                writer.Write((ulong)tensors.Count);
                writer.Write((ulong)keys.Count);
                foreach ((string key, object value) in keys)
                {
                    WriteString(writer, key);
                    WriteValue(writer, value);
                }
                WriteTensorInfos(writer, tensors, alignment);
            }
            foreach (TensorSource tensor in tensors)
            {
                Pad(stream, alignment);
                long start = stream.Position;
                tensor.WriteTo(stream);
                if (stream.Position - start != tensor.ByteLength)
                    throw new InvalidOperationException(
                        $"{tensor.Name} wrote {stream.Position - start} bytes instead of {tensor.ByteLength}");
            }
            // llama.cpp's own reader wants the padding after the last tensor too.
            Pad(stream, alignment);
        }, cancellationToken);
    }

    private static void Check(string path, List<KeyValuePair<string, object>> metadata, IReadOnlyList<TensorSource> tensors)
    {
        var names = new HashSet<string>();
        foreach ((string key, object value) in metadata)
        {
            if (!names.Add(key))
                throw new EngineException("the metadata key is used twice", path, key);
            if (TypeOf(value is Array array ? array.GetType().GetElementType()! : value.GetType()) is null)
                throw new EngineException($"GGUF cannot store a {value.GetType().Name}", path, key);
        }
        names.Clear();
        foreach (TensorSource tensor in tensors)
        {
            if (!names.Add(tensor.Name))
                throw new EngineException("the tensor name is used twice", path, tensor.Name);
            if (Encoding.UTF8.GetByteCount(tensor.Name) > MaxNameBytes)
                throw new EngineException($"the name is longer than the {MaxNameBytes} bytes that llama.cpp reads", path, tensor.Name);
            if (tensor.DType.Info().GgmlId is null)
                throw new EngineException($"GGUF has no type {tensor.DType.Info().Name}", path, tensor.Name);
            if (tensor.Shape.Length > MaxDimensions || tensor.Shape.Contains(0))
                throw new EngineException($"GGUF cannot store the shape [{string.Join(", ", tensor.Shape)}]", path, tensor.Name);
        }
    }

    private static void WriteTensorInfos(BinaryWriter writer, IReadOnlyList<TensorSource> tensors, uint alignment)
    {
        long offset = 0;
        foreach (TensorSource tensor in tensors)
        {
            WriteString(writer, tensor.Name);
            long[] shape = tensor.Shape.Length == 0 ? [1] : tensor.Shape;
            writer.Write((uint)shape.Length);
            for (int i = shape.Length - 1; i >= 0; i--)
                writer.Write((ulong)shape[i]);
            writer.Write(tensor.DType.Info().GgmlId!.Value);
            writer.Write((ulong)offset);
            offset += (tensor.ByteLength + alignment - 1) / alignment * alignment;
        }
    }

    private static void WriteValue(BinaryWriter writer, object value)
    {
        if (value is not Array array)
        {
            writer.Write((uint)TypeOf(value.GetType())!);
            WriteScalar(writer, value);
            return;
        }
        writer.Write((uint)GgufType.Array);
        writer.Write((uint)TypeOf(array.GetType().GetElementType()!)!);
        writer.Write((ulong)array.Length);
        if (array is string[] texts)
        {
            foreach (string text in texts)
                WriteString(writer, text);
        }
        else
        {
            ReadOnlySpan<byte> bytes = MemoryMarshal.CreateReadOnlySpan(
                ref MemoryMarshal.GetArrayDataReference(array), Buffer.ByteLength(array));
            writer.Write(bytes);
        }
    }

    private static void WriteScalar(BinaryWriter writer, object value)
    {
        switch (value)
        {
            case byte number: writer.Write(number); break;
            case sbyte number: writer.Write(number); break;
            case ushort number: writer.Write(number); break;
            case short number: writer.Write(number); break;
            case uint number: writer.Write(number); break;
            case int number: writer.Write(number); break;
            case ulong number: writer.Write(number); break;
            case long number: writer.Write(number); break;
            case float number: writer.Write(number); break;
            case double number: writer.Write(number); break;
            case bool truth: writer.Write(truth); break;
            case string text: WriteString(writer, text); break;
            default: throw new ArgumentException(string.Create(CultureInfo.InvariantCulture, $"{value} is no GGUF value"), nameof(value));
        }
    }

    private static void WriteString(BinaryWriter writer, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        writer.Write((ulong)bytes.Length);
        writer.Write(bytes);
    }

    private static GgufType? TypeOf(Type type) => Type.GetTypeCode(type) switch
    {
        TypeCode.Byte => GgufType.U8,
        TypeCode.SByte => GgufType.I8,
        TypeCode.UInt16 => GgufType.U16,
        TypeCode.Int16 => GgufType.I16,
        TypeCode.UInt32 => GgufType.U32,
        TypeCode.Int32 => GgufType.I32,
        TypeCode.Single => GgufType.F32,
        TypeCode.Boolean => GgufType.Bool,
        TypeCode.String => GgufType.String,
        TypeCode.UInt64 => GgufType.U64,
        TypeCode.Int64 => GgufType.I64,
        TypeCode.Double => GgufType.F64,
        _ => null,
    };

    private static void Pad(Stream stream, uint alignment)
    {
        Span<byte> zeros = stackalloc byte[256];
        zeros.Clear();
        for (long missing = (alignment - stream.Position % alignment) % alignment; missing > 0; missing -= Math.Min(missing, zeros.Length))
            stream.Write(zeros[..(int)Math.Min(missing, zeros.Length)]);
    }
}
