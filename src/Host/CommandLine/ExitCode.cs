namespace Host.CommandLine;

/// <summary>Exit codes of the program.</summary>
internal static class ExitCode
{
    public const int Success = 0;

    /// <summary>A file, a prompt or an id is not right; one line on standard error says what.</summary>
    public const int BadInput = 1;

    /// <summary>The command line itself is not right.</summary>
    public const int Usage = 2;

    /// <summary>Ended by Ctrl-C: 128 + SIGINT, as shells have it.</summary>
    public const int Interrupted = 130;
}
