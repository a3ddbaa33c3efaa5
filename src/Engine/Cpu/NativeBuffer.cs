using System.Runtime.InteropServices;

namespace Engine.Cpu;

/// <summary>
/// Memory outside the managed heap, aligned to a cache line, with one owner. The content is undefined at first; the operating system hands out
/// pages when they are touched, so a large pool costs what is used of it.
/// </summary>
internal sealed unsafe class NativeBuffer : IDisposable
{
    /// <summary>A cache line, and the widest vector.</summary>
    public const int Alignment = 64;

    private void* address;

    /// <exception cref="EngineException">The size is negative or there is not so much memory.</exception>
    public NativeBuffer(long bytes, string purpose)
    {
        if (bytes < 0)
        {
            throw new EngineException($"cannot allocate {bytes} bytes", item: purpose);
        }
        try
        {
            address = NativeMemory.AlignedAlloc(checked((nuint)Math.Max(bytes, 1)), Alignment);
        }
        catch (Exception exception) when (exception is OutOfMemoryException or OverflowException)
        {
            throw new EngineException($"{bytes} bytes of memory are not to be had", item: purpose, inner: exception);
        }
        Bytes = bytes;
    }

    ~NativeBuffer() => Free();

    /// <summary>Bytes that may be used.</summary>
    public long Bytes { get; }

    /// <summary>The first byte.</summary>
    /// <exception cref="ObjectDisposedException">The buffer has been freed.</exception>
    public void* Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(address is null, this);
            return address;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        NativeMemory.AlignedFree(address);
        address = null;
    }
}
