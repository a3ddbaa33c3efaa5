using System.CommandLine;
using System.Globalization;
using Engine;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Host.CommandLine;
using Host.Inspection;
using Spectre.Console;

namespace Host.Commands;

/// <summary>
/// <c>inspect</c>: what is in a checkpoint; with <c>--dump</c>, one of its tensors as float32; with <c>--routing</c>, what its experts do with a text.
/// </summary>
internal sealed class InspectCommand
{
    private readonly Option<string?> model = Options.Model();
    private readonly Option<bool> json = Options.Json();

    private readonly Option<bool> noScan = new("--no-scan")
    {
        Description = "Read names and shapes only, not the data: no sharing, no sparsity, no waiting.",
    };

    private readonly Option<string?> dump = new("--dump")
    {
        Description = "Write this tensor, dequantized to F32, instead.",
        HelpName = "TENSOR",
    };
    private readonly Option<string?> output = new("--out", "-o")
    {
        Description = "The safetensors file that --dump writes, or the picture of --routing: .svg or .png.",
        HelpName = "FILE",
    };

    private readonly RoutingInspection routing = new();

    public static Command Create() => new InspectCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("inspect", "Describe a checkpoint, and find what is shared and what is zero in it.")
        {
            model, noScan, dump, output, json,
        };
        foreach (Option option in routing.All)
        {
            command.Add(option);
        }
        command.SetAction((parse, cancellationToken) => Task.FromResult(Run(parse, cancellationToken)));
        return command;
    }

    private int Run(ParseResult parse, CancellationToken cancellationToken)
    {
        string path = DefaultModel.Resolve(parse.GetValue(model));
        string? target = parse.GetValue(output);
        if (routing.IsAsked(parse))
        {
            if (parse.GetValue(dump) is not null)
            {
                throw new UsageException("--dump and --routing are two things; choose one");
            }
            routing.Run(parse, path, target, output.Name, parse.GetValue(json), cancellationToken);
            return ExitCode.Success;
        }
        if ((parse.GetValue(dump) is null) != (target is null))
        {
            throw new UsageException(target is null ? "--dump needs --out" : "--out belongs to --dump or --routing");
        }
        using Checkpoint checkpoint = CheckpointFile.Open(path);
        if (parse.GetValue(dump) is { } name)
        {
            Dump(checkpoint, name, target!, parse.GetValue(json), cancellationToken);
            return ExitCode.Success;
        }
        InspectResult result = Inspect(checkpoint, !parse.GetValue(noScan), cancellationToken);
        if (parse.GetValue(json))
        {
            Terminal.WriteJson(result, HostJson.Default.InspectResult);
        }
        else
        {
            Print(result);
        }
        return ExitCode.Success;
    }

    private static InspectResult Inspect(Checkpoint checkpoint, bool scan, CancellationToken cancellationToken)
    {
        if (!scan || Console.IsErrorRedirected)
        {
            return CheckpointInspector.Inspect(checkpoint, scan, static _ => { }, cancellationToken);
        }
        return Terminal.Error.Progress().AutoClear(true).Start(context =>
        {
            ProgressTask task = context.AddTask("reading", maxValue: 1);
            return CheckpointInspector.Inspect(checkpoint, scan, fraction => task.Value = Math.Max(task.Value, fraction),
                cancellationToken);
        });
    }

    private static void Dump(Checkpoint checkpoint, string name, string path, bool asJson, CancellationToken cancellationToken)
    {
        TensorView tensor = Find(checkpoint, name);
        SafetensorsWriter.Write(path, [TensorSource.Convert(tensor, DType.F32)], cancellationToken: cancellationToken);
        if (asJson)
        {
            Terminal.WriteJson(new DumpResult(tensor.Name, tensor.FormatName(), tensor.Shape, path), HostJson.Default.DumpResult);
        }
        else
        {
            Console.Out.WriteLine($"{path}: {Terminal.Visible(tensor.Name)} {tensor.DescribeShape()}, from {tensor.FormatName()}");
        }
    }

    /// <summary>A GGUF file's tensors have two names, Hugging Face's and their own: either will do.</summary>
    private static TensorView Find(Checkpoint checkpoint, string name) =>
        checkpoint is GgufVocabulary gguf && !gguf.TryGetTensor(name, out _) && gguf.Source.TryGetTensor(name, out TensorView? tensor)
            ? tensor
            : checkpoint[name];

    private static void Print(InspectResult result)
    {
        Console.Out.WriteLine($"{result.Path}: {Terminal.Visible(result.Family)}, {Parameters(result.Parameters)} parameters, {result.Bytes / 1e6:F1} MB");
        if (result.Plan is { } plan)
        {
            Console.Out.WriteLine(
                $"{plan.Layers} layers ({plan.DistinctBlocks} distinct), hidden {plan.HiddenSize}, "
                + (plan.FeedForwardWidth is { } width ? $"feed-forward {width}, " : "")
                + $"heads {plan.Heads}/{plan.KvHeads} × {plan.HeadDim}, vocabulary {plan.VocabularySize}"
                + $"{(plan.TiedEmbeddings ? " (tied)" : "")}, context {plan.ContextLength}"
                + (plan.LongContextLength is { } extended ? $" (up to {extended} with --context)" : ""));
            if (plan.LayerShapes is { } shapes)
            {
                Console.Out.WriteLine(LayerShape.Describe(shapes));
            }
            if (plan.Recursion is { } recursion)
            {
                string weights = recursion.SharedBlocks ? "the same weights" : "weights that are not all the same";
                string kv = recursion.SharedKv ? "keys and values of the first time" : "keys and values of their own";
                Console.Out.WriteLine($"recursion: {recursion.Layers} {(recursion.Layers == 1 ? "layer" : "layers")} {Times(recursion)}; {weights}, {kv}");
            }
            if (plan.Streams is { } streams)
            {
                Console.Out.WriteLine($"parallel streams: {string.Join(", ", streams)}");
            }
            if (plan.RemovedNeurons > 0)
            {
                Console.Out.WriteLine($"pruned: {plan.RemovedNeurons} neurons of feed-forwards contribute nothing and are left out");
            }
            if (plan.Experts is { } experts)
            {
                Console.Out.WriteLine(
                    $"experts: {experts.BytesPerToken / 1e6:F1} MB for a token of {experts.Bytes / 1e6:F1} MB in all; with everything else "
                    + $"{(experts.BytesPerToken + experts.DenseBytesPerToken) / 1e6:F1} MB for a token");
                if (experts.RouterState is { } state)
                {
                    Console.Out.WriteLine($"routers: recurrent ({state.Cell.ToLowerInvariant()}), a state of {state.Width} goes from layer to layer");
                }
                Terminal.Out.Write(ExpertTable(experts.Layers));
            }
        }
        else
        {
            Console.Out.WriteLine($"cannot be run: {Terminal.Visible(result.Reason!)}");
        }
        Terminal.Out.Write(FormatTable(result));
        Terminal.Out.Write(TensorTable(result));
        foreach (SharedResult shared in result.Sharing ?? [])
        {
            Console.Out.WriteLine($"the same {shared.BytesEach} bytes: {Terminal.Visible(string.Join(", ", shared.Tensors))}");
        }
        if (result.Sparsity is { } sparsity)
        {
            Console.Out.WriteLine(
                $"{(result.Sharing is [] ? "no matrix is stored twice; " : "")}{sparsity.Fraction:P2} of the matrices is zero, "
                + $"{sparsity.ZeroRows} rows throughout, {sparsity.TwoOfFour.Count} matrices two of four");
        }
    }

    private static string Times(RecursionDescription recursion) => recursion.Router switch
    {
        null => $"{recursion.Depths} times",
        nameof(DepthRouterKind.ExpertChoice) => $"up to {recursion.Depths} times, each time chooses its tokens (expert choice)",
        _ => $"up to {recursion.Depths} times, each token chooses (token choice)",
    };

    /// <summary>Neighbouring layers that are alike share a row.</summary>
    private static Table ExpertTable(IReadOnlyList<LayerExperts> layers)
    {
        Table table = new Table().AddColumns("layers", "experts", "slots", "dropped", "per token", "shared", "width", "MB per token", "MB");
        for (int first = 0, end; first < layers.Count; first = end)
        {
            LayerExperts layer = layers[first];
            end = first + 1;
            while (end < layers.Count && layers[end] == layer with { Layer = layers[end].Layer } && layers[end].Layer == layers[end - 1].Layer + 1)
            {
                end++;
            }
            table.AddRow(
                end == first + 1 ? $"{layer.Layer}" : $"{layer.Layer} – {layers[end - 1].Layer}", $"{layer.Experts}",
                layer.Slots == layer.Experts - layer.Dropped ? $"{layer.Slots}" : $"{layer.Slots} (merged)", $"{layer.Dropped}", $"{layer.PerToken}",
                $"{layer.Shared}", layer.Narrowest == layer.Widest ? $"{layer.Widest}" : $"{layer.Narrowest} – {layer.Widest}",
                $"{layer.BytesPerToken / 1e6:F2}", $"{layer.Bytes / 1e6:F2}");
        }
        return table;
    }

    private static Table FormatTable(InspectResult result)
    {
        Table table = new Table().AddColumns("format", "tensors", "parameters", "MB", "bits each");
        foreach (FormatResult format in result.Formats)
        {
            table.AddRow(
                format.Format, $"{format.Tensors}", Parameters(format.Parameters), $"{format.Bytes / 1e6:F1}",
                    $"{8.0 * format.Bytes / format.Parameters:F2}");
        }
        return table;
    }

    private static Table TensorTable(InspectResult result)
    {
        Table table = new Table().AddColumns("tensor", "format", "bits", "shape", "zero", "runs as");
        foreach (TensorResult tensor in result.Tensors)
        {
            long elements = tensor.Shape.Aggregate(1L, static (product, dimension) => product * dimension);
            string zero = tensor.Zeros is not > 0 ? "" : $"{(double)tensor.Zeros / elements:P2}{(tensor.TwoOfFour == true ? " 2:4" : "")}";
            table.AddRow(
                Markup.Escape(Terminal.Visible(tensor.Name)), Markup.Escape(tensor.Format), elements == 0 ? "" : $"{8.0 * tensor.Bytes / elements:0.##}",
                Markup.Escape($"[{string.Join(", ", tensor.Shape)}]"), zero, Markup.Escape(tensor.RunsAs ?? ""));
        }
        return table;
    }

    private static string Parameters(long count) => count switch
    {
        >= 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e9:F2} B"),
        >= 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e6:F1} M"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{count / 1e3:F1} K"),
    };
}

/// <summary>What <c>inspect --dump --json</c> prints.</summary>
/// <param name="Tensor">Its name.</param>
/// <param name="Format">What it was stored in.</param>
/// <param name="Shape">Its shape.</param>
/// <param name="Path">The file written.</param>
internal sealed record DumpResult(string Tensor, string Format, long[] Shape, string Path);
