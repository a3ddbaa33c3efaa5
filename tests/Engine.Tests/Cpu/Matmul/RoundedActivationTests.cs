using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>BF16 weights with activations rounded to bfloat16, in every instruction set.</summary>
public sealed class RoundedActivationTests
{
    public static TheoryData<string> InstructionNames => [.. Enum.GetNames<MatmulInstructions>()];

    [Theory]
    [MemberData(nameof(InstructionNames))]
    public void ProductsAreThoseOfRoundedActivations(string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        MatmulData.SkipUnlessSupported(instructions);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs, int tokens) in new[]
            { (1, 1, 1), (2, 1, 1), (96, 288, 2), (17, 15, 3), (160, 17, 7), (64, 33, 65), (640, 40, 13), (7, 5, 3), (333, 18, 26), (513, 70, 12) })
        {
            byte[] bytes = MatmulData.RandomBytes(DType.BF16, (long)inputs * outputs, random);
            var weights = new float[inputs * outputs];
            Codec.For(DType.BF16).Decode(bytes, weights);
            using PackedLinear linear = MatmulData.Load(DType.BF16, inputs, outputs, bytes, team, ActivationPrecision.BFloat16);
            linear.Instructions = instructions;
            float[] input = MatmulData.RandomInput(inputs * tokens, random);
            float[] output = MatmulData.Multiply(linear, team, input, tokens);
            for (int token = 0; token < tokens; token++)
            {
                for (int row = 0; row < outputs; row++)
                {
                    double sum = 0, magnitude = 0;
                    for (int i = 0; i < inputs; i++)
                    {
                        double product = weights[row * inputs + i] * Rounded(input[token * inputs + i]);
                        sum += product;
                        magnitude += Math.Abs(product);
                    }
                    // As for float32: λ·√n·u of the magnitudes with λ = 8, u = 2⁻²⁴. The rounding of the activations is in the sum already.
                    double tolerance = 1e-30 + magnitude * 8 * Math.Sqrt(inputs) * Math.Pow(2, -24);
                    float actual = output[token * outputs + row];
                    Assert.True(
                        Math.Abs(actual - sum) <= tolerance,
                        $"seed {seed}, [{outputs}, {inputs}], token {token} of {tokens}, row {row}: {actual}, not {sum} ± {tolerance}");
                }
            }
        }
    }

    /// <summary>An identity matrix shows what became of each activation.</summary>
    [Theory]
    [MemberData(nameof(InstructionNames))]
    public void RoundingIsToNearestEven(string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        MatmulData.SkipUnlessSupported(instructions);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        const int Size = 57, Tokens = 14;
        var identity = new float[Size * Size];
        for (int i = 0; i < Size; i++)
        {
            identity[i * Size + i] = 1;
        }
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", [Size, Size], identity, DType.BF16);
        using PackedLinear linear = PackedLinear.Load(
            new LinearPlan(Size, [new(Size, new("w"))]), checkpoint, team, ActivationPrecision.BFloat16);
        linear.Instructions = instructions;

        // Any normal number that stays finite; every third lies exactly between two bfloat16, and every seventh one bit beside the middle.
        float[] input = new float[Size * Tokens];
        for (int i = 0; i < input.Length; i++)
        {
            uint bits = ((uint)random.Next(2) << 31) | ((uint)random.Next(1, 254) << 23) | (uint)random.Next(1 << 23);
            bits = i % 3 == 0 ? (bits & 0xFFFF0000) | 0x8000 : i % 7 == 0 ? (bits & 0xFFFF0000) | (0x8000 + 2u * (uint)random.Next(2) - 1) : bits;
            input[i] = BitConverter.UInt32BitsToSingle(bits);
        }
        input[5] = 0f;
        float[] expected = [.. input.Select(static value => (float)Rounded(value))];
        MatmulData.AssertBits(expected, MatmulData.Multiply(linear, team, input, Tokens), $"seed {seed}");
    }

    [Fact]
    public void BitsDependOnNothingButTheTokensRow()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        const int Inputs = 601, Outputs = 77, Tokens = 65;
        using var one = new ThreadTeam(1);
        byte[] bytes = MatmulData.RandomBytes(DType.BF16, Inputs * Outputs, random);
        using PackedLinear linear = MatmulData.Load(DType.BF16, Inputs, Outputs, bytes, one, ActivationPrecision.BFloat16);
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random), before = MatmulData.RandomInput(Outputs * Tokens, random);
        linear.Instructions = MatmulInstructions.Portable;
        float[] alone = [.. Enumerable.Range(0, Tokens).SelectMany(token => MatmulData.Multiply(linear, one, input[(token * Inputs)..], 1))];
        float[] added = [.. alone.Zip(before, static (product, old) => product + old)];
        foreach (MatmulInstructions instructions in Enum.GetValues<MatmulInstructions>().Where(static set => set.IsSupported()))
        {
            linear.Instructions = instructions;
            foreach (int threads in new[] { 1, 2, 3 })
            {
                using var team = new ThreadTeam(threads);
                foreach (int tokens in new[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 64, 65 })
                {
                    int first = random.Next(Tokens - tokens + 1);
                    float[] slice = input[(first * Inputs)..];
                    string what = $"seed {seed}, {instructions}, {threads} threads, {tokens} tokens";
                    Range range = (first * Outputs)..((first + tokens) * Outputs);
                    MatmulData.AssertBits(alone[range], MatmulData.Multiply(linear, team, slice, tokens), what);
                    MatmulData.AssertBits(added[range], MatmulData.Multiply(linear, team, slice, tokens, before[range]), what + ", accumulating");
                }
            }
        }
    }

    /// <summary>The shapes of prefill, with several chunks of inputs and groups of panels: 512 tokens together and each alone.</summary>
    [Theory]
    [InlineData(896, 4864)]
    [InlineData(4864, 896)]
    public void ALongPromptGivesTheBitsOfSingleTokens(int inputs, int outputs)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        const int Tokens = 512;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(DType.BF16, (long)inputs * outputs, random);
        using PackedLinear linear = MatmulData.Load(DType.BF16, inputs, outputs, bytes, team, ActivationPrecision.BFloat16);
        float[] input = MatmulData.RandomInput(inputs * Tokens, random), together = MatmulData.Multiply(linear, team, input, Tokens);
        foreach (int token in new[] { 0, 11, 12, random.Next(Tokens), random.Next(Tokens), Tokens - 1 })
        {
            float[] alone = MatmulData.Multiply(linear, team, input[(token * inputs)..((token + 1) * inputs)], 1);
            MatmulData.AssertBits(alone, together.AsSpan(token * outputs, outputs), $"seed {seed}, token {token}");
        }
    }

    [Theory]
    [MemberData(nameof(InstructionNames))]
    public void NonFiniteActivationsShowInTheOutput(string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        MatmulData.SkipUnlessSupported(instructions);
        var random = new Random(Random.Shared.Next());
        const int Inputs = 255, Outputs = 16;
        using var team = new ThreadTeam(1);
        byte[] bytes = MatmulData.RandomBytes(DType.BF16, Inputs * Outputs, random);
        using PackedLinear linear = MatmulData.Load(DType.BF16, Inputs, Outputs, bytes, team, ActivationPrecision.BFloat16);
        linear.Instructions = instructions;

        // The third is a NaN that only its low bits tell from infinity; the last is finite and rounds to infinity.
        float lowNaN = BitConverter.UInt32BitsToSingle(0x7F800001);
        foreach (float bad in new[] { float.NaN, -float.NaN, lowNaN, float.PositiveInfinity, float.NegativeInfinity, float.MaxValue })
        {
            foreach (int place in new[] { 76, 77, Inputs - 1 })
            {
                float[] input = MatmulData.RandomInput(Inputs * 2, random);
                input[Inputs + place] = bad;
                float[] output = MatmulData.Multiply(linear, team, input, 2);
                Assert.All(output[..Outputs], static value => Assert.True(float.IsFinite(value)));
                Assert.All(output[Outputs..], value => Assert.True(float.IsNaN(bad) ? float.IsNaN(value) : !float.IsFinite(value)));
            }
        }
    }

    [Fact]
    public void OnlyBF16WeightsMeetRoundedActivations()
    {
        var random = new Random(Random.Shared.Next());
        const int Inputs = 256, Outputs = 24, Tokens = 9;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        DType[] formats = [DType.BF16, DType.F32, DType.Q8_0, DType.BF16, DType.F16];
        var parts = new List<LinearPart>();
        for (int i = 0; i < formats.Length; i++)
        {
            checkpoint.Add($"w{i}", formats[i], [Outputs, Inputs], MatmulData.RandomBytes(formats[i], Inputs * Outputs, random));
            parts.Add(new LinearPart(Outputs, new WeightRef($"w{i}")));
        }
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random), rounded = [.. input.Select(static value => (float)Rounded(value))];
        using PackedLinear all = PackedLinear.Load(new LinearPlan(Inputs, [.. parts]), checkpoint, team, ActivationPrecision.BFloat16);
        foreach (MatmulInstructions instructions in Enum.GetValues<MatmulInstructions>().Where(static set => set.IsSupported()))
        {
            all.Instructions = instructions;
            float[] output = MatmulData.Multiply(all, team, input, Tokens);
            for (int i = 0; i < formats.Length; i++)
            {
                using PackedLinear part = PackedLinear.Load(new LinearPlan(Inputs, [parts[i]]), checkpoint, team);
                float[] expected = MatmulData.Multiply(part, team, formats[i] == DType.BF16 ? rounded : input, Tokens);
                for (int token = 0; token < Tokens; token++)
                {
                    MatmulData.AssertBits(
                        expected.AsSpan(token * Outputs, Outputs), output.AsSpan(token * all.Plan.Outputs + i * Outputs, Outputs),
                        $"{instructions}, {formats[i]}, token {token}");
                }
            }
        }
    }

    [Fact]
    public unsafe void MultiplyingAllocatesNothing()
    {
        const int Inputs = 255, Outputs = 1024;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(DType.BF16, Inputs * Outputs, new Random(1));
        using PackedLinear linear = MatmulData.Load(DType.BF16, Inputs, Outputs, bytes, team, ActivationPrecision.BFloat16);
        float[] input = new float[Inputs * 20], output = new float[Outputs * 20];

        Assert.Equal(0, Allocation.Of(() =>
        {
            fixed (float* from = input, to = output)
            {
                for (int i = 0; i < 20; i++)
                {
                    linear.Multiply(team, from, 20, to, false);
                    linear.Multiply(team, from, 1, to, true);
                }
            }
        }));
        Assert.Equal((Inputs + 1) * Outputs * 2, linear.Bytes); // Two bytes per weight; the last column has a partner.
    }

    /// <summary>The definition, in double precision: 8 significant bits of a normal number.</summary>
    private static double Rounded(float value)
    {
        if (value == 0)
        {
            return value;
        }
        double ulp = Math.ScaleB(1, Math.ILogB(value) - 7);
        return Math.Round(value / ulp, MidpointRounding.ToEven) * ulp;
    }
}
