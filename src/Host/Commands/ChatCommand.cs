using System.CommandLine;
using System.Text;
using Engine.Generation;
using Host.Chat;
using Host.CommandLine;

namespace Host.Commands;

/// <summary><c>chat</c>: a conversation with the model, typed or piped.</summary>
internal sealed class ChatCommand(Interrupts interrupts)
{
    private readonly ModelOptionSet model = new();
    private readonly SamplingOptionSet sampling = new();

    private readonly Option<string?> system = new("--system")
    {
        Description = "What the model is told before the conversation.",
        HelpName = "TEXT",
    };

    private readonly Option<int?> tokens =
        Options.OptionalCount("--tokens", "The most tokens of a reply; without it the context's end.", 1, "-n");

    private readonly Option<bool> json = new("--json")
    {
        Description = "Print nothing but one JSON object at the end: the conversation.",
    };

    public static Command Create(Interrupts interrupts) => new ChatCommand(interrupts).ToCommand();

    private Command ToCommand()
    {
        Command command = new("chat", "Talk with the model: a line is a message; /reset forgets, /exit leaves, Ctrl-C stops a reply.")
        {
            system, tokens,
        };
        model.AddTo(command);
        sampling.AddTo(command);
        command.Add(json);
        command.SetAction((parse, _) => RunAsync(parse));
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse)
    {
        GenerationRequest template = new() { MaxTokens = parse.GetValue(tokens), Sampling = sampling.Read(parse) };
        bool asJson = parse.GetValue(json), interactive = !Console.IsInputRedirected;
        using LoadedModel loaded = model.Load(parse, interrupts.Token);
        ChatLoop loop = new(loaded.Model, template with { Streams = loaded.Streams }, parse.GetValue(system), quiet: asJson);
        interrupts.Intercept = () =>
        {
            if (!loop.StopReply())
            {
                // Reading a line cannot be cancelled, so there is nobody who could leave in order.
                Terminal.Leave(ExitCode.Interrupted);
            }
            return true;
        };
        using StreamReader piped = new(Console.OpenStandardInput(), new UTF8Encoding(false, throwOnInvalidBytes: true));
        await loop.RunAsync(interactive ? Console.In : piped, interactive).ConfigureAwait(false);
        if (asJson)
        {
            Terminal.WriteJson(new ChatResult(loop.Messages, template.Sampling.Seed), HostJson.Default.ChatResult);
        }
        return ExitCode.Success;
    }
}

/// <summary>What <c>chat --json</c> prints.</summary>
/// <param name="Messages">The conversation, the system's message included.</param>
/// <param name="Seed">Repeats it.</param>
internal sealed record ChatResult(IReadOnlyList<ChatMessage> Messages, ulong? Seed);
