using System.CommandLine;
using System.CommandLine.Invocation;
using Engine;
using Host.CommandLine;
using Host.Commands;

Terminal.UseUtf8();
using Interrupts interrupts = new();

RootCommand root = new("Runs transformers on the CPU from the weights as they lie on disk.");
root.Add(GenerateCommand.Create());
root.Add(ChatCommand.Create(interrupts));
root.Add(LogitsCommand.Create());
root.Add(TokenizeCommand.Create());
root.Add(TemplateCommand.Create());
root.Add(InspectCommand.Create());
root.Add(BenchCommand.Create());
root.Add(PerplexityCommand.Create());
root.Add(ConvertCommand.Create());
root.Add(CompressCommand.Create());

ParseResult parse = root.Parse(args);
if (parse.Action is ParseErrorAction)
{
    // Of several the last one: that something is missing is reported before what should not be there.
    string command = parse.CommandResult.Command is RootCommand ? "" : $" {parse.CommandResult.Command.Name}";
    Terminal.WriteError($"{parse.Errors[^1].Message} (see{command} --help)");
    return ExitCode.Usage;
}
try
{
    InvocationConfiguration configuration = new() { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
    return await parse.InvokeAsync(configuration, interrupts.Token);
}
catch (UsageException wrong)
{
    Terminal.WriteError(wrong.Message);
    return ExitCode.Usage;
}
catch (OperationCanceledException) when (interrupts.Token.IsCancellationRequested)
{
    return ExitCode.Interrupted;
}
catch (Exception bad) when (bad is EngineException or IOException or UnauthorizedAccessException or OutOfMemoryException)
{
    Terminal.WriteError(bad.Message);
    return ExitCode.BadInput;
}
