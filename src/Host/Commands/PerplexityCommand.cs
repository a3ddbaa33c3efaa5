using System.CommandLine;
using System.Diagnostics;
using Engine;
using Engine.Text;
using Host.CommandLine;
using Host.Measuring;

namespace Host.Commands;

/// <summary><c>perplexity</c>: how well the model predicts a text.</summary>
internal sealed class PerplexityCommand
{
    private readonly ModelOptionSet model;
    private readonly Option<bool> json = Options.Json();
    private readonly Option<string> text = new("--text", "-f") { Description = "A text file, UTF-8.", HelpName = "FILE", Required = true };

    private readonly Option<int?> context = Options.OptionalCount(
        "--context", $"Tokens per chunk; without it {Perplexity.ContextOf(int.MaxValue)}, or the model's context where that is less.",
        Perplexity.SmallestContext, "-c");

    private readonly Option<int?> chunks = Options.OptionalCount("--chunks", "Chunks to score; without it all of the text.", 1);

    private PerplexityCommand() => model = new ModelOptionSet(contextOption: context);

    public static Command Create() => new PerplexityCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("perplexity", "Measure how well the model predicts a text, as llama.cpp does.")
        {
            text, chunks,
        };
        model.AddTo(command);
        command.Add(json);
        command.SetAction((parse, cancellationToken) => Task.FromResult(Run(parse, cancellationToken)));
        return command;
    }

    private int Run(ParseResult parse, CancellationToken cancellationToken)
    {
        string path = parse.GetValue(text)!;
        string content = Terminal.ReadFile(path);
        using LoadedModel loaded = model.Load(parse, cancellationToken);
        int length = parse.GetValue(context) ?? Perplexity.ContextOf(loaded.Model.ContextLength);

        Tokenizer tokenizer = loaded.Model.Tokenizer;
        int[] ids = Perplexity.Encode(tokenizer, content);
        int whole = ids.Length / length;
        if (whole == 0)
        {
            throw new EngineException($"expected at least one chunk of {length} tokens, found {ids.Length} tokens", path);
        }
        int wanted = Math.Min(parse.GetValue(chunks) ?? whole, whole);

        long start = Stopwatch.GetTimestamp();
        Perplexity perplexity = new();
        foreach ((int chunk, int[] tokens) in Perplexity.Chunks(tokenizer, ids, length).Take(wanted).Index())
        {
            cancellationToken.ThrowIfCancellationRequested();
            perplexity.Add(loaded.Model, tokens, loaded.Streams);
            if (!Console.IsErrorRedirected)
            {
                Terminal.Note($"chunk {chunk + 1} of {wanted}: {perplexity.Value:F4}");
            }
        }
        Report(parse.GetValue(json), new PerplexityResult(
            perplexity.Value, perplexity.StandardError, perplexity.NegativeLogLikelihood, wanted, length, perplexity.Count, ids.Length,
            Stopwatch.GetElapsedTime(start).TotalSeconds));
        return ExitCode.Success;
    }

    private static void Report(bool asJson, PerplexityResult result)
    {
        if (asJson)
        {
            Terminal.WriteJson(result, HostJson.Default.PerplexityResult);
        }
        else
        {
            Console.Out.WriteLine($"perplexity {result.Perplexity:F4} ± {result.StandardError:F4}");
            Terminal.Note($"{result.Chunks} chunks of {result.Context} tokens, {result.ScoredTokens} scored, {result.Seconds:F1} s");
        }
    }
}

/// <summary>What <c>perplexity --json</c> prints.</summary>
/// <param name="Perplexity">The value.</param>
/// <param name="StandardError">Its standard error.</param>
/// <param name="NegativeLogLikelihood">Mean over the scored tokens, in nats.</param>
/// <param name="Chunks">Chunks scored.</param>
/// <param name="Context">Tokens per chunk.</param>
/// <param name="ScoredTokens">Tokens scored in all.</param>
/// <param name="TextTokens">Tokens of the text.</param>
/// <param name="Seconds">Time taken, loading excluded.</param>
internal sealed record PerplexityResult(
    double Perplexity, double StandardError, double NegativeLogLikelihood, int Chunks, int Context, int ScoredTokens, int TextTokens,
        double Seconds);
