using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Coded;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;

namespace Engine.Bench;

/// <summary>
/// Matrices of which two of every four weights are zero beside the dense one of the same shape, too large for caches: in turn, medians, and the bytes that each has.
/// </summary>
internal static unsafe class SparseBench
{
    private const int Inputs = 8192, Outputs = 32768, MostTokens = 256;

    /// <summary>Runs the benchmark.</summary>
    /// <param name="arguments">The number of threads; 2 without.</param>
    public static void Run(string[] arguments)
    {
        using var team = new ThreadTeam(arguments is [var count, ..] ? int.Parse(count) : 2);
        Console.WriteLine($"{Outputs} × {Inputs}, {team.Threads} threads; medians of runs in turn, dense / 2:4");
        Console.WriteLine("dense   | 2:4                      | bytes | tokens: 1 | 2     | 4     | 8     | 64    | 256");
        Compare(team, DType.Q8_0, [("Q8_0", Blocks(DType.Q8_0, true)), ("int8, scale per output", Coded(8, Inputs))]);
        Compare(team, DType.Q4_0, [("Q4_0", Blocks(DType.Q4_0, true)), ("int4, scale per 128", Coded(4, 128))]);
        Compare(team, DType.BF16, [("BF16", Blocks(DType.BF16, true))]);
    }

    private static void Compare(ThreadTeam team, DType dense, (string Name, Func<MemoryCheckpoint, TensorView> Add)[] others)
    {
        using PackedLinear one = Load(Blocks(dense, false), team);
        foreach ((string name, Func<MemoryCheckpoint, TensorView> add) in others)
        {
            using PackedLinear other = Load(add, team);
            Console.Write($"{dense,-7} | {name,-24} | {(double)one.Bytes / other.Bytes,5:F2} |");
            foreach (int tokens in new[] { 1, 2, 4, 8, 64, MostTokens })
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
        List<double>[] seconds = [[], []];
        for (int round = 0; round < (tokens > 8 ? 5 : 21); round++)
        {
            for (int i = 0; i < 2; i++)
            {
                long start = Stopwatch.GetTimestamp();
                (i == 0 ? one : other).Multiply(team, input, tokens, output, accumulate: false);
                seconds[i].Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            }
        }
        NativeMemory.AlignedFree(input);
        NativeMemory.AlignedFree(output);
        return seconds[0].Order().ElementAt(seconds[0].Count / 2) / seconds[1].Order().ElementAt(seconds[1].Count / 2);
    }

    private static PackedLinear Load(Func<MemoryCheckpoint, TensorView> add, ThreadTeam team)
    {
        using var memory = new MemoryCheckpoint();
        using var checkpoint = new OneMatrix(add(memory));
        return PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, new WeightRef("w"))]), checkpoint, team);
    }

    /// <summary>Random codes, or of every four two zeros.</summary>
    private static Func<MemoryCheckpoint, TensorView> Blocks(DType format, bool sparse) => checkpoint =>
    {
        DTypeInfo info = format.Info();
        var bytes = new byte[(long)Inputs * Outputs / info.BlockElements * info.BlockBytes];
        new Random(1).NextBytes(bytes);
        for (long block = 0; block < bytes.Length; block += info.BlockBytes)
        {
            Span<byte> span = bytes.AsSpan((int)block, info.BlockBytes);
            if (format == DType.BF16)
            {
                bool zero = sparse && block / info.BlockBytes % 2 == 1;
                (span[0], span[1]) = zero ? ((byte)0, (byte)0) : ((byte)(span[0] | 1), (byte)0x3C);
                continue;
            }
            (span[0], span[1]) = (0, 0x1C);
            for (int i = 2; i < span.Length && sparse; i++)
            {
                // Odd elements are zero, of Q4_0 in both halves of the block.
                span[i] = i % 2 == 1 ? (byte)(format == DType.Q4_0 ? 0x88 : 0) : span[i];
            }
        }
        return checkpoint.Add("w", format, [Outputs, Inputs], bytes);
    };

    /// <summary>Symmetric integers of which two of four are zero.</summary>
    private static Func<MemoryCheckpoint, TensorView> Coded(int bits, int groupColumns) => checkpoint =>
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
                for (int i = 0; i < codes.Length; i++)
                {
                    codes[i] = (byte)(i % 2 == 1 ? zero : (i * 37 + row * 11) & ((1 << bits) - 1));
                }
            },
            Scales = static (_, values, _) => values.Fill(1f / 64),
            Parts = [scales],
        }, checkpoint);
    };

    /// <summary>A checkpoint of one tensor.</summary>
    private sealed class OneMatrix(TensorView matrix) : Checkpoint
    {
        public override string Path => "(memory)";

        public override IReadOnlyCollection<string> TensorNames => [matrix.Name];

        public override JsonObject Config => [];

        public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => (tensor = name == matrix.Name ? matrix : null) is not null;
    }
}
