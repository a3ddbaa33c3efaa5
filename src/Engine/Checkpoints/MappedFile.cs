using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Engine.Checkpoints;

/// <summary>A file mapped read-only into memory. It is the <see cref="TensorView.Owner"/> of the tensors in it.</summary>
internal sealed unsafe partial class MappedFile : IDisposable
{
    // One touched byte may map this much of the page cache at once, on either side.
    private const int LargestFolio = 2 << 20;
    private const int AdviceDontNeed = 4;
    private readonly MemoryMappedFile? file;
    private readonly MemoryMappedViewAccessor? view;
    private byte* address;

    private MappedFile(string path, long length, MemoryMappedFile? file, MemoryMappedViewAccessor? view)
    {
        Path = path;
        Length = length;
        this.file = file;
        this.view = view;
        if (view is not null)
        {
            // The handle is not reference-counted here: whoever holds a tensor holds this object, and this object holds the handle.
            SafeMemoryMappedViewHandle handle = view.SafeMemoryMappedViewHandle;
            address = (byte*)handle.DangerousGetHandle() + view.PointerOffset;
        }
    }

    public string Path { get; }

    public long Length { get; }

    /// <summary>The first byte; null for an empty file.</summary>
    public byte* Address => address != null || Length == 0 ? address : throw new ObjectDisposedException(Path);

    /// <summary>Maps a file.</summary>
    /// <exception cref="EngineException">It does not exist or cannot be read.</exception>
    public static MappedFile Open(string path)
    {
        MemoryMappedFile? file = null;
        try
        {
            // The length is taken from the open file, not from the directory, so that it is the length of what is mapped.
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, bufferSize: 0);
            long length = stream.Length;
            if (length == 0)
                return new MappedFile(path, 0, null, null);
            file = MemoryMappedFile.CreateFromFile(
                stream, null, length, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            return new MappedFile(path, length, file, file.CreateViewAccessor(0, length, MemoryMappedFileAccess.Read));
        }
        catch (Exception exception)
            when (exception is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            file?.Dispose();
            throw new EngineException($"the file cannot be opened: {exception.Message}", path, inner: exception);
        }
    }

    /// <summary>A run of bytes.</summary>
    public ReadOnlySpan<byte> Slice(long offset, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length - length);
        return new ReadOnlySpan<byte>(Address + offset, length);
    }

    /// <summary>
    /// Lets the system drop the resident pages of a range: after weights are packed, the mapped copy need not count against this process.
    /// A hint; reading the range again works and costs a page fault. Does nothing on Windows, where a clean mapped page is dropped under
    /// pressure anyway.
    /// </summary>
    public void Evict(nint start, long length)
    {
        if (OperatingSystem.IsWindows() || length == 0)
            return;
        nint page = Environment.SystemPageSize, origin = (nint)Address;
        nint first = Math.Max(origin, (start - LargestFolio) / page * page);
        nint end = (nint)Math.Min(origin + Length, start + length + LargestFolio);
        _ = Advise(first, end - first, AdviceDontNeed);
    }

    public void Dispose()
    {
        address = null;
        view?.Dispose();
        file?.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(nint address, nint length, int advice);
}
