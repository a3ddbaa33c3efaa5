using System.CommandLine;
using System.Diagnostics;
using Engine;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;
using Host.CommandLine;
using Host.Measuring;
using Spectre.Console;

namespace Host.Commands;

/// <summary><c>bench</c>: how fast a model runs here, and how near that is to what the memory allows.</summary>
internal sealed class BenchCommand
{
    private const int DefaultPrompt = 512, DefaultGeneration = 64, DefaultRepetitions = 3, DefaultCurve = 256;

    private readonly Option<string[]> model = new("--model", "-m")
    {
        Description = $"{Options.Model().Description} Several are measured in turns and compared with the first.",
        HelpName = "PATH",
    };

    private readonly Option<int[]?> threads = Options.Ids("--threads", "Thread counts to measure; without it one per processor.", "-t");
    private readonly Option<int?> prompt = Options.OptionalCount("--prompt", $"Prompt tokens; {DefaultPrompt} where they fit.", 0, "-p");
    private readonly Option<int?> tokens = Options.OptionalCount("--tokens",
        $"Tokens to generate; {DefaultGeneration} where they fit.", 0, "-n");
    private readonly Option<int> repetitions = Options.Count("--repetitions", "Runs of each, after one that is not counted.",
        DefaultRepetitions, 1, "-r");
    private readonly Option<KvFormat> kv = Options.Kv(KvFormat.F16);
    private readonly Option<ActivationPrecision> activations = Options.Activations();
    private readonly Option<string?> quantize = Options.Quantize();
    private readonly ExpertOptionSet experts = new();
    private readonly Option<bool> json = Options.Json();

    private readonly Option<int[]?> batch = Options.Ids(
        "--batch", "Measure continuous batching with this many requests outstanding; several counts are measured one after the other.", "-b");

    private readonly Option<int> meanLength = Options.Count(
        "--mean-length", "Mean length of what --batch generates; lengths vary by a quarter of it.", 256, 1);

    private readonly Option<int[]?> kvBytes = Options.Ids(
        "--kv-bytes", "Bytes of keys and values that may be held, for all models or one value for each: what fits of --batch runs.");

    private readonly Option<bool> depthCurve = new("--depth-curve")
    {
        Description = "Measure the time of a token against the depth that a Mixture-of-Recursions model gives it.",
    };

    private readonly Option<string?> synthetic = new("--synthetic")
    {
        Description = $"Instead of measuring, write random weights, so that every engine can read the same: {SyntheticFile.Shapes}.",
        HelpName = "SHAPE[:FORMAT[:ZEROS]]",
    };

    private readonly Option<string?> output = new("--out", "-o")
    {
        Description = "The file or folder that --synthetic writes.",
        HelpName = "PATH",
    };

    public static Command Create() => new BenchCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("bench", "Measure speed, memory and bandwidth.")
        {
            model, threads, prompt, tokens, repetitions, kv, activations, quantize, batch, meanLength, kvBytes, depthCurve, json, synthetic, output,
        };
        foreach (Option option in experts.All)
        {
            command.Add(option);
        }
        command.SetAction(RunAsync);
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse, CancellationToken cancellationToken)
    {
        if ((parse.GetValue(synthetic) is null) != (parse.GetValue(output) is null))
        {
            throw new UsageException("--synthetic and --out belong together");
        }
        if (parse.GetValue(synthetic) is { } shape)
        {
            return SyntheticFile.Write(shape, parse.GetValue(output)!, parse.GetValue(json), cancellationToken);
        }
        if (Comparison(parse) is { } comparison)
        {
            await comparison(cancellationToken).ConfigureAwait(false);
            return ExitCode.Success;
        }
        BenchResult result = await MeasureAsync(parse, cancellationToken).ConfigureAwait(false);
        if (parse.GetValue(json))
        {
            Terminal.WriteJson(result, HostJson.Default.BenchResult);
        }
        else
        {
            Print(result);
        }
        return ExitCode.Success;
    }

    /// <summary>What is measured with one number of threads and perhaps several models; null for the usual table.</summary>
    private Func<CancellationToken, Task>? Comparison(ParseResult parse)
    {
        string[] paths = DefaultModel.Resolve(parse.GetValue(model));
        int[]? batches = parse.GetIds(batch), budgets = parse.GetIds(kvBytes), counts = parse.GetIds(threads);
        bool curve = parse.GetValue(depthCurve);
        if (batches is null && !curve && paths.Length == 1)
        {
            return budgets is null ? null : throw new UsageException("--kv-bytes belongs to --batch");
        }
        if (batches?.Any(static count => count is < 1 or > 4096) == true)
        {
            throw new UsageException("--batch: expected numbers from 1 to 4096");
        }
        if (batches is not null && curve)
        {
            throw new UsageException("--batch and --depth-curve are two measurements; choose one");
        }
        if (counts is { Length: > 1 })
        {
            throw new UsageException("--threads: expected one number where models are compared");
        }
        if (budgets is not null && budgets.Length != 1 && budgets.Length != paths.Length)
        {
            throw new UsageException($"--kv-bytes: expected one number, or one for each of {paths.Length} models; found {budgets.Length}");
        }
        ModelComparison setup = new()
        {
            Paths = paths,
            Options = ModelOptions(parse, counts?[0]),
            Require = experts.Needs(parse),
            KvBytes = budgets,
            Repetitions = parse.GetValue(repetitions),
            Json = parse.GetValue(json),
        };
        int count = parse.GetValue(tokens) ?? DefaultGeneration;
        return batches is not null ? cancellation => BatchBench.RunAsync(setup, batches, count, parse.GetValue(meanLength), cancellation)
            : curve ? cancellation => DepthBench.RunAsync(setup, parse.GetValue(tokens) ?? DefaultCurve, cancellation)
            : cancellation => LatencyBench.RunAsync(setup, parse.GetValue(prompt) ?? 0, count, cancellation);
    }

    private async Task<BenchResult> MeasureAsync(ParseResult parse, CancellationToken cancellationToken)
    {
        int[] counts = parse.GetIds(threads) ?? [Environment.ProcessorCount];
        foreach (int count in counts)
        {
            UsageException.Check(new LanguageModelOptions { Threads = count }.Validate);
        }
        string path = DefaultModel.Resolve(parse.GetValue(model) is { Length: > 0 } given ? given[0] : null);
        List<BenchRun> runs = [];
        BenchModel? description = null;
        foreach (int count in counts)
        {
            cancellationToken.ThrowIfCancellationRequested();
            LanguageModelOptions options = ModelOptions(parse, count);
            using LoadedModel loaded = LoadedModel.Load(path, options, cancellationToken, experts.Needs(parse));
            description ??= BenchModel.Describe(path, loaded.Model, options);
            runs.Add(await RunAsync(loaded, parse, count, cancellationToken).ConfigureAwait(false));
        }
        // The bandwidth test needs much memory of its own, so the peak is read before it.
        long peak = ProcessMemory.Peak;
        for (int i = 0; i < runs.Count; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            double bandwidth = MemoryBandwidth.Measure(runs[i].Threads);
            double active = description!.WeightBytesPerToken;
            if (description.Experts is { } mixtures && runs[i].ExpertBytesPerToken is { } read)
            {
                active = mixtures.DenseBytesPerToken + read;
            }
            double? used = runs[i].GenerationTokensPerSecond?.Median * active;
            runs[i] = runs[i] with { MemoryBytesPerSecond = bandwidth, BandwidthFraction = used / bandwidth };
        }
        return new BenchResult(description!, runs, peak);
    }

    private LanguageModelOptions ModelOptions(ParseResult parse, int? threadCount) => experts.Apply(parse, new LanguageModelOptions
    {
        Threads = threadCount,
        KvFormat = parse.GetValue(kv),
        ActivationPrecision = parse.GetValue(activations),
        Quantize = parse.GetValue(quantize),
    });

    private async Task<BenchRun> RunAsync(LoadedModel loaded, ParseResult parse, int threadCount, CancellationToken cancellationToken)
    {
        LanguageModel languageModel = loaded.Model;
        int promptTokens = parse.GetValue(prompt) ?? Math.Min(DefaultPrompt, languageModel.ContextLength);
        // A generation is one token to begin with, one that is not timed, and those that are.
        int room = Math.Max(0, languageModel.ContextLength - 2);
        int generated = parse.GetValue(tokens) ?? Math.Min(DefaultGeneration, room);
        if (promptTokens > languageModel.ContextLength || generated > room)
        {
            throw new EngineException(
                $"{promptTokens} prompt tokens or {generated} generated ones do not fit the context of {languageModel.ContextLength}");
        }
        Random random = new(1);
        List<double> promptSpeeds = [], generationSpeeds = [];
        long expertsRead = 0, expertBytes = 0, generatedTokens = 0;
        for (int run = -1; run < parse.GetValue(repetitions); run++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            double promptSpeed = promptTokens == 0 ? 0 : Throughput.Prompt(languageModel, promptTokens, random);
            WorkDone before = languageModel.Work;
            double generationSpeed =
                generated == 0 ? 0 : await Throughput.GenerationAsync(languageModel, generated, random,
                    cancellationToken).ConfigureAwait(false);
            if (run >= 0)
            {
                promptSpeeds.Add(promptSpeed);
                generationSpeeds.Add(generationSpeed);
                WorkDone after = languageModel.Work;
                expertsRead += after.Experts.Slots - before.Experts.Slots;
                expertBytes += after.Experts.Bytes - before.Experts.Bytes;
                generatedTokens += after.Tokens - before.Tokens;
            }
        }
        bool visits = generated > 0 && languageModel.Plan.Experts().Any();
        return new BenchRun(
            threadCount, languageModel.BackendDescription, loaded.LoadTime.TotalMilliseconds,
            promptTokens, promptTokens == 0 ? null : Spread.Of(promptSpeeds),
            generated, generated == 0 ? null : Spread.Of(generationSpeeds), 0, null,
            visits ? (double)expertsRead / generatedTokens : null, visits ? (double)expertBytes / generatedTokens : null);
    }

    private static void Print(BenchResult result)
    {
        BenchModel model = result.Model;
        string parts = model.Experts is not { } experts ? ""
            : $": {experts.DenseBytesPerToken / 1e6:F1} MB dense, {experts.ExpertBytesPerToken / 1e6:F1} of {experts.ExpertBytes / 1e6:F1} MB of experts";
        Console.Out.WriteLine($"{model.Path}: {model.Family}, {model.WeightBytesPerToken / 1e6:F1} MB of weights per token{parts}");
        Table table = new Table().AddColumns(
            ["threads", "load ms", "prompt tokens/s", "generation tokens/s", .. model.Experts is null ? Array.Empty<string>() : ["experts/token", "MB/token"], "memory GB/s", "reached"]);
        foreach (BenchRun run in result.Runs)
        {
            string[] visits = model.Experts is null ? []
                : [$"{run.ExpertsPerToken:F1}", $"{(model.Experts.DenseBytesPerToken + run.ExpertBytesPerToken) / 1e6:F1}"];
            table.AddRow(
                [$"{run.Threads}", $"{run.LoadMs:F0}", Cell(run.PromptTokens, run.PromptTokensPerSecond),
                Cell(run.GeneratedTokens, run.GenerationTokensPerSecond), .. visits, $"{run.MemoryBytesPerSecond / 1e9:F1}",
                $"{run.BandwidthFraction:P0}"]);
        }
        Terminal.Out.Write(table);
        Console.Out.WriteLine($"peak memory {result.PeakMemoryBytes / 1e6:F0} MB; {result.Runs[^1].Backend}");

        static string Cell(int tokens, Spread? spread) =>
            spread is null ? "" : $"{tokens}: {spread.Median:F1} ({spread.Min:F1} … {spread.Max:F1})";
    }
}

/// <summary>What <c>bench --json</c> prints.</summary>
/// <param name="Model">What was measured.</param>
/// <param name="Runs">One for each number of threads.</param>
/// <param name="PeakMemoryBytes">The most physical memory in use at once, the mapped file included, before the bandwidth test.</param>
internal sealed record BenchResult(BenchModel Model, IReadOnlyList<BenchRun> Runs, long PeakMemoryBytes);

/// <summary>The model of a benchmark.</summary>
/// <param name="Path">Where it came from.</param>
/// <param name="Family">Its family.</param>
/// <param name="WeightBytes">Packed weights in memory after loading.</param>
/// <param name="WeightBytesPerToken">Stored weights that one decoded token reads; of mixtures, the experts that it is sent to.</param>
/// <param name="FileBytes">Bytes of all tensors in the checkpoint.</param>
/// <param name="Experts">What is read of mixtures of experts, where the model has them.</param>
internal sealed record BenchModel(
    string Path, string Family, long WeightBytes, long WeightBytesPerToken, long FileBytes, BenchExperts? Experts)
{
    public static BenchModel Describe(string path, LanguageModel model, LanguageModelOptions options)
    {
        using Checkpoint checkpoint = CheckpointFile.Open(path);
        QuantizationRecipe? recipe = options.Quantize is null ? null : QuantizationRecipe.Named(options.Quantize);
        Checkpoint compacted = CompactedCheckpoint.Apply(checkpoint, recipe);
        QuantizedCheckpoint? quantized = recipe is null ? null : new(compacted, recipe);
        WeightBytes sizes = new(compacted, tensor => quantized?.TypeOf(tensor.Name) ?? tensor.DType);
        long dense = WeightTraffic.DenseBytesPerToken(model.Plan, sizes);
        long experts = WeightTraffic.ExpertBytesPerToken(model.Plan, sizes, options.ExpertsPerToken);
        return new BenchModel(
            path, model.Plan.Family, model.WeightBytes, dense + experts, checkpoint.TensorNames.Sum(name => checkpoint[name].ByteLength),
            model.Plan.Experts().Any() ? new BenchExperts(sizes.Totals(model.Plan).Experts, experts, dense) : null);
    }
}

/// <summary>Weights of a model with mixtures of experts.</summary>
/// <param name="ExpertBytes">All experts.</param>
/// <param name="ExpertBytesPerToken">Those that a token is sent to, going by the plan; shared ones included.</param>
/// <param name="DenseBytesPerToken">Everything else that a token reads.</param>
internal sealed record BenchExperts(long ExpertBytes, long ExpertBytesPerToken, long DenseBytesPerToken);

/// <summary>Measurements with a number of threads; speeds are tokens per second.</summary>
/// <param name="Threads">Threads.</param>
/// <param name="Backend">Device, instruction set, threads, and whether activations are rounded.</param>
/// <param name="LoadMs">Loading the model.</param>
/// <param name="PromptTokens">Tokens of a prompt.</param>
/// <param name="PromptTokensPerSecond">Speed of prompts, or absent.</param>
/// <param name="GeneratedTokens">Tokens of a generation.</param>
/// <param name="GenerationTokensPerSecond">Speed of generation, or absent.</param>
/// <param name="MemoryBytesPerSecond">Measured read bandwidth with as many threads.</param>
/// <param name="BandwidthFraction">Median generation speed × weight bytes per token, of experts those that were read, / bandwidth.</param>
/// <param name="ExpertsPerToken">Experts read per generated token, summed over the layers, shared ones included; absent without experts.</param>
/// <param name="ExpertBytesPerToken">Their bytes.</param>
internal sealed record BenchRun(
    int Threads,
    string Backend,
    double LoadMs,
    int PromptTokens,
    Spread? PromptTokensPerSecond,
    int GeneratedTokens,
    Spread? GenerationTokensPerSecond,
    double MemoryBytesPerSecond,
    double? BandwidthFraction,
    double? ExpertsPerToken,
    double? ExpertBytesPerToken);
