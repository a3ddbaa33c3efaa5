using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>
/// Matrices of 16-bit floats of which many are zero are packed without these, wherever they are, and give the bits that they give dense. The dense twin is the
/// same matrix stored as [inputs, outputs], in which zeros are not looked for.
/// </summary>
public sealed class MaskedFloatTests
{
    private const ActivationPrecision Plain = ActivationPrecision.Float32, Rounded = ActivationPrecision.BFloat16;

    public static TheoryData<DType, ActivationPrecision, string> Products
    {
        get
        {
            var data = new TheoryData<DType, ActivationPrecision, string>();
            foreach (string instructions in Enum.GetNames<MatmulInstructions>())
            {
                data.Add(DType.BF16, Plain, instructions);
                data.Add(DType.BF16, Rounded, instructions);
                data.Add(DType.F16, Plain, instructions);
            }
            return data;
        }
    }

    public static TheoryData<DType> Formats => [DType.BF16, DType.F16];

    [Theory]
    [MemberData(nameof(Products))]
    public void Products_have_the_bits_of_dense_ones(DType format, ActivationPrecision precision, string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        SkipUnlessMasked(instructions);
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        int[] tokenCounts = [.. Enumerable.Range(1, 17), 64];
        foreach ((int inputs, int outputs, double kept) in new[]
            { (2, 16, 0.5), (1, 5, 0.2), (33, 50, 0.35), (96, 288, 0.1), (17, 15, 0.55), (515, 37, 0.02), (259, 65, 0.5), (641, 113, 0.3) })
        {
            Check(format, precision, instructions, inputs, outputs, Sparse(format, inputs, outputs, kept, random), tokenCounts, team, random);
        }
        Check(format, precision, instructions, 160, 33, TwoOfFour(format, 160, 33, random), tokenCounts, team, random);
    }

    /// <summary>One panel has no element, another all, which is more than the masks save.</summary>
    [Theory]
    [MemberData(nameof(Products))]
    public void Panels_may_be_empty_or_full(DType format, ActivationPrecision precision, string instructionSet)
    {
        var instructions = Enum.Parse<MatmulInstructions>(instructionSet);
        SkipUnlessMasked(instructions);
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        const int Inputs = 290, Outputs = 6 * Panel.Rows - 3, PanelBytes = Inputs * Panel.Rows * 2;
        byte[] bytes = Sparse(format, Inputs, Outputs, 0.3, random);
        bytes.AsSpan(PanelBytes, PanelBytes).Clear();
        byte[] full = Sparse(format, Inputs, Panel.Rows, 1, random);
        full.CopyTo(bytes, 3 * PanelBytes);
        Check(format, precision, instructions, Inputs, Outputs, bytes, [1, 5, 8, 14, 15, 64], team, random);
        Check(format, precision, instructions, Inputs, Panel.Rows, new byte[PanelBytes], [1, 8, 17], team, random);
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Rows_decode_to_the_values_of_the_file(DType format)
    {
        SkipUnlessMasked(MatmulInstructionSupport.Best);
        Random random = Seed.Fresh();
        const int Inputs = 531, Outputs = 101;
        using var team = new ThreadTeam(2);
        byte[] bytes = Sparse(format, Inputs, Outputs, 0.4, random);
        var expected = new float[Inputs * Outputs];
        Codec.For(format).Decode(bytes, expected);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        foreach (MatmulInstructions instructions in Enum.GetValues<MatmulInstructions>().Where(static set => set.IsSupported()))
        {
            linear.Instructions = instructions;
            for (int i = 0; i < Outputs; i++)
            {
                var row = new float[Inputs];
                linear.DecodeRow(i, row);
                Assert.Equal(expected[(i * Inputs)..((i + 1) * Inputs)], row);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Every_element_takes_a_bit_and_those_that_are_kept_sixteen(DType format)
    {
        SkipUnlessMasked(MatmulInstructionSupport.Best);
        Random random = Seed.Fresh();
        const int Inputs = 512, Outputs = 96, Panels = Outputs / Panel.Rows, Line = 64, Table = (Panels + 1) * 8;
        using var team = new ThreadTeam(1);
        byte[] bytes = Sparse(format, Inputs, Outputs, 0.35, random);
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        const int Kept = Inputs * Outputs * 35 / 100 * 2, Masks = Inputs * Outputs / 8;
        // Each panel ends with a line, and a line may be read past the last.
        Assert.InRange(linear.Bytes, Masks + Kept + Line + Table, Masks + Kept + Line + Table + Panels * (Line - 1));
        Assert.Equal($"{format}, 35 % kept", Form(format, Inputs, Outputs, bytes));
        Assert.Equal($"{format}, 2:4", Form(format, Inputs, Outputs, TwoOfFour(format, Inputs, Outputs, random)));
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Matrices_with_few_zeros_stay_dense_wherever_these_are(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 64, Outputs = 512;
        Assert.Equal($"{format}", Form(format, Inputs, Outputs, Sparse(format, Inputs, Outputs, 0.75, random)));

        // Whichever rows are looked at first: those of all panels but the last are zero at their beginnings or ends, or not.
        byte[] bytes = Sparse(format, Inputs, Outputs, 1, random);
        for (int row = 0; row < Outputs; row++)
        {
            if (row % 32 is > 12 and < 20)
            {
                bytes.AsSpan(row * Inputs * 2, Inputs * 2).Clear();
            }
        }
        Assert.Equal($"{format}", Form(format, Inputs, Outputs, bytes));
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void One_group_of_three_makes_no_difference_but_to_the_name(DType format)
    {
        SkipUnlessMasked(MatmulInstructionSupport.Best);
        Random random = Seed.Fresh();
        const int Inputs = 100, Outputs = 48;
        byte[] bytes = TwoOfFour(format, Inputs, Outputs, random);
        int group = random.Next(Inputs * Outputs / 4);
        MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan()).Slice(group * 4, 3).Fill(0x3C00);
        Assert.EndsWith("% kept", Form(format, Inputs, Outputs, bytes));
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Subsets_and_strides_of_rows_are_rows_of_the_whole(DType format)
    {
        SkipUnlessMasked(MatmulInstructionSupport.Best);
        Random random = Seed.Fresh();
        const int Inputs = 130, Outputs = 150, Tokens = 3, First = 5, Step = 3, Strided = 40;
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", format, [Outputs, Inputs], Sparse(format, Inputs, Outputs, 0.3, random));
        int[] rows = [.. Enumerable.Range(0, Outputs).Where(_ => random.Next(3) == 0)];
        float[] input = MatmulData.RandomInput(Inputs * Tokens, random);
        using PackedLinear whole = PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, new WeightRef("w"))]), checkpoint, team);
        using PackedLinear subset = PackedLinear.Load(
            new LinearPlan(Inputs, [new LinearPart(Outputs, new WeightRef("w")) { Rows = [.. rows] }]), checkpoint, team);
        using PackedLinear strided = PackedLinear.Load(
            new LinearPlan(Inputs, [new LinearPart(Strided, new WeightRef("w") { FirstRow = First, RowStep = Step })]), checkpoint, team);
        float[] all = MatmulData.Multiply(whole, team, input, Tokens);
        float[] some = MatmulData.Multiply(subset, team, input, Tokens), apart = MatmulData.Multiply(strided, team, input, Tokens);
        for (int token = 0; token < Tokens; token++)
        {
            float[] ofToken = all[(token * Outputs)..((token + 1) * Outputs)];
            float[] expected = [.. ofToken.Select((value, row) => rows.Contains(row) ? value : 0)];
            MatmulData.AssertBits(expected, some.AsSpan(token * Outputs, Outputs), $"subset, token {token}");
            MatmulData.AssertBits([.. Enumerable.Range(0, Strided).Select(row => ofToken[First + row * Step])], apart.AsSpan(token * Strided, Strided), $"stride, token {token}");
        }
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Numbers_that_are_not_finite_are_named(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 70, Outputs = 20;
        using var team = new ThreadTeam(1);
        byte[] bytes = Sparse(format, Inputs, Outputs, 0.3, random);
        MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan())[19 * Inputs + 69] = 0xFFC0; // A NaN of both.
        var exception = Assert.Throws<EngineException>(() => MatmulData.Load(format, Inputs, Outputs, bytes, team));
        Assert.Contains("w: the value at row 19, column 69", exception.Message);
    }

    private static void Check(
        DType format, ActivationPrecision precision, MatmulInstructions instructions, int inputs, int outputs, byte[] bytes, int[] tokenCounts, ThreadTeam team, Random random)
    {
        Assert.NotEqual($"{format}", Form(format, inputs, outputs, bytes));
        using PackedLinear sparse = MatmulData.Load(format, inputs, outputs, bytes, team, precision);
        using PackedLinear dense = Dense(format, inputs, outputs, bytes, team, precision);
        sparse.Instructions = instructions;
        dense.Instructions = instructions;
        foreach (int tokens in tokenCounts)
        {
            float[] input = MatmulData.RandomInput(inputs * tokens, random);
            MatmulData.AssertBits(
                MatmulData.Multiply(dense, team, input, tokens), MatmulData.Multiply(sparse, team, input, tokens), $"[{outputs}, {inputs}], {tokens} tokens");
        }
    }

    private static PackedLinear Dense(DType format, int inputs, int outputs, byte[] bytes, ThreadTeam team, ActivationPrecision precision)
    {
        ReadOnlySpan<ushort> elements = MemoryMarshal.Cast<byte, ushort>(bytes);
        var transposed = new byte[bytes.Length];
        Span<ushort> columns = MemoryMarshal.Cast<byte, ushort>(transposed.AsSpan());
        for (int i = 0; i < elements.Length; i++)
        {
            columns[i % inputs * outputs + i / inputs] = elements[i];
        }
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", format, [inputs, outputs], transposed);
        var part = new LinearPart(outputs, new WeightRef("w") { Transposed = true });
        return PackedLinear.Load(new LinearPlan(inputs, [part]), checkpoint, team, precision);
    }

    private static string? Form(DType format, int inputs, int outputs, byte[] bytes)
    {
        using var checkpoint = new MemoryCheckpoint();
        return MatrixLoader.FormOf(checkpoint.Add("w", format, [outputs, inputs], bytes), checkpoint);
    }

    /// <summary>Exactly a part of the elements, anywhere, is not zero; zeros have both signs.</summary>
    private static byte[] Sparse(DType format, int inputs, int outputs, double kept, Random random)
    {
        byte[] bytes = NotZero(format, inputs * outputs, random);
        int[] places = [.. Enumerable.Range(0, inputs * outputs)];
        random.Shuffle(places);
        foreach (int place in places[(int)(inputs * outputs * kept)..])
        {
            MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan())[place] = (ushort)(random.Next(2) << 15);
        }
        return bytes;
    }

    /// <summary>Of every four neighbours two or fewer are not zero.</summary>
    private static byte[] TwoOfFour(DType format, int inputs, int outputs, Random random)
    {
        byte[] bytes = NotZero(format, inputs * outputs, random);
        int[] places = [0, 1, 2, 3];
        for (int group = 0; group < inputs * outputs / 4; group++)
        {
            random.Shuffle(places);
            foreach (int place in places[(random.Next(8) == 0 ? random.Next(2) : 2)..])
            {
                MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan())[4 * group + place] = (ushort)(random.Next(2) << 15);
            }
        }
        return bytes;
    }

    private static byte[] NotZero(DType format, int count, Random random)
    {
        byte[] bytes = MatmulData.RandomBytes(format, count, random);
        foreach (ref ushort element in MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan()))
        {
            element |= (ushort)((element & 0x7FFF) == 0 ? 1 : 0);
        }
        return bytes;
    }

    private static void SkipUnlessMasked(MatmulInstructions instructions)
    {
        MatmulData.SkipUnlessSupported(instructions);
        Assert.SkipUnless(MatmulInstructionSupport.Best.ExpandsWords(), "this processor has no VPEXPANDW, and keeps zeros");
    }
}
