using System.Globalization;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>
/// Matrices most of whose codes are zero, wherever these are, are packed without them, and give the bits that they give dense: integer sums are exact. The dense twin
/// is the same tensor with rows behind it that have no zeros.
/// </summary>
public sealed class MaskedProductTests
{
    private const int PanelRows = 16;

    private static readonly DType[] Types = [DType.Q8_0, DType.Q4_0];

    private static readonly CodedCase[] kinds =
    [
        new(CodeNumbers.Integer, 8, 0, ZeroKind.Symmetric, ScaleKind.F32),
        new(CodeNumbers.Integer, 8, 128, ZeroKind.Symmetric, ScaleKind.F16, true),
        new(CodeNumbers.Integer, 7, 64, ZeroKind.Groups, ScaleKind.BF16),
        new(CodeNumbers.Integer, 4, 128, ZeroKind.Symmetric, ScaleKind.F16),
        new(CodeNumbers.Integer, 4, 32, ZeroKind.Symmetric, ScaleKind.BF16, true),
    ];

    public static TheoryData<DType> Formats => [.. Types];

    public static TheoryData<int> Kinds => [.. Enumerable.Range(0, kinds.Length)];

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

    [Theory]
    [MemberData(nameof(FormatsAndInstructions))]
    public void Products_have_the_bits_of_dense_ones(DType format, string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        SkipUnlessChosen();
        MatmulData.SkipUnlessSupported(instructions);
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs) in new[] { (32, 1), (96, 15), (160, 33), (544, 86), (2080, 70) })
        {
            using var checkpoint = new MemoryCheckpoint();
            checkpoint.Add("w", format, [Twin(outputs), inputs], Sparse(format, inputs, outputs, random));
            using PackedLinear masked = Load(checkpoint, inputs, outputs, team), dense = Load(checkpoint, inputs, Twin(outputs), team);
            AssertSmaller(masked, dense);
            masked.Instructions = instructions;
            dense.Instructions = instructions;
            foreach (int tokens in new[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64 })
            {
                AssertSameProducts(masked, dense, tokens, team, random);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Codes_with_scales_apart_have_the_bits_of_dense_ones(int kind)
    {
        SkipUnlessChosen();
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach ((int inputs, int outputs) in new[] { (128, 31), (384, 50), (2432, 17) })
        {
            TestCodedMatrix matrix = CodedData.Make(kinds[kind], Twin(outputs), inputs, random);
            for (int i = 0; i < outputs * inputs; i++)
            {
                int zero = matrix.Zeros[i / inputs * matrix.Groups + i % inputs / matrix.GroupColumns];
                if (zero < 1 << matrix.Bits && (random.Next(4) > 0 || Emptied(i / inputs)) && i > 3)
                {
                    matrix.Codes[i] = (byte)zero;
                }
            }
            using var checkpoint = new TestCodedCheckpoint([matrix]);
            using PackedLinear masked = Load(checkpoint, inputs, outputs, team), dense = Load(checkpoint, inputs, Twin(outputs), team);
            AssertSmaller(masked, dense);
            foreach (int tokens in new[] { 1, 2, 3, 8, 9, 50 })
            {
                AssertSameProducts(masked, dense, tokens, team, random);
            }
            float[] expected = new float[inputs], actual = new float[inputs];
            for (int row = 0; row < outputs; row++)
            {
                dense.DecodeRow(row, expected);
                masked.DecodeRow(row, actual);
                Assert.Equal(expected, actual);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Rows_decode_to_the_values_of_the_file(DType format)
    {
        SkipUnlessChosen();
        Random random = Seed.Fresh();
        const int Inputs = 288, Outputs = 71;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        byte[] bytes = Sparse(format, Inputs, Outputs, random);
        checkpoint.Add("w", format, [Twin(Outputs), Inputs], bytes);
        using PackedLinear linear = Load(checkpoint, Inputs, Outputs, team);
        var expected = new float[Inputs * Twin(Outputs)];
        Codec.For(format).Decode(bytes, expected);
        var row = new float[Inputs];
        for (int i = 0; i < Outputs; i++)
        {
            linear.DecodeRow(i, row);
            Assert.Equal(expected[(i * Inputs)..((i + 1) * Inputs)], row);
        }
    }

    /// <summary>Every other row, a subset of rows, and the second matrix of two, as mixtures of experts have them.</summary>
    [Theory]
    [MemberData(nameof(Formats))]
    public void Some_rows_of_a_tensor_have_the_bits_of_dense_ones(DType format)
    {
        SkipUnlessChosen();
        Random random = Seed.Fresh();
        const int Inputs = 352, Outputs = 60, Tokens = 3;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        byte[] other = Sparse(format, Inputs, Outputs, random), bytes = Sparse(format, Inputs, Outputs, random);
        int rows = Twin(Outputs);
        checkpoint.Add("w", format, [2, rows, Inputs], [.. other, .. bytes]);
        var whole = new WeightRef("w") { Slice = 1 };
        using PackedLinear dense = Load(checkpoint, Inputs, new LinearPart(rows, whole), team);
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random), expected = MatmulData.Multiply(dense, team, input, Tokens);
        int[] kept = [0, 1, 2, 5, 16, 31, 32, 47, 58];
        (LinearPart Part, Func<int, int> Row)[] parts =
        [
            (new LinearPart(Outputs, whole), static row => row),
            (new LinearPart(25, whole with { FirstRow = 3, RowStep = 2 }), static row => 3 + 2 * row),
            (new LinearPart(Outputs, whole) { Rows = [.. kept] }, row => kept.Contains(row) ? row : -1),
        ];
        foreach ((LinearPart part, Func<int, int> rowOf) in parts)
        {
            using PackedLinear masked = Load(checkpoint, Inputs, part, team);
            AssertSmaller(masked, dense);
            float[] actual = MatmulData.Multiply(masked, team, input, Tokens);
            for (int i = 0; i < Tokens * part.Outputs; i++)
            {
                int row = rowOf(i % part.Outputs);
                Assert.Equal(row < 0 ? 0 : expected[i / part.Outputs * rows + row], actual[i]);
            }
        }
    }

    [Fact]
    public void A_weight_takes_a_bit_and_what_is_kept_its_code()
    {
        SkipUnlessChosen();
        Random random = Seed.Fresh();
        const int Inputs = 1024, Outputs = 40, Panels = 3, ScaleBytes = Inputs / 32 * PanelRows * 2;
        using var team = new ThreadTeam(1);
        using var checkpoint = new MemoryCheckpoint();
        byte[] bytes = Sparse(DType.Q8_0, Inputs, Outputs, random)[..(Outputs * Inputs / 32 * 34)];
        checkpoint.Add("w", DType.Q8_0, [Outputs, Inputs], bytes);
        var kept = new int[Panels];
        for (int i = 0; i < bytes.Length; i++)
        {
            kept[i / (Inputs / 32 * 34) / PanelRows] += i % 34 >= 2 && bytes[i] != 0 ? 1 : 0;
        }

        using PackedLinear linear = Load(checkpoint, Inputs, Outputs, team);

        // The panels end with whole lines; a line may be read past the last, and a table says where each starts.
        long panels = kept.Sum(static count => (ScaleBytes + Inputs * PanelRows / 8 + count + 63L) / 64 * 64);
        Assert.Equal(panels + 64 + (Panels + 1) * 8, linear.Bytes);
        string percent = (100.0 * kept.Sum() / (Inputs * Outputs)).ToString("F0", CultureInfo.InvariantCulture);
        Assert.Equal($"Q8_0, {percent} % kept", MatrixForms.Of(checkpoint, "w"));
    }

    [Theory]
    [InlineData(DType.Q8_0, 0.62, false)]
    [InlineData(DType.Q8_0, 0.5, true)]
    [InlineData(DType.Q4_0, 0.4, false)]
    [InlineData(DType.Q4_0, 0.3, true)]
    [InlineData(DType.Q8_0, 0, false)]
    [InlineData(DType.Q4_0, 0, false)]
    public void A_matrix_with_few_zeros_or_nothing_else_is_dense(DType format, double kept, bool masked)
    {
        SkipUnlessChosen();
        Random random = Seed.Fresh();
        const int Inputs = 1024, Outputs = 100;
        using var checkpoint = new MemoryCheckpoint();
        byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, random);
        for (int i = 0; i < Inputs * Outputs; i++)
        {
            MatmulData.SetCode(format, bytes, i, random.NextDouble() < kept ? 3 : 0);
        }
        checkpoint.Add("w", format, [Outputs, Inputs], bytes);
        Assert.Equal(masked, MatrixForms.Of(checkpoint, "w")!.EndsWith("kept", StringComparison.Ordinal));
    }

    /// <summary>Zeros at the start and the end alone, so that only reading the matrix tells that it is dense.</summary>
    [Fact]
    public void Zeros_at_the_start_alone_do_not_make_a_matrix_sparse()
    {
        Random random = Seed.Fresh();
        const int Inputs = 64, Outputs = 640;
        using var checkpoint = new MemoryCheckpoint();
        byte[] bytes = MatmulData.RandomBytes(DType.Q8_0, Inputs * Outputs, random);
        for (int i = 3; i < 100 * Inputs; i++)
        {
            MatmulData.SetCode(DType.Q8_0, bytes, i, 0);
        }
        checkpoint.Add("w", DType.Q8_0, [Outputs, Inputs], bytes);
        Assert.Equal("Q8_0", MatrixForms.Of(checkpoint, "w"));
    }

    private static void SkipUnlessChosen() => Assert.SkipUnless(
        MatmulInstructions.Avx512Vnni.IsSupported() && MatmulInstructionSupport.Assembles(CodeSparsity.Unstructured),
        "matrices stay dense without 512-bit VPDPBUSD and VPEXPANDB");

    /// <summary>Rows of a tensor of which the first so many are sparse.</summary>
    private static int Twin(int outputs) => 4 * outputs + 1;

    /// <summary>Rows of a panel in the middle have nothing but zeros.</summary>
    private static bool Emptied(int row) => row / PanelRows == 1;

    /// <summary>Rows of a panel have no zeros but those that are drawn, codes of −128 among them.</summary>
    private static bool Filled(int row) => row / PanelRows == 3;

    /// <summary>Random scales and codes; of the first rows most codes are zero, and three neighbours are not, as no 2:4 has them.</summary>
    private static byte[] Sparse(DType format, int inputs, int outputs, Random random)
    {
        byte[] bytes = MatmulData.RandomBytes(format, (long)inputs * Twin(outputs), random);
        double kept = 0.02 + 0.15 * random.NextDouble();
        for (int i = 0; i < inputs * outputs; i++)
        {
            if (i < 3)
            {
                MatmulData.SetCode(format, bytes, i, 3);
            }
            else if (Emptied(i / inputs) || (!Filled(i / inputs) && random.NextDouble() >= kept))
            {
                MatmulData.SetCode(format, bytes, i, 0);
            }
        }
        return bytes;
    }

    private static PackedLinear Load(Checkpoint checkpoint, int inputs, int outputs, ThreadTeam team) =>
        Load(checkpoint, inputs, new LinearPart(outputs, new WeightRef("w")), team);

    private static PackedLinear Load(Checkpoint checkpoint, int inputs, LinearPart part, ThreadTeam team) =>
        PackedLinear.Load(new LinearPlan(inputs, [part]), checkpoint, team);

    /// <summary>Fewer bytes for a weight, but in matrices so small that tables and whole lines count.</summary>
    private static void AssertSmaller(PackedLinear masked, PackedLinear dense)
    {
        if (masked.Plan.Outputs >= PanelRows)
        {
            Assert.True((double)masked.Bytes / masked.Plan.Outputs < (double)dense.Bytes / dense.Plan.Outputs, "nothing was left out");
        }
    }

    private static void AssertSameProducts(PackedLinear masked, PackedLinear dense, int tokens, ThreadTeam team, Random random)
    {
        int inputs = masked.Plan.Inputs, outputs = masked.Plan.Outputs, all = dense.Plan.Outputs;
        float[] input = MatmulData.RandomInput(inputs * tokens, random);
        float[] expected = MatmulData.Multiply(dense, team, input, tokens), actual = MatmulData.Multiply(masked, team, input, tokens);
        for (int token = 0; token < tokens; token++)
        {
            MatmulData.AssertBits(
                expected.AsSpan(token * all, outputs), actual.AsSpan(token * outputs, outputs), $"[{outputs}, {inputs}], token {token} of {tokens}");
        }
    }
}
