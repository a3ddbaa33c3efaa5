using System.CommandLine;
using Engine;
using Engine.Execution;
using Engine.Plans;
using Host.CommandLine;
using Host.Inspection;
using Host.Printing;

namespace Host.Commands;

/// <summary><c>inspect --routing</c>: runs a text through the model and shows which experts its tokens were sent to.</summary>
internal sealed class RoutingInspection
{
    /// <summary>A longer text is run in pieces of so many tokens, each by itself: keys and values of so many always fit.</summary>
    private const int LongestPiece = 4096;

    private readonly Option<string?> text = new("--routing")
    {
        Description = "For mixtures of experts: run this text, UTF-8, or the --ids, and show how often each expert was chosen. "
            + "A text longer than the context is run in pieces.",
        HelpName = "FILE",
        Arity = ArgumentArity.ZeroOrOne,
    };

    private readonly Option<int[]?> ids = Options.Ids("--ids", "For --routing: token ids instead of a text.");
    private readonly RunOptionSet run = new();

    /// <summary>The options.</summary>
    public IReadOnlyList<Option> All => [text, ids, .. run.All];

    /// <summary>Whether it is asked for.</summary>
    /// <exception cref="UsageException">An option that belongs to it is given without it.</exception>
    public bool IsAsked(ParseResult parse)
    {
        if (parse.GetResult(text) is not null)
        {
            return true;
        }
        return All.FirstOrDefault(option => parse.GetResult(option) is { Implicit: false }) is { } stray
            ? throw new UsageException($"{stray.Name} belongs to {text.Name}")
            : false;
    }

    /// <summary>Runs the text.</summary>
    /// <param name="parse">The command line.</param>
    /// <param name="path">The model.</param>
    /// <param name="output">The picture to write, or null.</param>
    /// <param name="outputOption">What names it.</param>
    /// <param name="asJson">One object instead of what people read.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public void Run(ParseResult parse, string path, string? output, string outputOption, bool asJson, CancellationToken cancellationToken)
    {
        int[]? given = parse.GetIds(ids);
        string? file = parse.GetValue(text);
        if (given is null == file is null)
        {
            throw new UsageException($"{text.Name}: expected either a file or {ids.Name}, found {(file is null ? "neither" : "both")}");
        }
        LanguageModelOptions options = run.Apply(parse, new LanguageModelOptions { KvFormat = KvFormat.F32 });
        UsageException.Check(options.Validate);
        if (output is not null)
        {
            RoutingPlot.Check(output, outputOption);
        }
        string? content = file is null ? null : Terminal.ReadFile(file);
        if (content is "")
        {
            throw new EngineException("the text is empty", file);
        }
        Action<ModelPlan, string>? needs = (plan, model) => ModelNeeds.Experts(plan, model, text.Name);
        using LoadedModel loaded = LoadedModel.Load(path, options, cancellationToken, needs + run.Needs(parse));
        // A text is only text: what looks like a special token in it is none.
        int[] tokens = given ?? loaded.Model.Tokenizer.Encode(content!, parseSpecial: false);
        if (tokens.Length == 0)
        {
            throw new EngineException("the text has no tokens", file);
        }
        RoutingRecorder recorder = new(loaded.Model.Plan);
        if (!recorder.Layers.Any())
        {
            throw new EngineException("none of the layers that are run has experts", path, text.Name);
        }
        loaded.Model.ExpertObserver = recorder;
        Feed(loaded.Model, tokens, options.MaxRowsPerStep, cancellationToken);
        RoutingResult result = RoutingResult.Of(loaded.Model, tokens.Length, recorder, options.ExpertsPerToken);
        if (output is not null)
        {
            RoutingPlot.Write(output, result, cancellationToken);
        }
        if (asJson)
        {
            Terminal.WriteJson(result, HostJson.Default.RoutingResult);
        }
        else
        {
            new RoutingPrinter(Terminal.Out, Terminal.HasColours).Print(result);
        }
    }

    private static void Feed(LanguageModel model, int[] tokens, int rows, CancellationToken cancellationToken)
    {
        foreach (int[] piece in tokens.Chunk(Math.Min(model.ContextLength, LongestPiece)))
        {
            using LogitsSession session = model.CreateLogitsSession();
            foreach (int[] step in piece.Chunk(rows))
            {
                cancellationToken.ThrowIfCancellationRequested();
                session.Feed(step, firstLogits: step.Length, static (_, _) => { });
            }
        }
    }
}
