using System.Runtime.InteropServices;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Unmanaged memory for packed weights. Large buffers are aligned to, and their whole 2 MiB stretches advised as, huge pages: streaming weights
/// through 4 KiB pages would spend a page walk every 64 cache lines. The tail stays on small pages so that nothing is resident that is not used.
/// </summary>
internal sealed unsafe partial class PanelMemory : IDisposable
{
    private const nuint HugePage = 2 << 20;
    private const int AdviceHugePage = 14;
    private byte* address;

    /// <summary>Allocates; the content is undefined.</summary>
    public PanelMemory(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        Bytes = bytes;
        nuint size = Math.Max((nuint)bytes, 64);
        bool huge = size >= HugePage;
        address = (byte*)NativeMemory.AlignedAlloc(size, huge ? HugePage : 64);
        GC.AddMemoryPressure(Math.Max(bytes, 64));
        if (huge && OperatingSystem.IsLinux())
        {
            _ = Advise((nint)address, (nint)(size & ~(HugePage - 1)), AdviceHugePage); // A hint: it may be switched off.
        }
    }

    ~PanelMemory() => Free();

    /// <summary>Size in bytes.</summary>
    public long Bytes { get; }

    /// <summary>The first byte, at least 64-byte aligned.</summary>
    public byte* Address => address != null ? address : throw new ObjectDisposedException(nameof(PanelMemory));

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        if (address != null)
        {
            NativeMemory.AlignedFree(address);
            address = null;
            GC.RemoveMemoryPressure(Math.Max(Bytes, 64));
        }
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(nint address, nint length, int advice);
}
