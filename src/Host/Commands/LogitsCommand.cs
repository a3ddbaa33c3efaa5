using System.CommandLine;
using System.Numerics.Tensors;
using Engine;
using Engine.Execution;
using Host.CommandLine;
using Spectre.Console;

namespace Host.Commands;

/// <summary>
/// <c>logits</c>: the model's raw output, for comparison with other engines. Keys and values are float32 unless told otherwise.
/// </summary>
internal sealed class LogitsCommand
{
    private readonly ModelOptionSet model = new(KvFormat.F32);
    private readonly Option<int[]?> ids = Options.Ids("--ids", "Token ids of the prompt, fed at once.");
    private readonly Option<int[]?> decode = Options.Ids("--decode", "Token ids that are fed after it, one at a time.");
    private readonly Option<bool> json = Options.Json();

    public static Command Create() => new LogitsCommand().ToCommand();

    private Command ToCommand()
    {
        ids.Required = true;
        Command command = new(
            "logits",
            "Print the logits after each token. --json: {prefill: [prompt ids][vocabulary], decode: [decode ids][vocabulary]}, and where the model "
                + "routes tokens to depths depth: {prefill: [prompt ids], decode: [decode ids]}.") { ids, decode };
        model.AddTo(command);
        command.Add(json);
        command.SetAction((parse, cancellationToken) => Task.FromResult(Run(parse, cancellationToken)));
        return command;
    }

    private int Run(ParseResult parse, CancellationToken cancellationToken)
    {
        int[] prompt = parse.GetIds(ids)!;
        int[] next = parse.GetIds(decode) ?? [];
        using LoadedModel loaded = model.Load(parse, cancellationToken);
        using LogitsSession session = loaded.Model.CreateLogitsSession(loaded.Streams);

        float[][] prefill = new float[prompt.Length][];
        session.Feed(prompt, 0, (position, logits) => prefill[position] = Checked(logits, position));
        float[][] decoded = new float[next.Length][];
        for (int i = 0; i < next.Length; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            decoded[i] = Checked(session.Feed(next[i]), prompt.Length + i);
        }

        bool routes = loaded.Model.Plan.Layers.Recursion?.Router is not null;
        int[]? depths = routes ? [.. session.Depths] : null;
        if (parse.GetValue(json))
        {
            DepthsResult? depth = depths is null ? null : new DepthsResult(depths[..prompt.Length], depths[prompt.Length..]);
            Terminal.WriteJson(new LogitsResult(prefill, decoded, depth), HostJson.Default.LogitsResult);
        }
        else
        {
            Print([.. prompt, .. next], [.. prefill, .. decoded], depths);
        }
        return ExitCode.Success;
    }

    /// <summary>A copy of a row. JSON has no NaN or infinity, and no model should have.</summary>
    private static float[] Checked(ReadOnlySpan<float> logits, int position) =>
        TensorPrimitives.IsFiniteAll(logits)
            ? logits.ToArray()
            : throw new EngineException("the model computed NaN or infinity", item: $"logits at position {position}");

    private static void Print(int[] ids, float[][] logits, int[]? depths)
    {
        const int Likeliest = 5;
        Table table = new Table().AddColumns(["position", "id", .. depths is null ? Array.Empty<string>() : ["depth"]])
            .AddColumn($"likeliest {Likeliest}: id (logit)");
        for (int i = 0; i < ids.Length; i++)
        {
            float[] row = logits[i];
            IEnumerable<string> top = Enumerable.Range(0,
                row.Length).OrderByDescending(id => row[id]).Take(Likeliest).Select(id => $"{id} ({row[id]:F4})");
            table.AddRow([$"{i}", $"{ids[i]}", .. depths is null ? Array.Empty<string>() : [$"{depths[i]}"], string.Join("  ", top)]);
        }
        Terminal.Out.Write(table);
    }
}

/// <summary>What <c>logits --json</c> prints.</summary>
/// <param name="Prefill">[prompt ids][vocabulary].</param>
/// <param name="Decode">[decode ids][vocabulary].</param>
/// <param name="Depth">How deep each token went; absent where the model does not route tokens to depths.</param>
internal sealed record LogitsResult(float[][] Prefill, float[][] Decode, DepthsResult? Depth);

/// <summary>Recursions that tokens went through, from 1.</summary>
/// <param name="Prefill">[prompt ids].</param>
/// <param name="Decode">[decode ids].</param>
internal sealed record DepthsResult(int[] Prefill, int[] Decode);
