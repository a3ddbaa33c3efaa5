using Engine.Checkpoints.Writing;

namespace Engine.Checkpoints;

/// <summary>
/// Tensors that are made when they are asked for. Their bytes belong to the view that is handed out and are kept no longer than it: a loader that
/// packs one tensor after the other holds one of them, not a second copy of the model. Asked for again, a tensor that is gone is made again. Safe for
/// concurrent use.
/// </summary>
/// <param name="path">The checkpoint, for messages.</param>
internal sealed class TensorsOnDemand(string path)
{
    // Unreachable views are found by a collection; this much may pile up before one is asked for.
    private const long MostUnreachable = 128 << 20;

    private readonly Dictionary<string, WeakReference<TensorView>> made = [];
    private readonly Lock gate = new();
    private long handedOut;

    /// <summary>A tensor, made if it is gone.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="dtype">Its type.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="fill">Writes its bytes, which are zero before.</param>
    /// <exception cref="EngineException">Its size overflows.</exception>
    public TensorView Get(string name, DType dtype, long[] shape, Action<UnmanagedBuffer> fill)
    {
        lock (gate)
        {
            if (made.TryGetValue(name, out WeakReference<TensorView>? known) && known.TryGetTarget(out TensorView? view))
            {
                return view;
            }
            view = Make(name, dtype, shape, fill);
            made[name] = new WeakReference<TensorView>(view);
            return view;
        }
    }

    /// <summary>A tensor, written if it is gone.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="content">Its type, shape and what writes its bytes; asked where it must be made.</param>
    /// <exception cref="EngineException">Its size overflows, or writing it fails.</exception>
    public unsafe TensorView Get(string name, Func<TensorSource> content)
    {
        lock (gate)
        {
            if (made.TryGetValue(name, out WeakReference<TensorView>? known) && known.TryGetTarget(out TensorView? view))
            {
                return view;
            }
            TensorSource source = content();
            long bytes = source.ByteLength;
            return Get(name, source.DType, source.Shape, buffer =>
            {
                using var stream = new UnmanagedMemoryStream((byte*)buffer.Address, bytes, bytes, FileAccess.Write);
                source.WriteTo(stream);
            });
        }
    }

    private TensorView Make(string name, DType dtype, long[] shape, Action<UnmanagedBuffer> fill)
    {
        long bytes = dtype.TryByteLength(shape) ?? throw new EngineException("its size overflows", path, name);
        if ((handedOut += bytes) > MostUnreachable)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            handedOut = bytes;
        }
        var buffer = new UnmanagedBuffer(bytes, path);
        try
        {
            fill(buffer);
        }
        catch
        {
            buffer.Dispose();
            throw;
        }
        return new TensorView(name, dtype, shape, buffer.Address, bytes, buffer);
    }
}
