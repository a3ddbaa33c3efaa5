using System.Numerics;

namespace Engine.Checkpoints.Gguf;

/// <summary>One GGUF file: its header, read and checked (formats.md §2). A split model has several.</summary>
internal sealed unsafe class GgufPart : IDisposable
{
    /// <summary>The alignment of tensor data where the file does not say.</summary>
    public const int DefaultAlignment = 32;

    public const string AlignmentKey = "general.alignment";

    /// <summary>"GGUF", little-endian.</summary>
    public const uint Magic = 0x46554747;

    private const int MaxDimensions = 4;

    // The fewest bytes that a tensor's description (empty name, no dimensions) and a key with its value can take.
    private const int MinimumTensorInfo = 24, MinimumKeyValue = 13;

    private readonly MappedFile file;

    private GgufPart(MappedFile file)
    {
        this.file = file;
        Metadata = new GgufMetadata(file);
    }

    public string Path => file.Path;

    public GgufMetadata Metadata { get; }

    public OrderedDictionary<string, TensorView> Tensors { get; } = [];

    /// <summary>Maps a file and reads its header.</summary>
    public static GgufPart Open(string path)
    {
        var part = new GgufPart(MappedFile.Open(path));
        try
        {
            part.ReadHeader();
            return part;
        }
        catch
        {
            part.Dispose();
            throw;
        }
    }

    public void Dispose() => file.Dispose();

    private void ReadHeader()
    {
        var reader = new GgufReader(file.Slice(0, (int)Math.Min(file.Length, int.MaxValue)), Path);
        uint magic = reader.U32("the magic number");
        if (magic != Magic)
            throw new EngineException($"the magic number is 0x{magic:X8}, expected 0x{Magic:X8} (\"GGUF\")", Path);
        uint version = reader.U32("the version");
        if ((version & 0xFFFF) == 0)
            throw new EngineException("the file is big-endian; convert it with llama.cpp's gguf_convert_endian.py", Path);
        if (version is not (2 or 3))
            throw new EngineException($"GGUF version {version} is not supported, expected 2 or 3", Path);

        ulong tensorCount = reader.U64("the tensor count");
        if (tensorCount > (ulong)(reader.Remaining / MinimumTensorInfo))
            throw new EngineException($"the tensor count is {tensorCount}, more than the file's {file.Length} bytes can describe", Path);
        int keyCount = reader.Count(MinimumKeyValue, "the metadata count");
        for (int i = 0; i < keyCount; i++)
            Metadata.Read(ref reader);

        long alignment = ReadAlignment();
        var infos = new List<TensorInfo>();
        for (ulong i = 0; i < tensorCount; i++)
            infos.Add(ReadTensorInfo(ref reader, alignment));
        PlaceTensors(infos, (reader.Position + alignment - 1) / alignment * alignment);
    }

    private long ReadAlignment()
    {
        if (!Metadata.TryGetValue(AlignmentKey, out object? value))
            return DefaultAlignment;
        return value is uint alignment && BitOperations.IsPow2(alignment)
            ? alignment
            : throw new EngineException(
                $"expected a power of two of type U32, found {value} of type {value.GetType().Name}", Path, AlignmentKey);
    }

    private TensorInfo ReadTensorInfo(ref GgufReader reader, long alignment)
    {
        string name = reader.String("a tensor name");
        uint dimensions = reader.U32($"the dimension count of {name}");
        if (dimensions > MaxDimensions)
            throw new EngineException($"it has {dimensions} dimensions, at most {MaxDimensions} are allowed", Path, name);
        var shape = new long[dimensions];
        for (int i = 0; i < shape.Length; i++)
        {
            // GGUF names the contiguous dimension first; a TensorView names it last.
            ulong dimension = reader.U64($"the shape of {name}");
            if (dimension is 0 or > long.MaxValue)
                throw new EngineException($"dimension {i} is {dimension}, expected 1 to 2^63 - 1", Path, name);
            shape[^(i + 1)] = (long)dimension;
        }

        uint type = reader.U32($"the type of {name}");
        if (!DTypes.TryFromGgml(type, out DType dtype))
            throw new EngineException(DTypes.DescribeUnsupportedGgml(type), Path, name);
        ulong offset = reader.U64($"the offset of {name}");
        if (offset % (ulong)alignment != 0)
            throw new EngineException($"its offset {offset} is not a multiple of the alignment {alignment}", Path, name);

        long? length;
        try
        {
            length = dtype.TryByteLength(shape);
        }
        catch (EngineException exception)
        {
            throw new EngineException(exception.Reason, Path, name);
        }
        return new TensorInfo(name, dtype, shape, offset, length
            ?? throw new EngineException($"its size overflows: shape [{string.Join(", ", shape)}]", Path, name));
    }

    private void PlaceTensors(List<TensorInfo> infos, long dataStart)
    {
        long dataLength = Math.Max(0, file.Length - dataStart);
        foreach (TensorInfo info in infos)
        {
            if (info.Offset > (ulong)dataLength || info.Length > dataLength - (long)info.Offset)
            {
                throw new EngineException(
                    $"its {info.Length} bytes at offset {info.Offset} run past the end of the file, whose data has {dataLength} bytes",
                    Path, info.Name);
            }
            var view = new TensorView(
                info.Name, info.DType, info.Shape, (nint)(file.Address + dataStart + (long)info.Offset), info.Length, file);
            if (!Tensors.TryAdd(info.Name, view))
                throw new EngineException("the tensor name occurs twice", Path, info.Name);
        }

        TensorView? previous = null;
        foreach (TensorView tensor in Tensors.Values.OrderBy(static tensor => tensor.Address))
        {
            if (previous is not null && previous.Address + previous.ByteLength > tensor.Address)
                throw new EngineException($"its data overlaps that of {previous.Name}", Path, tensor.Name);
            previous = tensor;
        }
    }

    private readonly record struct TensorInfo(string Name, DType DType, long[] Shape, ulong Offset, long Length);
}
