using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints;

/// <summary>Tensors in memory that this object owns: for tests, for transforms, for models that are made rather than read.</summary>
/// <param name="path">A name for messages.</param>
/// <param name="config">The configuration, in Hugging Face's vocabulary.</param>
public sealed class MemoryCheckpoint(string path = "(memory)", JsonObject? config = null) : Checkpoint
{
    private readonly OrderedDictionary<string, TensorView> tensors = [];
    private readonly Dictionary<string, byte[]> assets = [];
    private readonly Dictionary<string, object> metadata = [];

    /// <inheritdoc/>
    public override string Path => path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <inheritdoc/>
    public override JsonObject Config { get; } = config ?? [];

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => metadata;

    /// <summary>Adds a tensor from float32 values, stored in the given type.</summary>
    /// <param name="name">Its name; an existing tensor of that name is replaced.</param>
    /// <param name="shape">Dimensions, outermost first.</param>
    /// <param name="values">Row-major, as many as the shape says.</param>
    /// <param name="dtype">How they are stored.</param>
    /// <exception cref="EngineException">The type cannot hold the values, or a row is not a whole number of blocks.</exception>
    public TensorView Add(string name, long[] shape, ReadOnlySpan<float> values, DType dtype = DType.F32)
    {
        long bytes = dtype.TryByteLength(shape) ?? throw new EngineException("its size overflows", Path, name);
        var buffer = new UnmanagedBuffer(bytes);
        var view = new TensorView(name, dtype, shape, buffer.Address, bytes, buffer);
        if (values.Length != view.ElementCount)
            throw new ArgumentException($"{values.Length} values for a shape of {view.ElementCount}", nameof(values));
        Codec.For(dtype).Encode(values, buffer.Span);
        tensors[name] = view;
        return view;
    }

    /// <summary>Adds a tensor from its stored bytes.</summary>
    /// <exception cref="EngineException">A row is not a whole number of blocks.</exception>
    public TensorView Add(string name, DType dtype, long[] shape, ReadOnlySpan<byte> stored)
    {
        long bytes = dtype.TryByteLength(shape) ?? throw new EngineException("its size overflows", Path, name);
        if (bytes != stored.Length)
            throw new ArgumentException($"{stored.Length} bytes for a tensor of {bytes}", nameof(stored));
        var buffer = new UnmanagedBuffer(bytes);
        stored.CopyTo(buffer.Span);
        return tensors[name] = new TensorView(name, dtype, shape, buffer.Address, bytes, buffer);
    }

    /// <summary>Adds a file that <see cref="ReadAsset"/> then finds.</summary>
    public void AddAsset(string fileName, byte[] content) => assets[fileName] = content;

    /// <summary>Adds GGUF metadata.</summary>
    public void AddMetadata(string key, object value) => metadata[key] = value;

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => assets.GetValueOrDefault(fileName);

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => [.. assets.Keys.Order(StringComparer.Ordinal)];

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (TensorView tensor in tensors.Values)
                ((UnmanagedBuffer)tensor.Owner).Dispose();
        }
        base.Dispose(disposing);
    }
}

/// <summary>Zeroed memory outside the managed heap, aligned for the widest vectors, freed when its owner is disposed or
/// unreachable.</summary>
internal sealed unsafe class UnmanagedBuffer : SafeHandle
{
    /// <summary>Bytes of a cache line and of the widest vector.</summary>
    public const int Alignment = 64;

    private readonly long length;

    public UnmanagedBuffer(long length, string? file = null)
        : base(0, ownsHandle: true)
    {
        this.length = length;
        File = file;
        void* memory = NativeMemory.AlignedAlloc((nuint)Math.Max(length, 1), Alignment);
        NativeMemory.Clear(memory, (nuint)length);
        SetHandle((nint)memory);
    }

    public override bool IsInvalid => handle == 0;

    public nint Address => handle;

    /// <summary>The file that the content was made from, for messages.</summary>
    public string? File { get; }

    public Span<byte> Span => new((void*)handle, checked((int)length));

    protected override bool ReleaseHandle()
    {
        NativeMemory.AlignedFree((void*)handle);
        return true;
    }
}
