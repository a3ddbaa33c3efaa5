using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// A tensor for a writer: what it will be, and how to produce its bytes when its turn comes. Nothing is held for tensors whose turn it is
/// not.
/// </summary>
/// <param name="Name">Its name in the file.</param>
/// <param name="DType">How its elements are stored.</param>
/// <param name="Shape">Dimensions, outermost first.</param>
/// <param name="WriteTo">Writes exactly <see cref="ByteLength"/> bytes.</param>
public sealed record TensorSource(string Name, DType DType, long[] Shape, Action<Stream> WriteTo)
{
    // Large enough that threads have work and small enough that a converter's memory does not depend on the model's size.
    private const long ChunkElements = 1 << 22;

    /// <summary>Bytes it will take.</summary>
    /// <exception cref="EngineException">They overflow, or a row is not a whole number of blocks.</exception>
    public long ByteLength => DType.TryByteLength(Shape) ?? throw new EngineException("its size overflows", item: Name);

    /// <summary>A tensor as it is stored.</summary>
    /// <exception cref="EngineException">Its codes and scales are stored apart: there is no one tensor to copy.</exception>
    public static TensorSource From(TensorView tensor, string? name = null) => tensor.Coded is { } coded
        ? throw new EngineException($"{coded.Format} has its scales apart from its codes and cannot be copied; it can be converted to another type", tensor.File(), tensor.Name)
        : new(name ?? tensor.Name, tensor.DType, tensor.Shape, stream => Copy(tensor, stream));

    /// <summary>A tensor in another type: decoded and encoded by all threads, a few million elements at a time. Rows of the same type are copied.</summary>
    /// <param name="tensor">The values; checked to be finite on the way.</param>
    /// <param name="dtype">The type to store.</param>
    /// <param name="name">The name to store, or null for its own.</param>
    /// <param name="rowOrder">Which row of <paramref name="tensor"/> becomes row r; null for the order it has.</param>
    public static TensorSource Convert(TensorView tensor, DType dtype, string? name = null, Func<long, long>? rowOrder = null) =>
        dtype == tensor.DType && rowOrder is null
            ? From(tensor, name)
            : new(name ?? tensor.Name, dtype, tensor.Shape, stream => Encode(tensor, dtype, rowOrder ?? (static row => row), stream));

    /// <summary>Several tensors one behind the other as one, each converted as <see cref="Convert"/> does.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="dtype">The type to store.</param>
    /// <param name="shape">Its shape, with as many elements as the parts have together.</param>
    /// <param name="parts">The parts, in order.</param>
    public static TensorSource Stack(string name, DType dtype, long[] shape, IReadOnlyList<TensorView> parts) => new(name, dtype, shape, stream =>
    {
        foreach (TensorView part in parts)
            Convert(part, dtype).WriteTo(stream);
    });

    /// <summary>A tensor from float32 values in memory.</summary>
    public static TensorSource FromValues(string name, long[] shape, float[] values, DType dtype = DType.F32)
    {
        return new(name, dtype, shape, stream =>
        {
            var bytes = new byte[dtype.TryByteLength(shape) ?? throw new EngineException("its size overflows", item: name)];
            Codec.For(dtype).Encode(values, bytes);
            stream.Write(bytes);
        });
    }

    private static unsafe void Copy(TensorView tensor, Stream stream)
    {
        const int chunk = 16 << 20;
        for (long offset = 0; offset < tensor.ByteLength; offset += chunk)
            stream.Write(new ReadOnlySpan<byte>((byte*)tensor.Address + offset, (int)Math.Min(chunk, tensor.ByteLength - offset)));
        GC.KeepAlive(tensor.Owner);
        tensor.Evict();
    }

    private static void Encode(TensorView tensor, DType dtype, Func<long, long> rowOrder, Stream stream)
    {
        if (tensor.ElementCount == 0)
        {
            // A dimension of zero says nothing about the others, which may be too large for anything.
            return;
        }
        if (tensor.Columns > Array.MaxLength || dtype.RowBytes(tensor.Columns) > Array.MaxLength)
            throw new EngineException($"a row of {tensor.Columns} elements does not fit in an array", tensor.File(), tensor.Name);
        int columns = (int)tensor.Columns, rowBytes = (int)dtype.RowBytes(columns);
        int chunkRows = (int)Math.Clamp(ChunkElements / columns, 1, tensor.Rows);
        var encoded = new byte[(long)chunkRows * rowBytes];
        for (long first = 0; first < tensor.Rows; first += chunkRows)
        {
            int rows = (int)Math.Min(chunkRows, tensor.Rows - first);
            try
            {
                Parallel.For(0, rows, () => new float[columns], (row, _, values) =>
                {
                    long source = rowOrder(first + row);
                    Span<byte> target = encoded.AsSpan(row * rowBytes, rowBytes);
                    if (tensor.DType == dtype)
                    {
                        tensor.Row(source).CopyTo(target);
                        return values;
                    }
                    tensor.RequireFinite(source);
                    tensor.DecodeRow(source, values);
                    Codec.For(dtype).Encode(values, target);
                    return values;
                }, static _ => { });
            }
            catch (AggregateException exception) when (exception.InnerException is EngineException inner)
            {
                throw new EngineException(inner.Reason, tensor.File(), tensor.Name, inner);
            }
            stream.Write(encoded.AsSpan(0, rows * rowBytes));
        }
        tensor.Evict();
    }
}
