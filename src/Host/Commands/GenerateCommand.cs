using System.CommandLine;
using Engine;
using Engine.Checkpoints.Writing;
using Engine.Generation;
using Engine.Plans;
using Engine.Text;
using Host.CommandLine;
using Host.Printing;

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

    private readonly Option<bool> showDepth = new("--show-depth")
    {
        Description = "For models that route tokens to depths: prompt and text with the depth of every token, as colours, or as marks such as ⟨2⟩ "
            + "where there are none. The last token has no depth: it was not fed. --json has the depths in any case, as depth: those of the "
            + "prompt, then of the generated tokens but the last.",
    };

    private readonly Option<bool> showStreams = new("--show-streams")
    {
        Description = "For ParScale: the gate's weights of the streams, a line per generated token; with --json as stream_weights.",
    };

    private readonly Option<string?> depthOut = new("--depth-out")
    {
        Description = "For models that route tokens to depths: write tokens, depths, a histogram and what the KV caches hold, as JSON, for plots.",
        HelpName = "FILE",
    };

    public static Command Create() => new GenerateCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("generate", "Continue a prompt.") { prompt, ids, tokens };
        model.AddTo(command);
        sampling.AddTo(command);
        foreach (Option option in new Option[] { stop, ignoreEnd, logprobs, showDepth, showStreams, depthOut, json })
        {
            command.Add(option);
        }
        command.SetAction(RunAsync);
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse, CancellationToken cancellationToken)
    {
        GenerationRequest request = Request(parse);
        if (parse.GetValue(depthOut) is { } target)
        {
            AtomicFile.Check(target);
        }
        using LoadedModel loaded = model.Load(parse, cancellationToken, Needs(parse));
        LanguageModel languageModel = loaded.Model;
        request = request with { Streams = loaded.Streams };
        if (request.Prompt is not null && languageModel.HasTokenizer)
        {
            // Encoded here, because the ids are part of the answer.
            request = request with { Prompt = null, PromptIds = languageModel.Tokenizer.Encode(request.Prompt) };
        }
        bool asJson = parse.GetValue(json);
        IAsyncEnumerable<GeneratedToken> stream = languageModel.GenerateAsync(request, cancellationToken);
        Collected generation = new([.. request.PromptIds!]);
        ITokenPrinter? printer = asJson ? null : Printer(parse, languageModel, generation.PromptIds);
        printer?.Begin();
        await foreach (GeneratedToken token in stream.ConfigureAwait(false))
        {
            generation.Add(token);
            printer?.Add(token);
        }
        printer?.End();
        if (parse.GetValue(depthOut) is { } path)
        {
            ExportDepths(path, languageModel, generation, cancellationToken);
        }
        if (asJson)
        {
            Terminal.WriteJson(generation.ToResult(request, loaded.LoadTime), HostJson.Default.GenerateResult);
        }
        else
        {
            NoteSpeed(generation, request.Sampling.Seed);
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
        if (parse.GetValue(depthOut) is "")
        {
            throw new UsageException("--depth-out: expected a file, found an empty path");
        }
        if (parse.GetValue(showDepth) && parse.GetValue(showStreams) && !parse.GetValue(json))
        {
            throw new UsageException("give either --show-depth or --show-streams, not both");
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
            ReportStreamWeights = parse.GetValue(showStreams),
        };
    }

    /// <summary>Refuses a model that cannot be shown as asked; null where nothing special is asked for.</summary>
    private Action<ModelPlan, string>? Needs(ParseResult parse)
    {
        Action<ModelPlan, string>? needs = null;
        if (parse.GetValue(showDepth))
        {
            needs += (plan, path) => ModelNeeds.DepthRouter(plan, path, showDepth.Name);
        }
        if (parse.GetValue(depthOut) is not null)
        {
            needs += (plan, path) => ModelNeeds.DepthRouter(plan, path, depthOut.Name);
        }
        if (parse.GetValue(showStreams))
        {
            needs += (plan, path) => ModelNeeds.StreamGate(plan, path, showStreams.Name, model.Streams(parse));
        }
        return needs;
    }

    private ITokenPrinter Printer(ParseResult parse, LanguageModel languageModel, IReadOnlyList<int> promptIds)
    {
        Tokenizer? tokenizer = languageModel.HasTokenizer ? languageModel.Tokenizer : null;
        if (parse.GetValue(showDepth))
        {
            int depths = languageModel.Plan.Layers.Recursion!.Depths;
            return new DepthPrinter(Terminal.Out, Terminal.HasColours, new TokenTexts(tokenizer), promptIds, depths);
        }
        return parse.GetValue(showStreams)
            ? new StreamsPrinter(Console.Out, new TokenTexts(tokenizer), promptIds)
            : new TextPrinter(Console.Out, parse.GetValue(prompt), tokenizer is not null);
    }

    private static void ExportDepths(string path, LanguageModel languageModel, Collected generation, CancellationToken cancellationToken)
    {
        TokenTexts? texts = languageModel.HasTokenizer ? new TokenTexts(languageModel.Tokenizer) : null;
        DepthExport.Create(
            languageModel.Plan, languageModel.KvSlotBytesPerToken, texts, generation.PromptIds, generation.Ids, generation.Last.Usage!.Depths)
            .Write(path, cancellationToken);
    }

    private static void NoteSpeed(Collected generation, ulong? seed)
    {
        Usage usage = generation.Last.Usage!;
        TimingsResult timings = TimingsResult.From(usage, TimeSpan.Zero);
        Terminal.Note($"{usage.PromptTokens} + {usage.CompletionTokens} tokens, {GenerateResult.NameOf(generation.Last.Finish)}, "
            + $"{timings.CompletionTokensPerSecond:F1} tokens/s, seed {seed}");
    }
}
