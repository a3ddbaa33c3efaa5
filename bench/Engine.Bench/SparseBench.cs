using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Coded;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Bench;

/// <summary>
/// Matrices of which two of every four weights, or any part of them, are zero beside the dense one of the same shape, too large for caches: in turn, the medians of
/// their ratios, and the bytes that each has.
/// </summary>
internal static unsafe class SparseBench
{
    private const int Inputs = 8192, Outputs = 32768, MostTokens = 256;

    /// <summary>Two zeros in every four weights.</summary>
    private const double TwoOfFour = double.NaN;

    private static readonly double[] zeroParts = [0.5, 0.6, 0.7, 0.8, 0.9];

    /// <summary>Runs the benchmark.</summary>
    /// <param name="arguments">The number of threads; 2 without. Then the types to be measured, all without; BFloat16 rounds activations to it.</param>
    public static void Run(string[] arguments)
    {
        ActivationPrecision precision = arguments.Contains("BFloat16") ? ActivationPrecision.BFloat16 : ActivationPrecision.Float32;
        HashSet<string> only = [.. arguments.Skip(1).Where(static name => name != "BFloat16")];
        using var team = new ThreadTeam(arguments is [var count, ..] ? int.Parse(count) : 2);
        Console.WriteLine($"{Outputs} × {Inputs}, {team.Threads} threads; runs in turn, medians of dense / sparse");
        Console.WriteLine("dense   | zeros                              | bytes | tokens: 1 | 2     | 4     | 8     | 17    | 64    | 256");
        Compare(DType.Q8_0, [.. Kinds("Q8_0", static zeros => Blocks(DType.Q8_0, zeros)), .. Kinds("int8, scale per output", static zeros => Coded(8, Inputs, zeros))]);
        Compare(DType.Q4_0, [.. Kinds("Q4_0", static zeros => Blocks(DType.Q4_0, zeros)), .. Kinds("int4, scale per 128", static zeros => Coded(4, 128, zeros))]);
        Compare(DType.BF16, Kinds("BF16", static zeros => Blocks(DType.BF16, zeros)));
        Compare(DType.F16, Kinds("F16", static zeros => Blocks(DType.F16, zeros)));

        void Compare(DType dense, (string Name, Func<MemoryCheckpoint, TensorView> Add)[] others)
        {
            if (only.Count == 0 || only.Contains($"{dense}"))
            {
                SparseBench.Compare(team, dense, others, precision);
            }
        }
    }

    private static (string Name, Func<MemoryCheckpoint, TensorView> Add)[] Kinds(string name, Func<double, Func<MemoryCheckpoint, TensorView>> make) =>
        [($"{name}, 2:4", make(TwoOfFour)), .. zeroParts.Select(zeros => (string.Create(CultureInfo.InvariantCulture, $"{name}, {100 * zeros:F0} %"), make(zeros)))];

    private static void Compare(ThreadTeam team, DType dense, (string Name, Func<MemoryCheckpoint, TensorView> Add)[] others, ActivationPrecision precision)
    {
        using PackedLinear one = Load(Blocks(dense, 0), team, precision);
        foreach ((string name, Func<MemoryCheckpoint, TensorView> add) in others)
        {
            using PackedLinear other = Load(add, team, precision);
            Console.Write($"{dense,-7} | {name,-34} | {(double)one.Bytes / other.Bytes,5:F2} |");
            foreach (int tokens in new[] { 1, 2, 4, 8, 17, 64, MostTokens })
            {
                Console.Write($" {Ratio(team, one, other, tokens),5:F2} |");
            }
            Console.WriteLine();
        }
    }

    private static double Ratio(ThreadTeam team, PackedLinear one, PackedLinear other, int tokens)
    {
        var input = (float*)NativeMemory.AlignedAlloc((nuint)Inputs * (nuint)tokens * 4, 64);
        var output = (float*)NativeMemory.AlignedAlloc((nuint)Outputs * (nuint)tokens * 4, 64);
        for (int i = 0; i < Inputs * tokens; i++)
        {
            input[i] = Random.Shared.NextSingle() - 0.5f;
        }
        var ratios = new List<double>();
        for (int round = 0; round < (tokens > 64 ? 5 : tokens > 8 ? 11 : 31); round++)
        {
            double dense = Seconds(one);
            ratios.Add(dense / Seconds(other));
        }
        NativeMemory.AlignedFree(input);
        NativeMemory.AlignedFree(output);
        return ratios.Order().ElementAt(ratios.Count / 2);

        double Seconds(PackedLinear linear)
        {
            long start = Stopwatch.GetTimestamp();
            linear.Multiply(team, input, tokens, output, accumulate: false);
            return Stopwatch.GetElapsedTime(start).TotalSeconds;
        }
    }

    private static PackedLinear Load(Func<MemoryCheckpoint, TensorView> add, ThreadTeam team, ActivationPrecision precision)
    {
        using var memory = new MemoryCheckpoint();
        using var checkpoint = new OneMatrix(add(memory));
        return PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, new WeightRef("w"))]), checkpoint, team, precision);
    }

    /// <summary>Random codes, a part of which are zeros.</summary>
    private static Func<MemoryCheckpoint, TensorView> Blocks(DType format, double zeros) => checkpoint =>
    {
        DTypeInfo info = format.Info();
        bool sparse = double.IsNaN(zeros);
        var bytes = new byte[(long)Inputs * Outputs / info.BlockElements * info.BlockBytes];
        var random = new Random(1);
        random.NextBytes(bytes);
        for (long block = 0; block < bytes.Length; block += info.BlockBytes)
        {
            Span<byte> span = bytes.AsSpan((int)block, info.BlockBytes);
            if (format is DType.BF16 or DType.F16)
            {
                bool zero = sparse ? block / info.BlockBytes % 2 == 1 : random.NextSingle() < zeros;
                (span[0], span[1]) = zero ? ((byte)0, (byte)0) : ((byte)(span[0] | 1), (byte)0x3C);
                continue;
            }
            (span[0], span[1]) = (0, 0x1C);
            for (int i = 2; i < span.Length && sparse; i++)
            {
                // Odd elements are zero, of Q4_0 in both halves of the block.
                span[i] = i % 2 == 1 ? (byte)(format == DType.Q4_0 ? 0x88 : 0) : span[i];
            }
            for (int i = 2; i < span.Length && zeros > 0; i++)
            {
                span[i] = format != DType.Q4_0 ? Code(0, span[i]) : (byte)(Code(8, span[i] & 15) | Code(8, span[i] >> 4) << 4);
            }
        }
        return checkpoint.Add("w", format, [Outputs, Inputs], bytes);

        byte Code(int zero, int code) => (byte)(random.NextSingle() < zeros ? zero : code);
    };

    /// <summary>Symmetric integers, a part of which are zeros.</summary>
    private static Func<MemoryCheckpoint, TensorView> Coded(int bits, int groupColumns, double zeros) => checkpoint =>
    {
        TensorView scales = checkpoint.Add("scales", DType.BF16, [1], [0x80, 0x3C]);
        int zero = 1 << (bits - 1);
        return TensorView.Of(new StoredMatrix
        {
            Name = "w",
            Format = "bench",
            Rows = Outputs,
            Columns = Inputs,
            Bits = bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groupColumns,
            Zero = zero,
            Codes = (row, codes) =>
            {
                var random = new Random((int)row);
                for (int i = 0; i < codes.Length; i++)
                {
                    bool isZero = double.IsNaN(zeros) ? i % 2 == 1 : random.NextSingle() < zeros;
                    codes[i] = (byte)(isZero ? zero : (i * 37 + row * 11) & ((1 << bits) - 1));
                }
            },
            Scales = static (_, values, _) => values.Fill(1f / 64),
            Parts = [scales],
        }, checkpoint);
    };
}
