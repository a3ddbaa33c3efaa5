using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Engine;
using Spectre.Console;

namespace Host.CommandLine;

/// <summary>
/// The two streams. Standard output carries results: text and tables for people, or exactly one JSON object. Everything else, such as
/// progress, notes and errors, goes to standard error.
/// </summary>
internal static class Terminal
{
    private static readonly UTF8Encoding Utf8 = new(encoderShouldEmitUTF8Identifier: false);

    /// <summary>Tables and markup on standard output.</summary>
    public static IAnsiConsole Out { get; } = Create(Console.Out);

    /// <summary>Progress and notes on standard error.</summary>
    public static IAnsiConsole Error { get; } = Create(Console.Error);

    /// <summary>True where somebody looks at standard output and wants colours (see no-color.org).</summary>
    public static bool HasColours =>
        !Console.IsOutputRedirected && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))
        && Out.Profile.Capabilities is { Ansi: true, ColorSystem: not ColorSystem.NoColors };

    /// <summary>Makes both streams UTF-8 whatever the locale; called before anything is written.</summary>
    public static void UseUtf8()
    {
        Console.SetOut(new StreamWriter(Console.OpenStandardOutput(), Utf8) { AutoFlush = true });
        Console.SetError(new StreamWriter(Console.OpenStandardError(), Utf8) { AutoFlush = true });
    }

    /// <summary>Writes the one object of <c>--json</c>. Floats are written with the digits that give the same float32 back.</summary>
    public static void WriteJson<T>(T value, JsonTypeInfo<T> type)
    {
        using Stream output = Console.OpenStandardOutput();
        WriteJson(output, value, type);
    }

    /// <summary>Writes an object and a line end, as <c>--json</c> does.</summary>
    public static void WriteJson<T>(Stream output, T value, JsonTypeInfo<T> type)
    {
        // Text stays readable: nothing here ends up in HTML.
        using (Utf8JsonWriter writer = new(output, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            JsonSerializer.Serialize(writer, value, type);
        }
        output.WriteByte((byte)'\n');
    }

    /// <summary>Writes the one line of a failure.</summary>
    public static void WriteError(string message) =>
        Say(() => Console.Error.WriteLine($"error: {Visible(string.Join(' ', message.Split(['\r', '\n'], SplitOptions)))}"));

    /// <summary>Text of a file or an argument for a terminal: control characters, which could steer it, are spelled out.</summary>
    public static string Visible(string text) =>
        text.Any(char.IsControl) ? string.Concat(text.Select(c => char.IsControl(c) ? $"\\u{(int)c:x4}" : $"{c}")) : text;

    /// <summary>Writes a remark for people.</summary>
    public static void Note(string text) => Say(() => Error.MarkupLineInterpolated($"[grey]{text}[/]"));

    /// <summary>Ends the process at once, with a visible cursor: a progress bar hides it.</summary>
    public static void Leave(int exitCode)
    {
        if (!Console.IsErrorRedirected)
        {
            Say(Error.Cursor.Show);
        }
        Environment.Exit(exitCode);
    }

    /// <summary>All of standard input as text.</summary>
    /// <exception cref="EngineException">It is not UTF-8.</exception>
    public static string ReadInput()
    {
        using Stream input = Console.OpenStandardInput();
        using MemoryStream bytes = new();
        input.CopyTo(bytes);
        return DecodeUtf8(bytes.ToArray(), "standard input");
    }

    /// <summary>A file as text.</summary>
    /// <exception cref="EngineException">It cannot be read, or is not UTF-8.</exception>
    public static string ReadFile(string path)
    {
        try
        {
            return DecodeUtf8(File.ReadAllBytes(path), path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the file cannot be read: {error.Message}", path, inner: error);
        }
    }

    private const StringSplitOptions SplitOptions = StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries;

    /// <summary>Writes to standard error; where that is closed or full there is nobody to tell, and the result still counts.</summary>
    private static void Say(Action write)
    {
        try
        {
            write();
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
        }
    }

    private static string DecodeUtf8(byte[] bytes, string origin)
    {
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
        }
        catch (DecoderFallbackException error)
        {
            throw new EngineException($"expected UTF-8 text, found something else at byte {error.Index}", origin);
        }
    }

    private static IAnsiConsole Create(TextWriter writer)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(writer) });
        // Where there is no terminal to ask, tables are as wide as they need to be.
        if (ReferenceEquals(writer, Console.Out) ? Console.IsOutputRedirected : Console.IsErrorRedirected)
        {
            console.Profile.Width = 200;
        }
        return console;
    }
}
