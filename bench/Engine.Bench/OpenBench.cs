using System.Diagnostics;
using Engine.Checkpoints;

namespace Engine.Bench;

/// <summary>How long opening takes, before any weight is touched: the first time in this process, and after.</summary>
internal static class OpenBench
{
    private const int Repetitions = 20;

    public static void Run(string[] paths)
    {
        foreach (string path in paths)
        {
            double first = Measure(path, out int tensors, out long bytes);
            double[] again = [.. Enumerable.Range(0, Repetitions).Select(_ => Measure(path, out int _, out long _)).Order()];
            Console.WriteLine(
                $"{path}: {bytes / 1e9:F2} GB in {tensors} tensors; {first:F1} ms the first time, then {again[Repetitions / 2]:F1} ms "
                + $"(median of {Repetitions})");
        }
    }

    private static double Measure(string path, out int tensors, out long bytes)
    {
        long start = Stopwatch.GetTimestamp();
        using Checkpoint checkpoint = CheckpointFile.Open(path);
        double elapsed = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        tensors = checkpoint.TensorNames.Count;
        bytes = checkpoint.TensorNames.Sum(name => checkpoint[name].ByteLength);
        return elapsed;
    }
}
