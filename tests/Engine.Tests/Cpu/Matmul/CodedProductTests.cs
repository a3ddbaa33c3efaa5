using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Products of matrices whose codes and scales are stored apart, against double precision and against themselves.</summary>
public sealed class CodedProductTests
{
    private static MatmulInstructions[] Supported => [.. Enum.GetValues<MatmulInstructions>().Where(static set => set.IsSupported())];

    [Theory]
    [MemberData(nameof(CodedData.All), MemberType = typeof(CodedData))]
    public void Products_are_those_of_the_numbers(int index)
    {
        CodedCase kind = CodedData.Cases[index];
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs, int tokens) in new[] { (32, 1, 1), (256, 17, 3), (384, 33, 9), (333, 70, 2), (7, 5, 4), (161, 16, 15) })
        {
            TestCodedMatrix matrix = CodedData.Make(kind, outputs, inputs, random);
            using PackedLinear linear = CodedData.Load(team, matrix);
            foreach (bool exact in new[] { true, false })
            {
                float[] input = Input(matrix, tokens, exact, random);
                foreach (MatmulInstructions instructions in Supported)
                {
                    linear.Instructions = instructions;
                    float[] output = MatmulData.Multiply(linear, team, input, tokens);
                    for (int i = 0; i < output.Length; i++)
                    {
                        (double expected, double tolerance) = Expected(
                            matrix, i % outputs, input.AsSpan(i / outputs * inputs, inputs), exact || linear.Reads == ActivationForms.Floats);
                        Assert.True(
                            Math.Abs(output[i] - expected) <= tolerance,
                            $"{kind}, {instructions}, [{outputs}, {inputs}], token {i / outputs} of {tokens}, row {i % outputs}: {output[i]}, not {expected} ± {tolerance}");
                    }
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(CodedData.All), MemberType = typeof(CodedData))]
    public void Bits_depend_on_nothing_but_the_tokens_row(int index)
    {
        CodedCase kind = CodedData.Cases[index];
        Random random = Seed.Fresh();
        const int Outputs = 90, Inputs = 590, Tokens = 65;
        using var one = new ThreadTeam(1);
        using PackedLinear linear = CodedData.Load(one, CodedData.Make(kind, Outputs, Inputs, random));
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random);
        linear.Instructions = MatmulInstructions.Portable;
        float[] alone = [.. Enumerable.Range(0, Tokens).SelectMany(token => MatmulData.Multiply(linear, one, input[(token * Inputs)..], 1))];
        using var two = new ThreadTeam(2);
        foreach (MatmulInstructions instructions in Supported)
        {
            linear.Instructions = instructions;
            foreach (int tokens in new[] { 1, 2, 5, 8, 9, 14, 15, 49, 65 })
            {
                int first = random.Next(Tokens - tokens + 1);
                float[] output = MatmulData.Multiply(linear, tokens % 2 == 0 ? one : two, input[(first * Inputs)..], tokens);
                MatmulData.AssertBits(alone.AsSpan(first * Outputs, tokens * Outputs), output, $"{kind}, {instructions}, {tokens} tokens");
            }
        }
    }

    [Theory]
    [MemberData(nameof(CodedData.All), MemberType = typeof(CodedData))]
    public void Rows_decode_to_the_weights_and_take_as_few_bits_as_promised(int index)
    {
        CodedCase kind = CodedData.Cases[index];
        Random random = Seed.Fresh();
        const int Inputs = 1024, Outputs = 64;
        using var team = new ThreadTeam(2);
        TestCodedMatrix matrix = CodedData.Make(kind, Outputs, Inputs, random);
        using PackedLinear linear = CodedData.Load(team, matrix);
        Assert.InRange(linear.Bytes * 8.0 / (Inputs * Outputs), kind.Bits, kind.MostBits);
        float[] row = new float[Inputs], direct = new float[Inputs];
        for (int i = 0; i < Outputs; i++)
        {
            linear.DecodeRow(i, row);
            matrix.DecodeRow(i, direct);
            for (int place = 0; place < Inputs; place++)
            {
                int column = matrix.Column(place);
                (double weight, double magnitude) = matrix.At(i, place);
                Assert.True(Math.Abs(row[column] - weight) <= magnitude * Math.Pow(2, -21), $"{kind}, row {i}, column {column}: {row[column]}, not {weight}");
                Assert.True(kind.Scale is ScaleKind.F32 or ScaleKind.SmallFloat || direct[column] == row[column], $"{kind}, row {i}, column {column}");
            }
        }
    }

    /// <summary>Two of every four weights are zero: held without them, also where each group has a zero point of its own; the dense twin has as many other rows.</summary>
    [Theory]
    [InlineData(CodeNumbers.Integer, 4, 128, ZeroKind.Symmetric, ScaleKind.F16, 3.3)]
    [InlineData(CodeNumbers.Integer, 4, 16, ZeroKind.Symmetric, ScaleKind.F16, 4.1)]
    [InlineData(CodeNumbers.Integer, 6, 64, ZeroKind.Groups, ScaleKind.F16, 5.3)]
    [InlineData(CodeNumbers.Integer, 7, 128, ZeroKind.Groups, ScaleKind.BF16, 5.2)]
    [InlineData(CodeNumbers.Integer, 8, 0, ZeroKind.Symmetric, ScaleKind.F32, 5.3)]
    [InlineData(CodeNumbers.Integer, 8, 16, ZeroKind.Symmetric, ScaleKind.BF16, 6.1)]
    [InlineData(CodeNumbers.Integer, 8, 64, ZeroKind.Symmetric, ScaleKind.F16, 5.3)]
    [InlineData(CodeNumbers.E2M1, 4, 16, ZeroKind.None, ScaleKind.SmallFloat, 3.8)]
    [InlineData(CodeNumbers.E2M1, 4, 16, ZeroKind.None, ScaleKind.F32, 5.1)]
    [InlineData(CodeNumbers.E2M1, 4, 32, ZeroKind.None, ScaleKind.Power, 3.3)]
    [InlineData(CodeNumbers.E2M1, 4, 64, ZeroKind.None, ScaleKind.BF16, 3.3)]
    public void Two_of_four_zeros_are_left_out(CodeNumbers numbers, int bits, int group, ZeroKind zero, ScaleKind scale, double mostBits)
    {
        var kind = new CodedCase(numbers, bits, group, zero, scale);
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs, int tokens) in new[] { (32, 1, 1), (352, 17, 2), (333, 50, 9), (384, 64, 5), (160, 40, 8), (96, 33, 49) })
        {
            TestCodedMatrix matrix = CodedData.Make(kind, 2 * outputs, inputs, random);
            byte[] codes = [.. matrix.Codes];
            CodedData.Prune(matrix, random);
            codes.AsSpan(outputs * inputs).CopyTo(matrix.Codes.AsSpan(outputs * inputs));
            using var checkpoint = new TestCodedCheckpoint([matrix]);
            using PackedLinear dense = CodedData.Load(team, matrix);
            using PackedLinear sparse = PackedLinear.Load(new LinearPlan(inputs, [new LinearPart(outputs, new WeightRef("w"))]), checkpoint, team);
            Assert.True(outputs < 64 || sparse.Bytes * 8.0 / (outputs * inputs) <= mostBits, $"{sparse.Bytes} bytes");
            Assert.True(outputs < 64 || sparse.Bytes / (double)outputs < dense.Bytes / (2.0 * outputs), "nothing was left out");
            float[] weights = new float[inputs], denseWeights = new float[inputs];
            for (int row = 0; row < outputs; row++)
            {
                sparse.DecodeRow(row, weights);
                dense.DecodeRow(row, denseWeights);
                Assert.All(weights.Zip(denseWeights), pair => Assert.Equal(pair.First, pair.Second, Math.Abs(pair.Second) * 1e-6f));
            }
            float[] input = Input(matrix, tokens, true, random);
            foreach (MatmulInstructions instructions in Supported)
            {
                sparse.Instructions = instructions;
                float[] output = MatmulData.Multiply(sparse, team, input, tokens);
                for (int i = 0; i < output.Length; i++)
                {
                    (double expected, double tolerance) = Expected(matrix, i % outputs, input.AsSpan(i / outputs * inputs, inputs), true);
                    Assert.True(Math.Abs(output[i] - expected) <= tolerance, $"{kind}, {instructions}, [{outputs}, {inputs}], {i}: {output[i]}, not {expected} ± {tolerance}");
                }
            }
        }
    }

    [Fact]
    public void Parts_with_different_orders_stand_side_by_side()
    {
        Random random = Seed.Fresh();
        const int Inputs = 320, Tokens = 11;
        using var team = new ThreadTeam(2);
        int[] kinds = [2, 0, 3, 24, 11, 2];
        TestCodedMatrix[] matrices = [.. kinds.Select((kind, i) => CodedData.Make(CodedData.Cases[kind], 10 + 7 * i, Inputs, random, $"w{i}"))];
        using PackedLinear all = CodedData.Load(team, matrices);
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random), output = MatmulData.Multiply(all, team, input, Tokens);
        int first = 0;
        foreach (TestCodedMatrix matrix in matrices)
        {
            using PackedLinear part = CodedData.Load(team, matrix);
            float[] alone = MatmulData.Multiply(part, team, input, Tokens);
            int rows = (int)matrix.Rows;
            for (int token = 0; token < Tokens; token++)
            {
                MatmulData.AssertBits(
                    alone.AsSpan(token * rows, rows), output.AsSpan(token * all.Plan.Outputs + first, rows), $"{matrix.Name}, {matrix.Format}, token {token}");
            }
            first += rows;
        }
    }

    [Fact]
    public void Every_other_row_of_a_matrix_can_be_taken_and_some_of_these()
    {
        Random random = Seed.Fresh();
        const int Inputs = 160, Rows = 50;
        using var team = new ThreadTeam(2);
        float[] input = MatmulData.RandomInput(Inputs, random);
        foreach (CodedCase kind in CodedData.Cases)
        {
            TestCodedMatrix matrix = CodedData.Make(kind, Rows, Inputs, random);
            using var checkpoint = new TestCodedCheckpoint([matrix]);
            using PackedLinear some = PackedLinear.Load(new LinearPlan(Inputs, [new(20, new("w", 3) { RowStep = 2 })]), checkpoint, team);
            float[] output = MatmulData.Multiply(some, team, input, 1);
            for (int row = 0; row < output.Length; row++)
            {
                (double expected, double tolerance) = Expected(matrix, 3 + 2 * row, input, some.Reads == ActivationForms.Floats);
                Assert.True(Math.Abs(output[row] - expected) <= tolerance, $"{kind}, row {row}: {output[row]}, not {expected} ± {tolerance}");
            }
            var kept = new LinearPart(20, new WeightRef("w", 3) { RowStep = 2 }) { Rows = [0, 4, 5, 19] };
            using PackedLinear chosen = PackedLinear.Load(new LinearPlan(Inputs, [kept]), checkpoint, team);
            output = MatmulData.Multiply(chosen, team, input, 1);
            for (int row = 0; row < output.Length; row++)
            {
                (double expected, double tolerance) = kept.Rows.Value.Contains(row)
                    ? Expected(matrix, 3 + 2 * row, input, chosen.Reads == ActivationForms.Floats) : (0, 0);
                Assert.True(Math.Abs(output[row] - expected) <= tolerance, $"{kind}, chosen row {row}: {output[row]}, not {expected} ± {tolerance}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(CodedData.All), MemberType = typeof(CodedData))]
    public unsafe void Multiplying_allocates_nothing(int index)
    {
        const int Inputs = 256, Outputs = 700;
        using var team = new ThreadTeam(2);
        using PackedLinear linear = CodedData.Load(team, CodedData.Make(CodedData.Cases[index], Outputs, Inputs, new Random(1)));
        fixed (float* from = new float[Inputs * 20], to = new float[Outputs * 20])
        {
            linear.Multiply(team, from, 20, to, false);
            linear.Multiply(team, from, 1, to, false);
            float* source = from, destination = to;
            Assert.Equal(0, Allocation.Of(() =>
            {
                linear.Multiply(team, source, 20, destination, false);
                linear.Multiply(team, source, 1, destination, true);
            }));
        }
    }

    /// <summary>[tokens, columns]; exact where 8 bits per block of places hold them.</summary>
    private static float[] Input(TestCodedMatrix matrix, int tokens, bool exact, Random random)
    {
        int columns = matrix.Columns;
        var input = new float[tokens * columns];
        for (int token = 0; token < tokens; token++)
        {
            float[] places = exact ? MatmulData.ExactInput(columns, random) : MatmulData.RandomInput(columns, random);
            for (int place = 0; place < columns; place++)
            {
                input[token * columns + matrix.Column(place)] = places[place];
            }
        }
        return input;
    }

    /// <summary>
    /// The sum in double precision, and how far float32 arithmetic may be from it; where activations are rounded to 8 bits, half a step of each block on every
    /// weight besides.
    /// </summary>
    private static (double Expected, double Tolerance) Expected(TestCodedMatrix matrix, int row, ReadOnlySpan<float> input, bool exact)
    {
        double sum = 0, tolerance = 1e-30, magnitude = 0;
        for (int block = 0; block < input.Length; block += 32)
        {
            double largest = 0, weights = 0;
            for (int place = block; place < Math.Min(block + 32, input.Length); place++)
            {
                (double weight, double term) = matrix.At(row, place);
                double x = input[matrix.Column(place)];
                sum += weight * x;
                weights += Math.Abs(weight);
                largest = Math.Max(largest, Math.Abs(x));
                magnitude += term * Math.Abs(x);
            }
            tolerance += exact ? 0 : largest / 127 * 0.5001 * weights;
        }
        // n roundings to float32 in sequence: λ·√n·u of the magnitudes with λ = 8 (Higham and Mary 2019), u = 2⁻²⁴; and those of a scale.
        double relative = 8 * (Math.Sqrt(input.Length) + 1) * Math.Pow(2, -24);
        Assert.True(relative <= 1e-5);
        return (sum, tolerance + magnitude * relative);
    }
}
