using System.Diagnostics;
using System.Text;
using System.Text.Json;

namespace Host.Tests;

/// <summary>What a run of the program left behind.</summary>
internal sealed record HostResult(int ExitCode, string Output, string Error)
{
    /// <summary>The one JSON object on standard output, after checking that it is the only thing there.</summary>
    public JsonElement Json
    {
        get
        {
            Assert.True(ExitCode == 0, $"exit code {ExitCode}: {Error}");
            Assert.EndsWith("}\n", Output, StringComparison.Ordinal);
            Assert.Equal(Output.Length - 1, Output.IndexOf('\n', StringComparison.Ordinal));
            JsonElement root = JsonDocument.Parse(Output).RootElement;
            Assert.Equal(JsonValueKind.Object, root.ValueKind);
            return root;
        }
    }

    /// <summary>Checks for a failure: its exit code, nothing on standard output, one line on standard error that mentions these.</summary>
    public void AssertFailed(int exitCode, params string[] mentions)
    {
        Assert.True(exitCode == ExitCode, $"exit code {ExitCode} instead of {exitCode}: {Error}{Output}");
        Assert.Equal("", Output);
        Assert.StartsWith("error: ", Error, StringComparison.Ordinal);
        Assert.True(Error.IndexOf('\n', StringComparison.Ordinal) == Error.Length - 1, $"not one line: {Error}");
        foreach (string mention in mentions)
        {
            Assert.Contains(mention, Error, StringComparison.OrdinalIgnoreCase);
        }
    }
}

/// <summary>Runs the real program as users do: another process, real arguments, real pipes.</summary>
internal static class HostProcess
{
    // Only so that a hang ends the test run; no test depends on how long a run takes.
    private static readonly TimeSpan Hang = TimeSpan.FromMinutes(5);

    public static HostResult Run(params string[] arguments) => RunWithInput("", arguments);

    /// <summary>Runs it with an environment variable set.</summary>
    public static HostResult RunWith(string variable, string value, params string[] arguments)
    {
        using Process process = Start(arguments, (variable, value));
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        process.StandardInput.Close();
        return Finish(process, output, error);
    }

    public static HostResult RunWithInput(string input, params string[] arguments) =>
        RunWithInput(Encoding.UTF8.GetBytes(input), arguments);

    public static HostResult RunWithInput(byte[] input, params string[] arguments)
    {
        using Process process = Start(arguments);
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        try
        {
            process.StandardInput.BaseStream.Write(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It has ended without reading what it was given, as it should after a wrong argument.
        }
        return Finish(process, output, error);
    }

    /// <summary>Starts the program with all streams redirected.</summary>
    public static Process Start(params string[] arguments) => Start(arguments, null);

    private static Process Start(string[] arguments, (string Name, string Value)? variable)
    {
        ProcessStartInfo info = new("dotnet")
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
        };
        if (variable is var (name, value))
        {
            info.Environment[name] = value;
        }
        info.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "Host.dll"));
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }
        return Process.Start(info)!;
    }

    /// <summary>Waits for the end.</summary>
    public static HostResult Finish(Process process, Task<string> output, Task<string> error)
    {
        if (!process.WaitForExit(Hang))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"the program hangs; so far: {output.Result}{error.Result}");
        }
        return new HostResult(process.ExitCode, output.Result, error.Result);
    }
}
