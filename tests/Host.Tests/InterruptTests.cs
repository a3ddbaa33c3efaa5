using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Host.Tests;

/// <summary>Ctrl-C, as a terminal sends it.</summary>
public sealed partial class InterruptTests
{
    private const int SigInt = 2;

    [Fact]
    public void AnInterruptEndsWorkWith130()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "signals are sent as POSIX has them");
        string model = SharedFiles.Require("models/stories15M/stories15M-q8_0.gguf"), text = SharedFiles.Require("texts/tinystories-b.txt");
        using Process process = HostProcess.Start("perplexity", "-m", model, "--text", text, "--json");
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        // Whether this comes before loading, while loading, or at work: the outcome is the same.
        // All of the text would take any machine longer.
        Thread.Sleep(Seed.Fresh().Next(1500));
        Interrupt(process);
        HostResult result = HostProcess.Finish(process, output, error);
        Assert.Equal(130, result.ExitCode);
        Assert.Equal("", result.Output);
    }

    /// <summary>Sends Ctrl-C to a process.</summary>
    internal static void Interrupt(Process process) => Assert.Equal(0, Kill(process.Id, SigInt));

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}
