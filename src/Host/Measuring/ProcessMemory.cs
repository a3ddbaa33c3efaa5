using System.Diagnostics;

namespace Host.Measuring;

/// <summary>Memory of this process.</summary>
internal static class ProcessMemory
{
    /// <summary>The most physical memory that was in use at once, mapped files included, in bytes.</summary>
    public static long Peak
    {
        get
        {
            using Process process = Process.GetCurrentProcess();
            return process.PeakWorkingSet64;
        }
    }
}
