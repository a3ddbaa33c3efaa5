using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json;
using System.Text.Unicode;

namespace Engine.Checkpoints.Safetensors;

/// <summary>
/// Reads the header of a safetensors file token by token (formats.md §1). A JSON document model would keep the last of two equal names and
/// so hide an attack; a tokenizer sees both.
/// </summary>
internal static unsafe class SafetensorsHeader
{
    /// <summary>The format's own limit on the header's length.</summary>
    public const long MaxHeaderBytes = 100_000_000;

    public const string MetadataName = "__metadata__";

    private const int LengthBytes = sizeof(ulong);

    // The deepest legal nesting is object > tensor > array.
    private static readonly JsonReaderOptions options = new() { MaxDepth = 4, CommentHandling = JsonCommentHandling.Disallow };

    /// <summary>Reads and checks everything but the tensors' values.</summary>
    /// <exception cref="EngineException">The file is malformed or holds a type that is not supported.</exception>
    public static (OrderedDictionary<string, TensorView> Tensors, Dictionary<string, string> Metadata) Read(MappedFile file)
    {
        if (file.Length < LengthBytes)
            throw new EngineException($"the file has {file.Length} bytes, too few for the 8 bytes of the header's length", file.Path);
        ulong headerLength = BinaryPrimitives.ReadUInt64LittleEndian(file.Slice(0, LengthBytes));
        if (headerLength > MaxHeaderBytes)
            throw new EngineException($"the header length is {headerLength} bytes, the format allows {MaxHeaderBytes}", file.Path);
        if (headerLength < 2 || (long)headerLength > file.Length - LengthBytes)
            throw new EngineException($"the header length is {headerLength} bytes, {file.Length - LengthBytes} bytes follow it", file.Path);

        ReadOnlySpan<byte> json = file.Slice(LengthBytes, (int)headerLength);
        if (!Utf8.IsValid(json))
            throw new EngineException("the header is not valid UTF-8", file.Path);
        if (json[0] != '{')
            throw new EngineException("the header does not begin with {", file.Path);

        var tensors = new OrderedDictionary<string, TensorView>();
        var metadata = new Dictionary<string, string>();
        long dataStart = LengthBytes + (long)headerLength;
        try
        {
            ReadEntries(json, file, dataStart, tensors, metadata);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // InvalidOperationException is what the tokenizer throws for a lone surrogate in an escaped string.
            throw new EngineException($"the header is not valid JSON: {exception.Message}", file.Path, inner: exception);
        }
        RequireTiling(tensors, file, dataStart);
        return (tensors, metadata);
    }

    private static void ReadEntries(
        ReadOnlySpan<byte> json,
        MappedFile file,
        long dataStart,
        OrderedDictionary<string, TensorView> tensors,
        Dictionary<string, string> metadata)
    {
        var reader = new Utf8JsonReader(json, options);
        Expect(ref reader, JsonTokenType.StartObject, file, "the header");
        bool metadataSeen = false;
        while (Next(ref reader) == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            if (name == MetadataName ? metadataSeen : tensors.ContainsKey(name))
                throw new EngineException("the name occurs twice in the header", file.Path, name);
            if (name == MetadataName)
            {
                metadataSeen = true;
                ReadMetadata(ref reader, file, metadata);
            }
            else
            {
                tensors.Add(name, ReadTensor(ref reader, name, file, dataStart));
            }
        }
        // The tokenizer accepts only white space after the value it has closed.
        if (reader.Read())
            throw new EngineException("the header goes on after its closing brace", file.Path);
    }

    private static void ReadMetadata(ref Utf8JsonReader reader, MappedFile file, Dictionary<string, string> metadata)
    {
        Expect(ref reader, JsonTokenType.StartObject, file, MetadataName);
        while (Next(ref reader) == JsonTokenType.PropertyName)
        {
            string key = reader.GetString()!;
            Expect(ref reader, JsonTokenType.String, file, $"{MetadataName}.{key}");
            if (!metadata.TryAdd(key, reader.GetString()!))
                throw new EngineException("the key occurs twice", file.Path, $"{MetadataName}.{key}");
        }
    }

    private static TensorView ReadTensor(ref Utf8JsonReader reader, string name, MappedFile file, long dataStart)
    {
        Expect(ref reader, JsonTokenType.StartObject, file, name);
        DType? dtype = null;
        List<long>? shape = null, offsets = null;
        while (Next(ref reader) == JsonTokenType.PropertyName)
        {
            string field = reader.GetString()!;
            bool repeated = field switch
            {
                "dtype" => dtype is not null,
                "shape" => shape is not null,
                "data_offsets" => offsets is not null,
                _ => false,
            };
            if (repeated)
                throw new EngineException($"the field {field} occurs twice", file.Path, name);
            switch (field)
            {
                case "dtype":
                    Expect(ref reader, JsonTokenType.String, file, $"{name}.dtype");
                    dtype = DTypes.TryFromSafetensors(reader.GetString()!, out DType known)
                        ? known
                        : throw new EngineException($"the dtype {reader.GetString()} is unknown or not supported", file.Path, name);
                    break;
                case "shape":
                    shape = ReadIntegers(ref reader, file, $"{name}.shape");
                    break;
                case "data_offsets":
                    offsets = ReadIntegers(ref reader, file, $"{name}.data_offsets");
                    break;
                default:
                    throw new EngineException($"unknown field {field}; expected dtype, shape and data_offsets", file.Path, name);
            }
        }
        if (dtype is not { } type || shape is null || offsets is null)
            throw new EngineException("dtype, shape and data_offsets are all needed", file.Path, name);
        return Place(name, type, [.. shape], offsets, file, dataStart);
    }

    private static TensorView Place(string name, DType dtype, long[] shape, List<long> offsets, MappedFile file, long dataStart)
    {
        long dataLength = file.Length - dataStart;
        if (offsets.Count != 2 || offsets[0] > offsets[1] || offsets[1] > dataLength)
        {
            throw new EngineException(
                $"data_offsets are [{string.Join(", ", offsets)}], expected a begin and an end within the {dataLength} bytes of data",
                file.Path, name);
        }
        long length = dtype.TryByteLength(shape)
            ?? throw new EngineException($"its size overflows: shape [{string.Join(", ", shape)}]", file.Path, name);
        if (offsets[1] - offsets[0] != length)
        {
            throw new EngineException(
                $"{dtype.Info().Name} [{string.Join(", ", shape)}] takes {length} bytes, data_offsets span {offsets[1] - offsets[0]}",
                file.Path, name);
        }
        return new TensorView(name, dtype, shape, (nint)(file.Address + dataStart + offsets[0]), length, file);
    }

    /// <summary>The ranges must cover the data exactly: no overlap, no hole, nothing after the last.</summary>
    private static void RequireTiling(OrderedDictionary<string, TensorView> tensors, MappedFile file, long dataStart)
    {
        nint start = (nint)(file.Address + dataStart), end = start;
        foreach (TensorView tensor in tensors.Values.OrderBy(static tensor => tensor.Address).ThenBy(static tensor => tensor.ByteLength))
        {
            if (tensor.Address != end)
            {
                string fault = tensor.Address < end ? "overlaps the tensor before it" : "leaves a hole before it";
                throw new EngineException(
                    $"its data begins at {tensor.Address - start}, which {fault}, ending at {end - start}", file.Path, tensor.Name);
            }
            end += (nint)tensor.ByteLength;
        }
        if (end - start != file.Length - dataStart)
            throw new EngineException(
                $"the tensors end at {end - start}, but {file.Length - dataStart} bytes of data follow the header", file.Path);
    }

    private static List<long> ReadIntegers(ref Utf8JsonReader reader, MappedFile file, string what)
    {
        Expect(ref reader, JsonTokenType.StartArray, file, what);
        var values = new List<long>();
        while (Next(ref reader) != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !IsDigits(reader.ValueSpan) || !reader.TryGetInt64(out long value))
                throw new EngineException($"expected integers from 0 to 2^63 - 1, found {Describe(ref reader)}", file.Path, what);
            values.Add(value);
        }
        return values;
    }

    private static bool IsDigits(ReadOnlySpan<byte> token) => token.IndexOfAnyExceptInRange((byte)'0', (byte)'9') < 0;

    private static string Describe(ref Utf8JsonReader reader) =>
        reader.TokenType == JsonTokenType.Number
            ? System.Text.Encoding.UTF8.GetString(reader.ValueSpan[..Math.Min(reader.ValueSpan.Length, 40)])
            : reader.TokenType.ToString();

    private static JsonTokenType Next(ref Utf8JsonReader reader) =>
        reader.Read() ? reader.TokenType : throw new JsonException(
            string.Create(CultureInfo.InvariantCulture, $"it ends at byte {reader.BytesConsumed}"));

    private static void Expect(ref Utf8JsonReader reader, JsonTokenType type, MappedFile file, string what)
    {
        if (Next(ref reader) != type)
            throw new EngineException($"expected {type}, found {Describe(ref reader)}", file.Path, what);
    }
}
