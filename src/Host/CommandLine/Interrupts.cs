using System.Runtime.InteropServices;

namespace Host.CommandLine;

/// <summary>
/// Ctrl-C. The first one cancels <see cref="Token"/>, so that work ends in order; the second one, or two seconds, end the process.
/// A command may take an interrupt for itself (chat stops the reply and goes on).
/// </summary>
internal sealed class Interrupts : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly CancellationTokenSource source = new();
    private readonly PosixSignalRegistration registration;

    public Interrupts() => registration = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnInterrupt);

    /// <summary>Cancelled by the first Ctrl-C that <see cref="Intercept"/> does not take.</summary>
    public CancellationToken Token => source.Token;

    /// <summary>Asked first; true where it has dealt with the interrupt.</summary>
    public Func<bool>? Intercept { get; set; }

    public void Dispose()
    {
        registration.Dispose();
        source.Dispose();
    }

    private void OnInterrupt(PosixSignalContext context)
    {
        context.Cancel = true;
        if (Intercept?.Invoke() == true)
        {
            return;
        }
        if (source.IsCancellationRequested)
        {
            Terminal.Leave(ExitCode.Interrupted);
        }
        source.Cancel();
        _ = Task.Delay(Patience).ContinueWith(static _ => Terminal.Leave(ExitCode.Interrupted), TaskScheduler.Default);
    }
}
