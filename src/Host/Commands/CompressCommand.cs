using System.CommandLine;
using Engine;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Compression;
using Engine.Text;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;
using Host.CommandLine;
using Host.Measuring;
using Spectre.Console;

namespace Host.Commands;

/// <summary><c>compress</c>: a smaller checkpoint of a model, pruned, quantized or without some of its parts, and what it has lost by that.</summary>
internal sealed class CompressCommand
{
    private const int UsualTokens = 32768, LongestSequence = 2048;

    private readonly Option<string?> model = Options.Model();
    private readonly Option<int?> threads = Options.Threads();
    private readonly Option<bool> json = Options.Json();

    private readonly Option<string> output = new("--out", "-o")
    {
        Description = "The Hugging Face folder to make, or the GGUF file where --quantize names a format of GGUF. Interrupted work is kept beside it, and goes on "
            + "when the same command is given again.",
        HelpName = "PATH",
        Required = true,
    };

    private readonly Option<string?> prune = new("--prune")
    {
        Description = "Set weights to zero: two of every four along the inputs (2:4), or a part of them such as 0.5.",
        HelpName = "2:4|PART",
    };

    private readonly Option<PruningCriterion?> criterion = Options.OptionalChoice<PruningCriterion>(
        "--criterion", "Which weights become zero: the smallest, or by a calibration text; without it sparsegpt where there is one, else magnitude.",
        [("magnitude", PruningCriterion.Magnitude), ("wanda", PruningCriterion.Wanda), ("sparsegpt", PruningCriterion.SparseGpt)]);

    private readonly Option<string?> quantize = new("--quantize")
    {
        Description = "Store weights as integers in a folder (int4 in groups of 128, int8 with a scale per output; :gN for groups of N, :channel, :asym), or write a "
            + $"GGUF in one of {string.Join(", ", QuantizationRecipe.All.Select(static recipe => recipe.Name))}.",
        HelpName = "FORMAT",
    };

    private readonly Option<RoundingMethod?> method = Options.OptionalChoice<RoundingMethod>(
        "--method", "How weights are rounded to codes: to the nearest, or by a calibration text; without it gptq where there is one, else rtn.",
        [("rtn", RoundingMethod.Rtn), ("gptq", RoundingMethod.Gptq)]);

    private readonly Option<bool?> actOrder = new("--act-order")
    {
        Description = "GPTQ rounds the inputs of largest activations first, while groups stay neighbours; without it true, but together with sparsegpt.",
        HelpName = "true|false",
    };

    private readonly Option<int> dropLayers = Options.Count(
        "--drop-layers", "Leave out so many layers: those whose input and output are most alike in a calibration text.", 0, 0);

    private readonly Option<int> shareLayers = Options.Count(
        "--share-layers", "Give so many layers the weights of the layer before them: those whose input and output are most alike in a calibration text.", 0, 0);

    private readonly Option<int> dropExperts = Options.Count(
        "--drop-experts", "Leave so many experts out of every mixture: those that a calibration text is sent to least.", 0, 0);

    private readonly Option<int> mergeExperts = Options.Count(
        "--merge-experts", "Merge so many experts of every mixture, those that a calibration text is sent to least, into those whose router logits are most alike.", 0, 0);

    private readonly Option<double> dropHeads = Options.Number(
        "--drop-heads", "Leave so many attention heads out of every layer, or a part of them such as 0.25: key-value heads with the query heads that share them, those that "
        + "contribute least to a calibration text.", 0.0, "N|PART");

    private readonly Option<double> narrow = Options.Number(
        "--narrow", "Leave out a part of the inner neurons of every feed-forward, such as 0.25: those that contribute least to a calibration text.", 0.0, "PART");

    private readonly Option<string?> calibration = new("--calibration")
    {
        Description = "A text, UTF-8, that calibrated methods run through the model.",
        HelpName = "FILE",
    };

    private readonly Option<int> calibrationTokens = Options.Count(
        "--calibration-tokens", "Tokens of it, in sequences spread over the text.", UsualTokens, 1);

    private readonly Option<int> layersPerPass = Options.Count(
        "--layers-per-pass", "Layers that one pass over the calibration text serves: more is faster, takes more memory, and is less exact.", 1, 1);

    private readonly Option<string?> perplexity = new("--perplexity")
    {
        Description = "A text, UTF-8, to measure the perplexity on before and after; without it the last tenth of the calibration text, which is then not calibrated with.",
        HelpName = "FILE",
    };

    private readonly Option<int?> chunks = Options.OptionalCount("--chunks", "Chunks of it to score; without it all.", 1);

    public static Command Create() => new CompressCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("compress", "Make a smaller checkpoint: prune, quantize, or leave parts out.")
        {
            model, output, prune, criterion, quantize, method, actOrder, dropLayers, shareLayers, dropExperts, mergeExperts, dropHeads, narrow, calibration, calibrationTokens, layersPerPass, perplexity, chunks, threads, json,
        };
        command.SetAction((parse, cancellationToken) => Task.FromResult(Run(parse, cancellationToken)));
        return command;
    }

    private int Run(ParseResult parse, CancellationToken cancellationToken)
    {
        CompressionOptions options = Read(parse);
        string source = DefaultModel.Resolve(parse.GetValue(model)), target = parse.GetValue(output)!;
        string? calibrationFile = parse.GetValue(calibration), perplexityFile = parse.GetValue(perplexity);
        string? calibrationText = calibrationFile is null ? null : Terminal.ReadFile(calibrationFile);
        string? perplexityText = perplexityFile is null ? null : Terminal.ReadFile(perplexityFile);
        CompressionTexts texts = new([], []);
        Perplexity? before = null;
        if (calibrationText is not null || perplexityText is not null)
        {
            using LoadedModel dense = LoadedModel.Load(source, Loading(parse), cancellationToken);
            texts = Cut(dense.Model, calibrationText, perplexityText, parse.GetValue(calibrationTokens), parse.GetValue(chunks));
            before = texts.Scored.Count == 0 ? null : Measure(dense.Model, texts.Scored, "before", cancellationToken);
        }
        ModelCompressor? opened = null;
        WithBar(task => opened = ModelCompressor.Open(
            source, target, options, texts.Calibration, parse.GetValue(threads), new Report(task), cancellationToken));
        using ModelCompressor compressor = opened!;
        WithBar(task => compressor.Run(new Report(task), cancellationToken));
        compressor.Write(cancellationToken);
        Perplexity? after = null;
        if (before is not null)
        {
            using LoadedModel compressed = LoadedModel.Load(target, Loading(parse), cancellationToken);
            after = Measure(compressed.Model, texts.Scored, "after", cancellationToken);
        }
        Print(parse.GetValue(json), new CompressResult(
            source, target, options.ToString(), SizeOf(source), SizeOf(target), PerplexityPart.Of(before), PerplexityPart.Of(after)));
        return ExitCode.Success;
    }

    /// <summary>The options, with defaults that depend on whether there is a text.</summary>
    /// <exception cref="UsageException">They do not go together.</exception>
    private CompressionOptions Read(ParseResult parse)
    {
        bool calibrates = parse.GetValue(calibration) is not null;
        string? pruned = parse.GetValue(prune), format = parse.GetValue(quantize);
        SparsityPattern? pattern = null;
        IntegerFormat? integers = null;
        UsageException.Check(() => pattern = pruned is null ? null : SparsityPattern.Parse(pruned));
        bool isInteger = format?.StartsWith("int", StringComparison.OrdinalIgnoreCase) == true;
        UsageException.Check(() => integers = isInteger ? IntegerFormat.Parse(format!) : null);
        QuantizationRecipe? gguf = format is null || isInteger ? null : ConvertCommand.Recipe(format, quantize.Name);
        bool hasCodes = gguf is not null && CompressionOptions.HasCodes(gguf);
        CompressionOptions options = new()
        {
            Prune = pattern,
            Criterion = parse.GetValue(criterion) ?? (calibrates && pattern is not null ? PruningCriterion.SparseGpt : PruningCriterion.Magnitude),
            Quantize = integers,
            Method = parse.GetValue(method) ?? (calibrates && (isInteger || hasCodes) ? RoundingMethod.Gptq : RoundingMethod.Rtn),
            ActOrder = parse.GetValue(actOrder),
            Gguf = gguf,
            DropLayers = parse.GetValue(dropLayers),
            ShareLayers = parse.GetValue(shareLayers),
            DropExperts = parse.GetValue(dropExperts),
            MergeExperts = parse.GetValue(mergeExperts),
            DropHeads = parse.GetValue(dropHeads),
            Narrow = parse.GetValue(narrow),
            LayersPerPass = parse.GetValue(layersPerPass),
        };
        UsageException.Check(options.Validate);
        bool uses = options.NeedsCalibration || options.ChangesStructure;
        if (uses && !calibrates)
        {
            Option asked = options.Method == RoundingMethod.Gptq ? method : options.NeedsCalibration ? criterion
                : ((Option[])[dropLayers, shareLayers, dropExperts, mergeExperts, dropHeads, narrow]).First(option => parse.GetResult(option) is { Implicit: false });
            throw new UsageException($"{asked.Name}: needs a text to calibrate with, {calibration.Name} FILE");
        }
        foreach ((Option option, bool isUsed) in (ReadOnlySpan<(Option, bool)>)[(calibrationTokens, uses), (layersPerPass, options.NeedsCalibration)])
        {
            if (!isUsed && parse.GetResult(option) is { Implicit: false })
            {
                throw new UsageException($"{option.Name}: belongs to methods that calibrate, and none is asked for");
            }
        }
        if (parse.GetValue(chunks) is not null && !calibrates && parse.GetValue(perplexity) is null)
        {
            throw new UsageException($"{chunks.Name}: belongs to {perplexity.Name} or {calibration.Name}");
        }
        return options;
    }

    private LanguageModelOptions Loading(ParseResult parse) => new() { Threads = parse.GetValue(threads) };

    /// <summary>Sequences to calibrate with, spread evenly, and chunks to score.</summary>
    private CompressionTexts Cut(LanguageModel model, string? calibrationText, string? perplexityText, int tokens, int? most)
    {
        Tokenizer tokenizer = model.Tokenizer;
        int[] ids = calibrationText is null ? [] : Perplexity.Encode(tokenizer, calibrationText);
        int scoredFrom = perplexityText is null ? ids.Length - ids.Length / 10 : ids.Length;
        int[] scoredIds = perplexityText is null ? ids[scoredFrom..] : Perplexity.Encode(tokenizer, perplexityText);
        int length = Math.Min(Math.Min(LongestSequence, model.ContextLength), Math.Max(1, Math.Min(tokens, scoredFrom)));
        int[][] sequences = [.. Perplexity.Chunks(tokenizer, ids[..scoredFrom], length)];
        int wanted = Math.Min((tokens + length - 1) / length, sequences.Length);
        IEnumerable<int[]> chosen = Enumerable.Range(0, wanted).Select(i => sequences[(int)((long)i * sequences.Length / wanted)]);
        List<int[]> scored = [.. Perplexity.Chunks(tokenizer, scoredIds, Perplexity.ContextOf(model.ContextLength)).Take(most ?? int.MaxValue)];
        if (scored.Count == 0 && perplexityText is not null)
        {
            throw new EngineException(
                $"expected at least one chunk of {Perplexity.ContextOf(model.ContextLength)} tokens, found {scoredIds.Length} tokens", item: perplexity.Name);
        }
        return new CompressionTexts([.. chosen], scored);
    }

    private static Perplexity Measure(LanguageModel model, IReadOnlyList<int[]> scored, string stage, CancellationToken cancellationToken)
    {
        Perplexity measured = new();
        WithBar(task =>
        {
            foreach (int[] chunk in scored)
            {
                cancellationToken.ThrowIfCancellationRequested();
                measured.Add(model, chunk);
                if (task is not null)
                {
                    task.Description = $"perplexity {stage}: {measured.Value:F4}";
                    task.Increment(1.0 / scored.Count);
                }
            }
        });
        return measured;
    }

    /// <summary>Where standard error is a terminal, with a bar; null where there is none.</summary>
    private static void WithBar(Action<ProgressTask?> work)
    {
        if (Console.IsErrorRedirected)
        {
            work(null);
            return;
        }
        Terminal.Error.Progress().AutoClear(true).HideCompleted(true).Start(context => work(context.AddTask("compressing", maxValue: 1)));
    }

    private static long SizeOf(string path) => Directory.Exists(path)
        ? new DirectoryInfo(path).EnumerateFiles("*.safetensors").Sum(static file => file.Length)
        : new FileInfo(path).Length;

    private static void Print(bool asJson, CompressResult result)
    {
        if (asJson)
        {
            Terminal.WriteJson(result, HostJson.Default.CompressResult);
            return;
        }
        Console.Out.WriteLine($"{result.Path}: {result.Bytes / 1e6:F1} MB of {result.SourceBytes / 1e6:F1} MB");
        if (result is { Before: { } before, After: { } after })
        {
            Console.Out.WriteLine(
                $"perplexity {after.Value:F4} ± {after.StandardError:F4}, before {before.Value:F4} ± {before.StandardError:F4} ({after.ScoredTokens} tokens)");
        }
        Terminal.Note(result.Options);
    }

    private sealed record CompressionTexts(IReadOnlyList<int[]> Calibration, IReadOnlyList<int[]> Scored);

    /// <summary>Unlike <see cref="Progress{T}"/>, on the calling thread.</summary>
    private sealed class Report(ProgressTask? task) : IProgress<CompressionProgress>
    {
        void IProgress<CompressionProgress>.Report(CompressionProgress value)
        {
            if (task is not null)
            {
                (task.Description, task.Value) = (value.Stage, value.Fraction);
            }
        }
    }
}

/// <summary>What <c>compress --json</c> prints.</summary>
/// <param name="Source">What was read.</param>
/// <param name="Path">What was written.</param>
/// <param name="Options">What was done.</param>
/// <param name="SourceBytes">Size of the weights that were read.</param>
/// <param name="Bytes">Size of those that were written.</param>
/// <param name="Before">Perplexity of the source; absent without a text.</param>
/// <param name="After">Perplexity of what was written.</param>
internal sealed record CompressResult(
    string Source, string Path, string Options, long SourceBytes, long Bytes, PerplexityPart? Before, PerplexityPart? After);

/// <summary>A perplexity.</summary>
/// <param name="Value">The value.</param>
/// <param name="StandardError">Its standard error.</param>
/// <param name="ScoredTokens">Tokens scored.</param>
internal sealed record PerplexityPart(double Value, double StandardError, int ScoredTokens)
{
    public static PerplexityPart? Of(Perplexity? measured) =>
        measured is null ? null : new PerplexityPart(measured.Value, measured.StandardError, measured.Count);
}
