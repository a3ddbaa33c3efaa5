using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>
/// Matrices of which every four neighbours have at most two that are not zero are packed without the others, and give the bits that they give dense. The dense
/// twin is the same matrix with rows more that have all their weights.
/// </summary>
public sealed class SparseProductTests
{
    private static readonly DType[] Types = [DType.Q8_0, DType.Q4_0];

    public static TheoryData<DType, string> FormatsAndInstructions
    {
        get
        {
            var data = new TheoryData<DType, string>();
            foreach (DType format in Types)
            {
                foreach (string instructions in Enum.GetNames<MatmulInstructions>())
                {
                    data.Add(format, instructions);
                }
            }
            return data;
        }
    }

    public static TheoryData<DType> Formats => [.. Types];

    [Theory]
    [MemberData(nameof(FormatsAndInstructions))]
    public void Sparse_products_have_the_bits_of_dense_ones(DType format, string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        MatmulData.SkipUnlessSupported(instructions);
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs, int tokens) in new[]
            { (32, 1, 1), (96, 288, 2), (64, 15, 3), (160, 17, 7), (32, 33, 8), (2560, 40, 9), (672, 18, 49), (352, 50, 65) })
        {
            byte[] bytes = Conforming(format, inputs, outputs, random);
            using PackedLinear sparse = MatmulData.Load(format, inputs, outputs, bytes, team);
            int all = 2 * outputs + 1;
            using PackedLinear dense = MatmulData.Load(format, inputs, all, [.. bytes, .. Dense(format, inputs * (all - outputs), random)], team);
            Assert.True(sparse.Bytes < dense.Bytes, "nothing was left out");
            sparse.Instructions = instructions;
            dense.Instructions = instructions;
            float[] input = MatmulData.RandomInput(inputs * tokens, random);
            float[] expected = MatmulData.Multiply(dense, team, input, tokens), actual = MatmulData.Multiply(sparse, team, input, tokens);
            for (int token = 0; token < tokens; token++)
            {
                MatmulData.AssertBits(
                    expected.AsSpan(token * all, outputs), actual.AsSpan(token * outputs, outputs), $"[{outputs}, {inputs}], token {token} of {tokens}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Rows_decode_to_the_values_of_the_file(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 288, Outputs = 37;
        using var team = new ThreadTeam(2);
        byte[] bytes = Conforming(format, Inputs, Outputs, random);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        var expected = new float[Inputs * Outputs];
        Codec.For(format).Decode(bytes, expected);
        var row = new float[Inputs];
        for (int i = 0; i < Outputs; i++)
        {
            linear.DecodeRow(i, row);
            Assert.Equal(expected[(i * Inputs)..((i + 1) * Inputs)], row);
        }
    }

    [Theory]
    [InlineData(DType.Q8_0, 4 + 2 * 8, 2)]
    [InlineData(DType.Q4_0, 4 + 2 * 4, 2)]
    public void A_group_takes_two_weights_of_four_and_a_nibble(DType format, int groupBits, int scaleBytes)
    {
        const int Inputs = 4096, Outputs = 64;
        using var team = new ThreadTeam(1);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, Conforming(format, Inputs, Outputs, new Random(1)), team);
        Assert.Equal(Outputs * Inputs / 32L * (groupBits + scaleBytes), linear.Bytes); // 8 groups of so many bits are so many bytes.
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void One_group_of_three_breaks_the_pattern_and_zeros_alone_make_a_matrix_dense(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 64, Outputs = 48;
        byte[] bytes = Conforming(format, Inputs, Outputs, random), zeros = Conforming(format, Inputs, Outputs, random, most: 0);
        Assert.Equal($"{format}, 2:4", Form(bytes));
        int group = random.Next(Inputs * Outputs / 4);
        for (int i = 0; i < 3; i++)
        {
            MatmulData.SetCode(format, bytes, group * 4 + i, 3);
        }

        Assert.DoesNotContain("2:4", Form(bytes), StringComparison.Ordinal);
        Assert.Equal($"{format}", Form(zeros));

        string? Form(byte[] weights)
        {
            using var checkpoint = new MemoryCheckpoint();
            checkpoint.Add("w", format, [Outputs, Inputs], weights);
            return MatrixForms.Of(checkpoint, "w");
        }
    }

    /// <summary>Random scales and codes; of every four neighbours <paramref name="most"/> or fewer are not zero.</summary>
    private static byte[] Conforming(DType format, int inputs, int outputs, Random random, int most = 2)
    {
        byte[] bytes = MatmulData.RandomBytes(format, (long)inputs * outputs, random);
        for (int group = 0; group < inputs * outputs / 4; group++)
        {
            int kept = random.Next(8) == 0 ? random.Next(most + 1) : most;
            int[] places = [0, 1, 2, 3];
            random.Shuffle(places);
            foreach (int place in places[kept..])
            {
                MatmulData.SetCode(format, bytes, group * 4 + place, 0);
            }
        }
        return bytes;
    }

    private static byte[] Dense(DType format, int elements, Random random)
    {
        byte[] bytes = MatmulData.RandomBytes(format, elements, random);
        for (int i = 0; i < 3; i++)
        {
            MatmulData.SetCode(format, bytes, i, 1);
        }
        return bytes;
    }
}
