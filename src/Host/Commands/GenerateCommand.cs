using System.CommandLine;
using System.Text;
using Engine;
using Engine.Generation;
using Engine.Sampling;
using Host.CommandLine;

namespace Host.Commands;

/// <summary><c>generate</c>: continues a prompt.</summary>
internal sealed class GenerateCommand
{
    // A whole story of the small model.
    private const int DefaultTokens = 256;

    private readonly ModelOptionSet model = new();
    private readonly SamplingOptionSet sampling = new();
    private readonly Option<string?> prompt = new("--prompt", "-p") { Description = "Text to continue.", HelpName = "TEXT" };
    private readonly Option<int[]?> ids = Options.Ids("--ids", "Token ids to continue, instead of text; taken as they are.");
    private readonly Option<int> tokens = Options.Count("--tokens", "The most tokens to generate.", DefaultTokens, 1, "-n");
    private readonly Option<int> logprobs = Options.Count("--logprobs",
        "With --json: report so many of the likeliest tokens with each token.", 0, 0);
    private readonly Option<bool> ignoreEnd = new("--ignore-eos") { Description = "Go on through end-of-sequence tokens." };
    private readonly Option<bool> json = Options.Json();

    private readonly Option<string[]> stop = new("--stop")
    {
        Description = "Text that ends the generation; not part of it. May be repeated.",
        HelpName = "TEXT",
    };

    public static Command Create() => new GenerateCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("generate", "Continue a prompt.") { prompt, ids, tokens };
        model.AddTo(command);
        sampling.AddTo(command);
        foreach (Option option in new Option[] { stop, ignoreEnd, logprobs, json })
        {
            command.Add(option);
        }
        command.SetAction(RunAsync);
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse, CancellationToken cancellationToken)
    {
        GenerationRequest request = Request(parse);
        using LoadedModel loaded = model.Load(parse, cancellationToken);
        LanguageModel languageModel = loaded.Model;
        if (request.Prompt is not null && languageModel.HasTokenizer)
        {
            // Encoded here, because the ids are part of the answer.
            request = request with { Prompt = null, PromptIds = languageModel.Tokenizer.Encode(request.Prompt) };
        }
        IAsyncEnumerable<GeneratedToken> stream = languageModel.GenerateAsync(request, cancellationToken);
        if (parse.GetValue(json))
        {
            GenerateResult result = await CollectAsync(stream, request, loaded.LoadTime).ConfigureAwait(false);
            Terminal.WriteJson(result, HostJson.Default.GenerateResult);
        }
        else
        {
            await PrintAsync(stream, parse.GetValue(prompt), languageModel.HasTokenizer, request.Sampling.Seed).ConfigureAwait(false);
        }
        return ExitCode.Success;
    }

    private GenerationRequest Request(ParseResult parse)
    {
        int[]? promptIds = parse.GetIds(ids);
        string? text = parse.GetValue(prompt);
        if (promptIds is not null && text is not null)
        {
            throw new UsageException("give either --prompt or --ids, not both");
        }
        string[] stops = parse.GetValue(stop) ?? [];
        if (stops.Contains(""))
        {
            throw new UsageException("--stop: expected a text, found an empty one");
        }
        return new GenerationRequest
        {
            // Without a prompt the model begins by itself, where it has a token to begin with.
            Prompt = promptIds is null ? text ?? "" : null,
            PromptIds = promptIds,
            MaxTokens = parse.GetValue(tokens),
            Sampling = sampling.Read(parse, parse.GetValue(logprobs)),
            Stop = stops,
            IgnoreEndOfSequence = parse.GetValue(ignoreEnd),
        };
    }

    private static async Task<GenerateResult> CollectAsync(IAsyncEnumerable<GeneratedToken> stream, GenerationRequest request,
        TimeSpan loadTime)
    {
        List<int> generated = [];
        List<LogprobsResult> logprobs = [];
        StringBuilder text = new();
        GeneratedToken last = default;
        await foreach (GeneratedToken token in stream.ConfigureAwait(false))
        {
            generated.Add(token.Id);
            text.Append(token.Text);
            if (request.Sampling.Logprobs > 0)
            {
                logprobs.Add(new LogprobsResult(token.Id, token.Logprob, [.. token.Top]));
            }
            last = token;
        }
        return new GenerateResult(
            [.. request.PromptIds!], generated, text.ToString(), FinishReasonName(last.Finish), UsageResult.From(last.Usage!),
            TimingsResult.From(last.Usage!, loadTime), request.Sampling.Seed, logprobs.Count == 0 ? null : logprobs);
    }

    private static async Task PrintAsync(IAsyncEnumerable<GeneratedToken> stream, string? prompt, bool hasText, ulong? seed)
    {
        Console.Out.Write(prompt);
        string separator = "";
        GeneratedToken last = default;
        await foreach (GeneratedToken token in stream.ConfigureAwait(false))
        {
            // A model without a tokenizer still has ids to show.
            Console.Out.Write(hasText ? token.Text : $"{separator}{token.Id}");
            separator = ",";
            last = token;
        }
        Console.Out.WriteLine();
        TimingsResult timings = TimingsResult.From(last.Usage!, TimeSpan.Zero);
        Terminal.Note($"{last.Usage!.PromptTokens} + {last.Usage.CompletionTokens} tokens, {FinishReasonName(last.Finish)}, "
            + $"{timings.CompletionTokensPerSecond:F1} tokens/s, seed {seed}");
    }

    /// <summary>The words of OpenAI's API.</summary>
    internal static string FinishReasonName(FinishReason? reason) => reason == FinishReason.Length ? "length" : "stop";
}

/// <summary>What <c>generate --json</c> prints.</summary>
/// <param name="PromptIds">The prompt as the model saw it.</param>
/// <param name="Ids">The tokens generated, an end-of-sequence token included.</param>
/// <param name="Text">Their text, without a stop string.</param>
/// <param name="FinishReason"><c>stop</c> or <c>length</c>.</param>
/// <param name="Usage">Token counts.</param>
/// <param name="Timings">Times and speeds.</param>
/// <param name="Seed">Repeats the run.</param>
/// <param name="Logprobs">For every token, if asked for.</param>
internal sealed record GenerateResult(
    int[] PromptIds,
    IReadOnlyList<int> Ids,
    string Text,
    string FinishReason,
    UsageResult Usage,
    TimingsResult Timings,
    ulong? Seed,
    IReadOnlyList<LogprobsResult>? Logprobs);

/// <summary>A token and what else was likely.</summary>
internal sealed record LogprobsResult(int Id, float Logprob, TokenLogprob[] Top);

/// <summary>Token counts.</summary>
internal sealed record UsageResult(int PromptTokens, int CachedTokens, int CompletionTokens, int TotalTokens)
{
    public static UsageResult From(Usage usage) =>
        new(usage.PromptTokens, usage.CachedTokens, usage.CompletionTokens, usage.PromptTokens + usage.CompletionTokens);
}

/// <summary>Times in milliseconds and speeds in tokens per second; a speed is absent where nothing was timed.</summary>
/// <param name="LoadMs">Loading the model.</param>
/// <param name="PromptMs">From the start to the first token.</param>
/// <param name="PromptTokensPerSecond">Prompt tokens over that time.</param>
/// <param name="CompletionMs">From the first token to the last.</param>
/// <param name="CompletionTokensPerSecond">Tokens after the first over that time.</param>
internal sealed record TimingsResult(
    double LoadMs, double PromptMs, double? PromptTokensPerSecond, double CompletionMs, double? CompletionTokensPerSecond)
{
    public static TimingsResult From(Usage usage, TimeSpan loadTime) => new(
        loadTime.TotalMilliseconds,
        usage.PromptTime.TotalMilliseconds,
        Rate(usage.PromptTokens - usage.CachedTokens, usage.PromptTime),
        usage.CompletionTime.TotalMilliseconds,
        Rate(usage.CompletionTokens - 1, usage.CompletionTime));

    private static double? Rate(int tokens, TimeSpan time) => tokens > 0 && time > TimeSpan.Zero ? tokens / time.TotalSeconds : null;
}
