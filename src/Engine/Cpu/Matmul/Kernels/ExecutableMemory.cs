using System.ComponentModel;
using System.Runtime.InteropServices;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Machine code in memory that is first writable, then executable, never both. It is kept for the life of the process: kernels are few and small.
/// </summary>
internal static unsafe partial class ExecutableMemory
{
    private const int ProtRead = 1, ProtWrite = 2, ProtExecute = 4;
    private const int MapPrivate = 2;
    private const uint MemCommitReserve = 0x3000, PageReadWrite = 4, PageExecuteRead = 0x20;
    private static readonly int mapAnonymous = OperatingSystem.IsMacOS() ? 0x1000 : 0x20;

    /// <summary>Places code and returns its address, page-aligned.</summary>
    /// <exception cref="Win32Exception">The system refuses memory or execution (a hardened process may).</exception>
    public static nint Place(ReadOnlySpan<byte> code)
    {
        nint page = Environment.SystemPageSize;
        nint size = (code.Length + page - 1) / page * page;
        nint address = OperatingSystem.IsWindows()
            ? VirtualAlloc(0, size, MemCommitReserve, PageReadWrite)
            : Map(0, size, ProtRead | ProtWrite, MapPrivate | mapAnonymous, -1, 0);
        if (address is 0 or -1)
        {
            throw new Win32Exception();
        }
        code.CopyTo(new Span<byte>((void*)address, (int)size));
        bool executable = OperatingSystem.IsWindows()
            ? VirtualProtect(address, size, PageExecuteRead, out _) != 0
            : Protect(address, size, ProtRead | ProtExecute) == 0;
        if (!executable)
        {
            throw new Win32Exception();
        }
        return address;
    }

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial nint Map(nint address, nint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int Protect(nint address, nint length, int protection);

    [LibraryImport("kernel32", EntryPoint = "VirtualAlloc", SetLastError = true)]
    private static partial nint VirtualAlloc(nint address, nint size, uint type, uint protection);

    [LibraryImport("kernel32", EntryPoint = "VirtualProtect", SetLastError = true)]
    private static partial int VirtualProtect(nint address, nint size, uint protection, out uint previous);
}
