using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Products against double-precision sums over the decoded weights, and against themselves under every way to compute them.</summary>
public sealed class PackedLinearTests
{
    public static TheoryData<DType, string> FormatsAndInstructions
    {
        get
        {
            var data = new TheoryData<DType, string>();
            foreach (DType format in MatmulData.Formats)
            {
                foreach (string instructions in Enum.GetNames<MatmulInstructions>())
                {
                    data.Add(format, instructions);
                }
            }
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(FormatsAndInstructions))]
    public void ProductsAreThoseOfTheDecodedWeights(DType format, string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        MatmulData.SkipUnlessSupported(instructions);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        int block = Math.Max(32, format.Info().BlockElements);
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs, int tokens) in new[]
            { (block, 1, 1), (96, 288, 2), (block * 3, 15, 3), (block * 5, 17, 7), (block * 2, 33, 65), (block * 20, 40, 13), (7, 5, 3), (333, 18, 26) })
        {
            if (inputs % format.Info().BlockElements != 0)
            {
                continue;
            }
            byte[] bytes = MatmulData.RandomBytes(format, (long)inputs * outputs, random);
            var weights = new float[inputs * outputs];
            Codec.For(format).Decode(bytes, weights);
            using PackedLinear linear = MatmulData.Load(format, inputs, outputs, bytes, team);
            linear.Instructions = instructions;
            foreach (bool exact in new[] { true, false })
            {
                float[] input = exact ? MatmulData.ExactInput(inputs * tokens, random) : MatmulData.RandomInput(inputs * tokens, random);
                if (inputs % 32 != 0 && exact)
                {
                    continue;
                }
                float[] output = MatmulData.Multiply(linear, team, input, tokens);
                for (int token = 0; token < tokens; token++)
                {
                    for (int row = 0; row < outputs; row++)
                    {
                        (double expected, double tolerance) = Expected(
                            weights.AsSpan(row * inputs, inputs), input.AsSpan(token * inputs, inputs), format.IsFloat() || exact, format);
                        double error = Math.Abs(output[token * outputs + row] - expected);
                        Assert.True(
                            error <= tolerance,
                            $"seed {seed}, [{outputs}, {inputs}], token {token} of {tokens}, row {row}: {output[token * outputs + row]}, not {expected} ± {tolerance}");
                    }
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void BitsDependOnNothingButTheTokensRow(DType format)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        const int Outputs = 77, Tokens = 65;
        int inputs = format.IsFloat() ? 600 : format.Info().BlockElements > 32 ? 2560 : 672;
        using var one = new ThreadTeam(1);
        byte[] bytes = MatmulData.RandomBytes(format, (long)inputs * Outputs, random);
        using PackedLinear linear = MatmulData.Load(format, inputs, Outputs, bytes, one);
        float[] input = MatmulData.RandomInput(inputs * Tokens, random), before = MatmulData.RandomInput(Outputs * Tokens, random);
        linear.Instructions = MatmulInstructions.Portable;
        float[] alone = [.. Enumerable.Range(0, Tokens).SelectMany(token => MatmulData.Multiply(linear, one, input[(token * inputs)..], 1))];
        float[] added = [.. alone.Zip(before, static (product, old) => product + old)];

        foreach (MatmulInstructions instructions in Enum.GetValues<MatmulInstructions>().Where(static set => set.IsSupported()))
        {
            linear.Instructions = instructions;
            foreach (int threads in new[] { 1, 2, 3 })
            {
                using var team = new ThreadTeam(threads);
                foreach (int tokens in new[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 17, 48, 49, 64, 65 })
                {
                    int first = random.Next(Tokens - tokens + 1);
                    float[] slice = input[(first * inputs)..];
                    string what = $"seed {seed}, {instructions}, {threads} threads, {tokens} tokens";
                    Range range = (first * Outputs)..((first + tokens) * Outputs);
                    MatmulData.AssertBits(alone[range], MatmulData.Multiply(linear, team, slice, tokens), what);
                    MatmulData.AssertBits(added[range], MatmulData.Multiply(linear, team, slice, tokens, before[range]), what + ", accumulating");
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void RowsDecodeAsTheCodecSays(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 512, Outputs = 35;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, random);
        var weights = new float[Inputs * Outputs];
        Codec.For(format).Decode(bytes, weights);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        var row = new float[Inputs];
        for (int i = 0; i < Outputs; i++)
        {
            linear.DecodeRow(i, row);
            Assert.Equal(weights[(i * Inputs)..((i + 1) * Inputs)], row);
        }
        Assert.Throws<ArgumentOutOfRangeException>(() => linear.DecodeRow(Outputs, row));
        Assert.Throws<ArgumentOutOfRangeException>(() => linear.DecodeRow(-1, row));
    }

    [Fact]
    public void PartsOfDifferentFormatsSlicesAndBiasesStandSideBySide()
    {
        Random random = Seed.Fresh();
        const int Inputs = 256, Tokens = 9;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        DType[] formats = [DType.Q4_K, DType.F16, DType.Q6_K, DType.Q8_0];
        int[] rows = [20, 7, 33, 16], firstRows = [0, 5, 8, 1];
        var parts = new List<LinearPart>();
        for (int i = 0; i < formats.Length; i++)
        {
            int stored = rows[i] + firstRows[i] + 2;
            checkpoint.Add($"w{i}", formats[i], [stored, Inputs], MatmulData.RandomBytes(formats[i], Inputs * stored, random));
            checkpoint.Add($"b{i}", [stored], MatmulData.RandomInput(stored, random));
            WeightRef? bias = i == 2 ? null : new WeightRef($"b{i}", firstRows[i]);
            parts.Add(new LinearPart(rows[i], new WeightRef($"w{i}", firstRows[i]), bias));
        }
        using PackedLinear all = PackedLinear.Load(new LinearPlan(Inputs, [.. parts]), checkpoint, team);
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random), output = MatmulData.Multiply(all, team, input, Tokens);
        int column = 0;
        var weights = new float[Inputs];
        for (int i = 0; i < parts.Count; i++)
        {
            using PackedLinear part = PackedLinear.Load(new LinearPlan(Inputs, [parts[i] with { Bias = null }]), checkpoint, team);
            float[] expected = MatmulData.Multiply(part, team, input, Tokens), bias = checkpoint[$"b{i}"].ToFloats();
            for (int row = 0; row < rows[i]; row++, column++)
            {
                for (int token = 0; token < Tokens; token++)
                {
                    float sum = expected[token * rows[i] + row];
                    Assert.Equal(i == 2 ? sum : sum + bias[firstRows[i] + row], output[token * all.Plan.Outputs + column]);
                }
                all.DecodeRow(column, weights);
                var direct = new float[Inputs];
                checkpoint[$"w{i}"].DecodeRow(firstRows[i] + row, direct);
                Assert.Equal(direct, weights);
            }
        }
    }

    [Theory]
    [InlineData(DType.F32)]
    [InlineData(DType.F16)]
    [InlineData(DType.BF16)]
    public void TransposedWeightsGiveTheSameBits(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 50, Stored = 40, Outputs = 21, First = 13;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        var values = new float[Inputs * Stored];
        Codec.For(format).Decode(MatmulData.RandomBytes(format, values.Length, random), values);
        var turned = new float[values.Length];
        for (int i = 0; i < values.Length; i++)
        {
            turned[i % Inputs * Stored + i / Inputs] = values[i];
        }
        checkpoint.Add("plain", [Stored, Inputs], values, format);
        checkpoint.Add("turned", [Inputs, Stored], turned, format);
        using PackedLinear plain = PackedLinear.Load(new LinearPlan(Inputs, [new(Outputs, new("plain", First))]), checkpoint, team);
        using PackedLinear transposed = PackedLinear.Load(new LinearPlan(Inputs, [new(Outputs, new("turned", First, true))]), checkpoint, team);
        float[] input = MatmulData.RandomInput(Inputs * 8, random);
        MatmulData.AssertBits(MatmulData.Multiply(plain, team, input, 8), MatmulData.Multiply(transposed, team, input, 8), format.ToString());
    }

    [Fact]
    public void NoTokensWriteNothing()
    {
        using var team = new ThreadTeam(2);
        using PackedLinear linear = MatmulData.Load(DType.Q8_0, 32, 3, new byte[3 * 34], team);
        Assert.Empty(MatmulData.Multiply(linear, team, [], 0));
    }

    [Theory]
    [MemberData(nameof(MatmulData.BlockFormats), MemberType = typeof(MatmulData))]
    public void NonFiniteActivationsShowInTheOutput(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 256, Outputs = 16;
        using var team = new ThreadTeam(1);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, MatmulData.RandomBytes(format, Inputs * Outputs, random), team);
        foreach (float bad in new[] { float.NaN, float.PositiveInfinity, float.NegativeInfinity })
        {
            float[] input = MatmulData.RandomInput(Inputs * 2, random);
            input[Inputs + 77] = bad;
            float[] output = MatmulData.Multiply(linear, team, input, 2);
            Assert.All(output[..Outputs], static value => Assert.True(float.IsFinite(value)));
            Assert.All(output[Outputs..], static value => Assert.True(float.IsNaN(value)));
        }
    }

    [Theory]
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void MultiplyingAllocatesNothing(DType format)
    {
        const int Inputs = 256, Outputs = 1024;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, new Random(1));
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        Assert.Equal(0, Allocated(linear, team, new float[Inputs * 20], new float[Outputs * 20]));

        static unsafe long Allocated(PackedLinear linear, ThreadTeam team, float[] input, float[] output)
        {
            fixed (float* from = input, to = output)
            {
                linear.Multiply(team, from, 20, to, false);
                linear.Multiply(team, from, 1, to, false);
                float* source = from, destination = to;
                return Allocation.Of(() =>
                {
                    for (int i = 0; i < 20; i++)
                    {
                        linear.Multiply(team, source, 20, destination, false);
                        linear.Multiply(team, source, 1, destination, true);
                    }
                });
            }
        }
    }

    /// <summary>
    /// The sum in double precision and how far float32 arithmetic may be from it; where activations are rounded to 8 bits, half a step of each
    /// block on every weight besides.
    /// </summary>
    private static (double Expected, double Tolerance) Expected(ReadOnlySpan<float> weights, ReadOnlySpan<float> input, bool exact, DType format)
    {
        double sum = 0, tolerance = 1e-30, magnitude = 0;
        for (int block = 0; block < input.Length; block += 32)
        {
            double largest = 0, weight = 0;
            for (int i = block; i < Math.Min(block + 32, input.Length); i++)
            {
                sum += (double)weights[i] * input[i];
                magnitude += Math.Abs((double)weights[i] * input[i]);
                largest = Math.Max(largest, Math.Abs(input[i]));
                weight += Math.Abs(weights[i]);
            }
            // A minimum and the codes above it cancel: the terms of the two sums are larger than the weights.
            magnitude += format is DType.Q4_1 or DType.Q5_1 or DType.Q2_K or DType.Q4_K or DType.Q5_K ? largest * 32 * 64 : 0;
            tolerance += exact ? 0 : largest / 127 * 0.5001 * weight;
        }
        // n roundings to float32 in sequence: λ·√n·u of the magnitudes with λ = 8 (Higham and Mary 2019), u = 2⁻²⁴.
        return (sum, tolerance + magnitude * (8 * Math.Sqrt(input.Length) * Math.Pow(2, -24)));
    }
}
