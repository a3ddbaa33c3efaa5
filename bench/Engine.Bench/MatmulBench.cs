using System.Diagnostics;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Bench;

/// <summary>
/// Rates of matrix products per format: of one token against the read bandwidth of the same minute, and of 512 tokens in multiplications per second.
/// The best of many short runs counts, as in the probe: other work on a shared machine can only slow a run down.
/// </summary>
internal static unsafe class MatmulBench
{
    private static readonly DType[] formats =
    [
        DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q5_0, DType.Q5_1, DType.Q4_K, DType.Q5_K, DType.Q6_K, DType.Q2_K, DType.Q3_K, DType.IQ4_NL, DType.IQ4_XS,
        DType.TQ2_0, DType.BF16, DType.F16, DType.F32,
    ];

    /// <summary>Runs the benchmark.</summary>
    /// <param name="arguments">
    /// Names of formats, numbers of threads, an instruction set, the precision of activations for BF16, or <c>batches</c> for 1 to 64 tokens; nothing for
    /// all formats, 1 and 2 threads and the best instructions with float32.
    /// </param>
    public static void Run(string[] arguments)
    {
        DType[] chosen = [.. formats.Where(format => arguments.Contains(format.ToString()))];
        int[] threads = [.. arguments.Where(static text => int.TryParse(text, out _)).Select(int.Parse)];
        string? named = Enum.GetNames<MatmulInstructions>().FirstOrDefault(name => arguments.Contains(name));
        MatmulInstructions? instructions = named is null ? null : Enum.Parse<MatmulInstructions>(named);
        ActivationPrecision precision =
            arguments.Contains(nameof(ActivationPrecision.BFloat16)) ? ActivationPrecision.BFloat16 : ActivationPrecision.Float32;
        Console.WriteLine($"{instructions ?? MatmulInstructionSupport.Best}, activations for BF16 in {precision}");
        Console.WriteLine("format threads |  1 token GB/s (of probe) | 4 tokens GMAC/s | 512 × 896→4864  512 × 4864→896 GMAC/s | packed/file");
        foreach (DType format in chosen.Length == 0 ? formats : chosen)
        {
            foreach (int count in threads.Length == 0 ? [1, 2] : threads)
            {
                using var team = new ThreadTeam(count);
                int hidden = 896 % format.Info().BlockElements == 0 ? 896 : 1024; // Formats with blocks of 256 do not fit the smaller model.
                using Case head = new(format, hidden, 81920, team, instructions, precision);
                using Case up = new(format, hidden, 4864, team, instructions, precision);
                using Case down = new(format, 4864, hidden, team, instructions, precision);
                double probe = MemoryBandwidth.Measure(team);
                if (arguments.Contains("batches"))
                {
                    PrintBatches(format, count, up, head);
                    continue;
                }
                double read = head.FileBytes / head.Time(1) / 1e9;
                probe = Math.Max(probe, MemoryBandwidth.Measure(team)) / 1e9;
                Console.WriteLine(
                    $"{format,-6} {count,7} | {read,6:F1} of {probe,5:F1} = {read / probe,5:P0}     | {4 * head.Products / head.Time(4) / 1e9,8:F0}"
                    + $"        | {512 * up.Products / up.Time(512) / 1e9,8:F0}  {512 * down.Products / down.Time(512) / 1e9,12:F0}"
                    + $"                | {head.PackedBytes / (double)head.FileBytes:F3}");
            }
        }
    }

    /// <summary>Products of the tokens of a decode batch: with a matrix that the caches may keep, and with one that comes from memory.</summary>
    private static void PrintBatches(DType format, int threads, Case cached, Case streamed)
    {
        int[] batches = [1, 2, 4, 6, 8, 12, 14, 16, 24, 32, 48, 64];
        foreach (int tokens in batches)
        {
            double cachedTime = cached.Time(tokens), streamedTime = streamed.Time(tokens);
            Console.WriteLine(
                $"{format,-6} {threads,7} | {tokens,3} tokens | {cached.FileBytes / 1e6,4:F0} MB: {tokens * cached.Products / cachedTime / 1e9,4:F0} GMAC/s"
                + $" | {streamed.FileBytes / 1e6,4:F0} MB: {tokens * streamed.Products / streamedTime / 1e9,4:F0} GMAC/s, {streamed.FileBytes / streamedTime / 1e9,5:F1} GB/s");
        }
    }

    private sealed class Case : IDisposable
    {
        private const int MaxTokens = 512;
        private readonly ThreadTeam team;
        private readonly PackedLinear linear;
        private readonly float* input;
        private readonly float* output;

        public Case(DType format, int inputs, int outputs, ThreadTeam team, MatmulInstructions? instructions, ActivationPrecision precision)
        {
            this.team = team;
            using var checkpoint = new MemoryCheckpoint();
            checkpoint.Add("w", format, [outputs, inputs], RandomMatrix.Blocks(format, (long)inputs * outputs));
            FileBytes = checkpoint["w"].ByteLength;
            Products = (double)inputs * outputs;
            linear = PackedLinear.Load(new LinearPlan(inputs, [new LinearPart(outputs, new WeightRef("w"))]), checkpoint, team, precision);
            if (instructions is MatmulInstructions set)
            {
                linear.Instructions = set;
            }
            input = (float*)NativeMemory.AlignedAlloc((nuint)inputs * MaxTokens * 4, 64);
            output = (float*)NativeMemory.AlignedAlloc((nuint)outputs * MaxTokens * 4, 64);
            for (int i = 0; i < inputs * MaxTokens; i++)
            {
                input[i] = Random.Shared.NextSingle() - 0.5f;
            }
        }

        public long FileBytes { get; }

        public long PackedBytes => linear.Bytes;

        public double Products { get; }

        /// <summary>Seconds of the fastest of many multiplications.</summary>
        public double Time(int tokens)
        {
            var seconds = new List<double>();
            linear.Multiply(team, input, tokens, output, accumulate: false);
            linear.Multiply(team, input, tokens, output, accumulate: false);
            long begin = Stopwatch.GetTimestamp();
            while (seconds.Count < 9 || Stopwatch.GetElapsedTime(begin).TotalSeconds < 0.25)
            {
                long start = Stopwatch.GetTimestamp();
                linear.Multiply(team, input, tokens, output, accumulate: false);
                seconds.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            }
            return seconds.Min();
        }

        public void Dispose()
        {
            linear.Dispose();
            NativeMemory.AlignedFree(input);
            NativeMemory.AlignedFree(output);
        }
    }
}
