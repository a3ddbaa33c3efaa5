using System.Diagnostics;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;

namespace Engine.Bench;

/// <summary>
/// What decoding reads, format by format: one token with a matrix far larger than caches, the bytes that the engine holds over the time they take, beside the read
/// bandwidth of the same seconds. A format at the probe's rate is as fast as its bytes let it be.
/// </summary>
internal static unsafe class FormatBench
{
    private const int Inputs = 4096, Rounds = 7, ProductsInRound = 3;
    private const long Bytes = 256 << 20;

    private static readonly DType[] formats =
    [
        DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q6_K, DType.Q5_1, DType.Q5_K, DType.Q5_0, DType.Q4_1, DType.Q4_K, DType.Q4_0, DType.IQ4_NL, DType.IQ4_XS,
        DType.MXFP4, DType.NVFP4, DType.Q3_K, DType.IQ3_S, DType.IQ3_XXS, DType.Q2_K, DType.IQ2_S, DType.IQ2_XS, DType.IQ2_XXS, DType.IQ1_M, DType.IQ1_S, DType.TQ2_0,
        DType.TQ1_0, DType.Q2_0, DType.Q1_0,
    ];

    private static readonly CodedShape[] codedShapes =
    [
        new("int8 row", 8, CodeNumbers.Integer, Inputs), new("int8 g128", 8, CodeNumbers.Integer, 128), new("int4 row", 4, CodeNumbers.Integer, Inputs),
        new("int4 g128", 4, CodeNumbers.Integer, 128), new("int4 g32", 4, CodeNumbers.Integer, 32), new("int4 g128 zeros", 4, CodeNumbers.Integer, 128) { Zeros = true },
        new("int4 g128 ordered", 4, CodeNumbers.Integer, 128) { Ordered = true }, new("int3 g128", 3, CodeNumbers.Integer, 128),
        new("int2 g128", 2, CodeNumbers.Integer, 128), new("FP8 row", 8, CodeNumbers.E4M3, Inputs), new("FP8 g128", 8, CodeNumbers.E4M3, 128),
        new("NF4 g64", 4, CodeNumbers.Table, 64), new("MXFP4 g32", 4, CodeNumbers.E2M1, 32), new("NVFP4 g16", 4, CodeNumbers.E2M1, 16),
    ];

    /// <summary>Runs the benchmark.</summary>
    /// <param name="arguments">Names of formats and the number of threads; nothing for all formats and 2 threads.</param>
    public static void Run(string[] arguments)
    {
        int threads = arguments.Select(static text => int.TryParse(text, out int count) ? count : 0).Append(2).First(static count => count > 0);
        bool all = !formats.Select(static format => format.ToString()).Concat(codedShapes.Select(static shape => shape.Name)).Any(arguments.Contains);
        using var team = new ThreadTeam(threads);
        Console.WriteLine($"One token, matrices of {Bytes >> 20} MiB in their files, {team.Threads} threads; medians of {Rounds} rounds, each beside the probe");
        Console.WriteLine("format            | bits held | of file |  GB/s | of the probe");
        foreach (DType format in formats.Where(format => all || arguments.Contains(format.ToString())))
        {
            int outputs = (int)(Bytes / format.RowBytes(Inputs));
            Measure(format.ToString(), outputs, checkpoint => checkpoint.Add("w", format, [outputs, Inputs], RandomMatrix.Blocks(format, (long)Inputs * outputs)), team);
        }
        foreach (CodedShape shape in codedShapes.Where(shape => all || arguments.Contains(shape.Name)))
        {
            int outputs = (int)(Bytes * 8 / shape.Bits / Inputs);
            Measure(shape.Name, outputs, checkpoint => RandomMatrix.Coded(shape, outputs, Inputs, checkpoint), team);
        }
    }

    private static void Measure(string name, int outputs, Func<MemoryCheckpoint, TensorView> add, ThreadTeam team)
    {
        using PackedLinear linear = Load(outputs, add, team, out long fileBytes);
        var input = (float*)NativeMemory.AlignedAlloc(Inputs * sizeof(float), 64);
        var output = (float*)NativeMemory.AlignedAlloc((nuint)outputs * sizeof(float), 64);
        for (int i = 0; i < Inputs; i++)
        {
            input[i] = Random.Shared.NextSingle() - 0.5f;
        }
        List<double> rates = [], parts = [];
        for (int round = 0; round <= Rounds; round++)
        {
            double best = double.MaxValue;
            for (int product = 0; product < ProductsInRound; product++)
            {
                long start = Stopwatch.GetTimestamp();
                linear.Multiply(team, input, 1, output, accumulate: false);
                best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
            }
            double rate = linear.Bytes / best, probe = MemoryBandwidth.Measure(team);
            if (round > 0)
            {
                rates.Add(rate / 1e9);
                parts.Add(rate / probe);
            }
        }
        NativeMemory.AlignedFree(input);
        NativeMemory.AlignedFree(output);
        Console.WriteLine(
            $"{name,-17} | {8.0 * linear.Bytes / ((double)Inputs * outputs),9:F2} | {(double)linear.Bytes / fileBytes,7:F3} | {Median(rates),5:F1} | {Median(parts),5:P0}");
    }

    private static PackedLinear Load(int outputs, Func<MemoryCheckpoint, TensorView> add, ThreadTeam team, out long fileBytes)
    {
        using var memory = new MemoryCheckpoint();
        using var checkpoint = new OneMatrix(add(memory));
        fileBytes = checkpoint["w"].ByteLength;
        return PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(outputs, new WeightRef("w"))]), checkpoint, team);
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);
}
