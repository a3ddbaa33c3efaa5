using System.Text;
using Engine;
using Engine.Generation;
using Engine.Sampling;
using Host.CommandLine;

namespace Host.Chat;

/// <summary>
/// A conversation over two streams: a line is a message, the reply is printed as it comes. Ctrl-C stops a reply and keeps what there is
/// of it; at the prompt it ends the program.
/// </summary>
internal sealed class ChatLoop(LanguageModel model, GenerationRequest template, string? system, bool quiet)
{
    private readonly ChatFormat format = ChatFormat.For(model.Tokenizer, model.Path);
    private readonly List<ChatMessage> messages = system is null ? [] : [new("system", system)];
    private readonly Lock gate = new();
    private CancellationTokenSource? reply;

    /// <summary>The conversation so far.</summary>
    public IReadOnlyList<ChatMessage> Messages => messages;

    /// <summary>Stops the reply that is being written.</summary>
    /// <returns>False where there is none.</returns>
    public bool StopReply()
    {
        lock (gate)
        {
            bool stopped = reply is { IsCancellationRequested: false };
            reply?.Cancel();
            return stopped;
        }
    }

    /// <summary>Reads messages until <c>/exit</c> or the end of input.</summary>
    /// <param name="input">Where messages come from.</param>
    /// <param name="interactive">Somebody is typing: there is a prompt, and an error ends a turn rather than the program.</param>
    public async Task RunAsync(TextReader input, bool interactive)
    {
        while (true)
        {
            if (interactive)
            {
                Console.Error.Write("> ");
            }
            string? line = ReadLine(input);
            switch (line?.Trim())
            {
                case null or "/exit":
                    return;
                case "":
                    break;
                case "/reset":
                    messages.RemoveAll(static message => message.Role != "system");
                    break;
                default:
                    await TurnAsync(line, interactive).ConfigureAwait(false);
                    break;
            }
        }
    }

    private static string? ReadLine(TextReader input)
    {
        try
        {
            return input.ReadLine();
        }
        catch (DecoderFallbackException)
        {
            throw new EngineException("expected UTF-8 text, found something else", "standard input");
        }
    }

    private async Task TurnAsync(string line, bool interactive)
    {
        messages.Add(new ChatMessage("user", line));
        try
        {
            messages.Add(new ChatMessage("assistant", await ReplyAsync().ConfigureAwait(false)));
        }
        catch (EngineException refused) when (interactive)
        {
            messages.RemoveAt(messages.Count - 1);
            Terminal.WriteError($"{refused.Message} (/reset begins anew)");
        }
    }

    private async Task<string> ReplyAsync()
    {
        // Turns draw different numbers, and the same conversation with the same seed repeats.
        SamplingOptions sampling = template.Sampling with { Seed = template.Sampling.Seed + (ulong)messages.Count };
        GenerationRequest request = template with { PromptIds = format.Encode(messages), Sampling = sampling, Stop = format.Stops };
        StringBuilder text = new();
        using CancellationTokenSource source = new();
        SetReply(source);
        try
        {
            await foreach (GeneratedToken token in model.GenerateAsync(request, source.Token).ConfigureAwait(false))
            {
                text.Append(token.Text);
                Write(token.Text);
            }
        }
        catch (OperationCanceledException) when (source.IsCancellationRequested)
        {
            // The reader has had enough; what there is stays part of the conversation.
        }
        finally
        {
            SetReply(null);
        }
        Write("\n");
        return text.ToString().Trim();
    }

    private void SetReply(CancellationTokenSource? source)
    {
        lock (gate)
        {
            reply = source;
        }
    }

    private void Write(string text)
    {
        if (!quiet)
        {
            Console.Out.Write(text);
        }
    }
}
