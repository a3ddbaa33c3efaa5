using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Bench;

/// <summary>
/// This engine and its peers on the same file, with the same threads, in turn: every repetition runs each engine once, so that a machine whose speed drifts
/// slows all of them. Prints a Markdown table of medians and of ratios to the fastest peer.
/// </summary>
internal static class Peers
{
    private const int PromptTokens = 512;
    private const int GeneratedTokens = 64;

    // Of each process, which warms up first: so many runs, of which our figure is the median and that of llama-bench the mean.
    private const int Runs = 3;

    /// <summary>
    /// <c>peers --host Host.dll[,extra,arguments] --peer name=path/to/llama-bench[,extra,arguments] … --model FILE … -t 1,2 -r 3</c>
    /// </summary>
    public static int Run(string[] arguments)
    {
        List<Engine> engines = [];
        List<string> models = [];
        int[] threads = [1, 2];
        int repetitions = 3;
        for (int i = 0; i + 1 < arguments.Length; i += 2)
        {
            string value = arguments[i + 1];
            switch (arguments[i])
            {
                case "--host": engines.Insert(0, ParseHost(value)); break;
                case "--peer": engines.Add(ParsePeer(value)); break;
                case "--model": models.Add(value); break;
                case "-t": threads = [.. value.Split(',').Select(int.Parse)]; break;
                case "-r": repetitions = int.Parse(value); break;
                default: return Usage($"unknown option {arguments[i]}");
            }
        }
        if (engines.Count == 0 || models.Count == 0)
        {
            return Usage("--host or --peer, and --model are needed");
        }

        Console.WriteLine($"| model | threads | what | {string.Join(" | ", engines.Select(static engine => engine.Name))} | ours / best peer |");
        Console.WriteLine($"|---|---|---|{string.Concat(Enumerable.Repeat("---|", engines.Count + 1))}");
        foreach (string model in models)
        {
            foreach (int count in threads)
            {
                Compare(engines, model, count, repetitions);
            }
        }
        return 0;
    }

    private static void Compare(List<Engine> engines, string model, int threads, int repetitions)
    {
        List<Speed>[] speeds = [.. engines.Select(static _ => new List<Speed>())];
        for (int r = 0; r < repetitions; r++)
        {
            for (int e = 0; e < engines.Count; e++)
            {
                speeds[e].Add(Measure(engines[e], model, threads));
            }
        }
        Print("prefill", [.. speeds.Select(static runs => Median(runs.Select(static run => run.Prefill)))]);
        Print("decode", [.. speeds.Select(static runs => Median(runs.Select(static run => run.Decode)))]);

        void Print(string what, double[] medians)
        {
            string cells = string.Join(" | ", medians.Select(static median => median.ToString("F1", CultureInfo.InvariantCulture)));
            string ratio = medians.Length > 1 ? (medians[0] / medians.Skip(1).Max()).ToString("F2", CultureInfo.InvariantCulture) : "";
            Console.WriteLine($"| {Path.GetFileNameWithoutExtension(model)} | {threads} | {what} | {cells} | {ratio} |");
        }
    }

    private static Speed Measure(Engine engine, string model, int threads)
    {
        bool ours = engine.Command == "dotnet";
        string[] common = ["-m", model, "-t", $"{threads}", "-p", $"{PromptTokens}", "-n", $"{GeneratedTokens}", "-r", $"{Runs}"];
        ProcessStartInfo start = new(engine.Command, [.. engine.Arguments, .. common])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{engine.Name} ended with {process.ExitCode}: {errors.Result}");
        }
        JsonNode result = JsonNode.Parse(output[output.IndexOfAny(['[', '{'])..]) ?? throw new JsonException($"{engine.Name} printed no JSON");
        if (ours)
        {
            JsonNode run = result["runs"]![0]!;
            return new Speed((double)run["prompt_tokens_per_second"]!["median"]!, (double)run["generation_tokens_per_second"]!["median"]!);
        }
        return new Speed(
            (double)result.AsArray().First(static run => (int)run!["n_gen"]! == 0)!["avg_ts"]!,
            (double)result.AsArray().First(static run => (int)run!["n_prompt"]! == 0)!["avg_ts"]!);
    }

    private static Engine ParseHost(string value)
    {
        string[] command = value.Split(',');
        return new Engine("ours", "dotnet", [command[0], "bench", "--json", .. command[1..]]);
    }

    private static Engine ParsePeer(string value)
    {
        int equals = value.IndexOf('=');
        string[] command = value[(equals + 1)..].Split(',');
        return new Engine(value[..equals], command[0], [.. command[1..], "-o", "json"]);
    }

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static int Usage(string problem)
    {
        Console.Error.WriteLine($"{problem}\nusage: peers --host Host.dll[,argument…] --peer name=llama-bench[,argument…] --model FILE [-t 1,2] [-r 3]");
        return 2;
    }

    private sealed record Engine(string Name, string Command, string[] Arguments);

    private readonly record struct Speed(double Prefill, double Decode);
}
