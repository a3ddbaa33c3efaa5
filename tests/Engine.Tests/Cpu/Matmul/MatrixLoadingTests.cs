using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>What is refused when weights are packed, and what packing costs.</summary>
public sealed class MatrixLoadingTests
{
    [Theory]
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void NonFiniteScalesAreRefusedByTensorAndRow(DType format)
    {
        Random random = Seed.Fresh();
        const int Inputs = 512, Outputs = 20, Row = 17;
        DTypeInfo info = format.Info();
        int rowBytes = Inputs / info.BlockElements * info.BlockBytes;
        int[] offsets = format.IsFloat() ? [0] : MatmulData.ScaleOffsets(format);
        using var team = new ThreadTeam(2);
        foreach (int offset in offsets)
        {
            byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, random);
            Span<byte> place = bytes.AsSpan(Row * rowBytes + (Inputs / info.BlockElements - 1) * info.BlockBytes + offset);
            if (format == DType.F32)
            {
                MemoryMarshal.Write(place, float.NaN);
            }
            else if (format == DType.MXFP4)
            {
                place[0] = 0xFF;
            }
            else
            {
                MatmulData.WriteScale(format, place, format == DType.BF16 ? (ushort)0x7F80 : (ushort)0xFC00);
            }
            EngineException exception = Assert.Throws<EngineException>(() => MatmulData.Load(format, Inputs, Outputs, bytes, team));
            Assert.Equal("w", exception.Item);
            Assert.Contains($"row {Row}", exception.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(64, 10, 0, false, DType.F32, "shape")] // one column too many
    [InlineData(32, 11, 0, false, DType.F32, "shape")] // one row too many
    [InlineData(32, 10, 1, false, DType.F32, "shape")] // a slice past the end
    [InlineData(32, 10, -1, false, DType.F32, "shape")]
    [InlineData(32, 10, int.MaxValue, false, DType.F32, "shape")]
    [InlineData(32, 10, 0, true, DType.F32, "shape")] // the transpose has the other shape
    [InlineData(32, 10, 0, false, DType.I32, "cannot be multiplied")]
    [InlineData(32, 10, 0, false, DType.F64, "cannot be multiplied")]
    public void TensorsThatDoNotFitThePlanAreRefused(int inputs, int outputs, int firstRow, bool transposed, DType format, string reason)
    {
        using var team = new ThreadTeam(1);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", format, [10, 32], new byte[format.Info().BlockBytes * 320]);
        var plan = new LinearPlan(inputs, [new LinearPart(outputs, new WeightRef("w", firstRow, transposed))]);
        EngineException exception = Assert.Throws<EngineException>(() => PackedLinear.Load(plan, checkpoint, team));
        Assert.Equal("w", exception.Item);
        Assert.Contains(reason, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void MissingTensorsTransposedBlocksAndBadBiasesAreRefused()
    {
        using var team = new ThreadTeam(1);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", [32, 32], new float[1024]);
        checkpoint.Add("q", [32, 32], new float[1024], DType.Q8_0);
        checkpoint.Add("short", [31], new float[31]);
        checkpoint.Add("integers", DType.I32, [32], new byte[128]);
        Refused(new LinearPart(32, new WeightRef("none")), "none");
        Refused(new LinearPart(32, new WeightRef("q", 0, true)), "q");
        Refused(new LinearPart(32, new WeightRef("w"), new WeightRef("absent")), "absent");
        Refused(new LinearPart(32, new WeightRef("w"), new WeightRef("short")), "short");
        Refused(new LinearPart(32, new WeightRef("w"), new WeightRef("integers")), "integers");

        void Refused(LinearPart part, string item) =>
            Assert.Equal(item, Assert.Throws<EngineException>(() => PackedLinear.Load(new LinearPlan(32, [part]), checkpoint, team)).Item);
    }

    [Theory]
    [InlineData(DType.F32, true)]
    [InlineData(DType.BF16, true)]
    [InlineData(DType.F16, false)]
    [InlineData(DType.Q8_0, false)]
    [InlineData(DType.MXFP4, false)]
    public void EveryOtherRowOfASliceIsTakenAndOfItsBias(DType format, bool transposed)
    {
        const int Slices = 3, Slice = 1, Inputs = 64, Stored = 39, Outputs = 19;
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        long[] shape = transposed ? [Slices, Inputs, Stored] : [Slices, Stored, Inputs];
        checkpoint.Add("w", format, shape, MatmulData.RandomBytes(format, Slices * Inputs * Stored, random));
        checkpoint.Add("b", [Slices, Stored], MatmulData.RandomInput(Slices * Stored, random));
        float[] weights = checkpoint["w"].ToFloats(), biases = checkpoint["b"].ToFloats();
        foreach (int first in new[] { 0, 1, 2 })
        {
            var part = new LinearPart(
                Outputs, new WeightRef("w", first, transposed) { Slice = Slice, RowStep = 2 }, new WeightRef("b", first) { Slice = Slice, RowStep = 2 });
            using PackedLinear linear = PackedLinear.Load(new LinearPlan(Inputs, [part]), checkpoint, team);
            var row = new float[Inputs];
            float[] bias = MatmulData.Multiply(linear, team, new float[Inputs], 1);
            for (int output = 0; output < Outputs; output++)
            {
                linear.DecodeRow(output, row);
                int stored = first + 2 * output;
                Assert.Equal(biases[Slice * Stored + stored], bias[output]);
                for (int input = 0; input < Inputs; input++)
                {
                    int at = transposed ? input * Stored + stored : stored * Inputs + input;
                    Assert.Equal(weights[Slice * Inputs * Stored + at], row[input]);
                }
            }
        }
        Refused(new WeightRef("w", 3, transposed) { Slice = Slice, RowStep = 2 }, new WeightRef("b"));
        Refused(new WeightRef("w", 0, transposed) { Slice = Slices, RowStep = 2 }, new WeightRef("b"));
        Refused(new WeightRef("w", 0, transposed) { Slice = -1 }, new WeightRef("b"));
        Refused(new WeightRef("b", 0, transposed) { Slice = 0 }, new WeightRef("b"));
        Refused(new WeightRef("w", 0, transposed) { Slice = 0 }, new WeightRef("b", 3) { Slice = Slice, RowStep = 2 });
        Refused(new WeightRef("w", 0, transposed) { Slice = 0 }, new WeightRef("b") { Slice = Slices });
        Refused(new WeightRef("w", 0, transposed) { Slice = 0 }, new WeightRef("b"));

        void Refused(WeightRef weight, WeightRef bias) =>
            Assert.Throws<EngineException>(() => PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, weight, bias)]), checkpoint, team));
    }

    [Fact]
    public void CodesApartFromTheirScalesAreJoined()
    {
        const int Slices = 2, Inputs = 96, Stored = 40, Outputs = 20, Blocks = Inputs / 32;
        Random random = Seed.Fresh();
        float[] values = [.. Enumerable.Range(0, Slices * Stored * Inputs).Select(i => Mxfp4.Draw(random) * (1 << (i / 32 % 5)))];
        (byte[] codes, byte[] scales) = Mxfp4.Encode(values);
        using var team = new ThreadTeam(2);
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("codes", DType.U8, [Slices, Stored, Blocks, 16], codes);
        checkpoint.Add("scales", DType.U8, [Slices, Stored, Blocks], scales);
        checkpoint.Add("matrix", DType.U8, [Stored, Blocks, 16], codes.AsSpan(0, codes.Length / 2));
        checkpoint.Add("its scales", DType.F8_E8M0, [Stored, Blocks], scales.AsSpan(0, scales.Length / 2));
        checkpoint.Add("short", DType.U8, [Slices, Stored, Blocks - 1], new byte[Slices * Stored * (Blocks - 1)]);
        Same(new WeightRef("codes", 1) { Scales = "scales", Slice = 1, RowStep = 2 }, Stored + 1, 2);
        Same(new WeightRef("matrix", 20) { Scales = "its scales" }, 20, 1);
        Refused(new WeightRef("codes", 2) { Scales = "scales", Slice = 1, RowStep = 2 });
        Refused(new WeightRef("codes") { Scales = "scales", Slice = 2 });
        Refused(new WeightRef("codes") { Scales = "scales" });
        Refused(new WeightRef("codes") { Scales = "short", Slice = 0 });
        Refused(new WeightRef("codes") { Scales = "codes", Slice = 0 });
        Refused(new WeightRef("codes") { Slice = 0 });
        Refused(new WeightRef("matrix", 0, true) { Scales = "its scales" });
        Refused(new WeightRef("matrix", -1) { Scales = "its scales" });

        void Same(WeightRef weight, int first, int step)
        {
            using PackedLinear linear = PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, weight)]), checkpoint, team);
            var row = new float[Inputs];
            for (int output = 0; output < Outputs; output++)
            {
                linear.DecodeRow(output, row);
                Assert.Equal(values[((first + output * step) * Inputs)..((first + output * step + 1) * Inputs)], row);
            }
        }

        void Refused(WeightRef weight) =>
            Assert.Throws<EngineException>(() => PackedLinear.Load(new LinearPlan(Inputs, [new LinearPart(Outputs, weight)]), checkpoint, team));
    }

    [Theory]
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void PackedWeightsAreNoLargerThanTheFileOrTheirNumbers(DType format)
    {
        const int Inputs = 2048, Outputs = 256;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, new Random(1));
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);

        // Vectors of codebooks become 3 or 4 bits per weight, digits 2 bits; scales of 6 bits, and the odd ones of IQ3_S, become bytes.
        double bits = format switch
        {
            DType.Q3_K => 3 + 9 / 16.0,
            DType.IQ3_XXS => 4 + 3 / 16.0,
            DType.IQ3_S => 4 + 5 / 16.0,
            DType.IQ2_XXS or DType.IQ1_S => 3 + 3 / 16.0,
            DType.IQ2_XS or DType.IQ2_S or DType.IQ1_M => 3 + 5 / 16.0,
            DType.TQ1_0 => 2 + 1 / 16.0,
            _ => bytes.Length * 8.0 / (Inputs * Outputs),
        };
        double packed = bits / 8 * Inputs * Outputs;
        Assert.InRange(linear.Bytes, packed * 0.99, packed * 1.03);
    }

    [Fact]
    public void TheSmallestQ8CodeCountsAsMinus128()
    {
        using var team = new ThreadTeam(1);
        var bytes = new byte[34];
        MemoryMarshal.Write(bytes, (Half)1f);
        bytes.AsSpan(2).Fill(0x80);
        using PackedLinear linear = MatmulData.Load(DType.Q8_0, 32, 1, bytes, team);
        float[] input = [.. Enumerable.Repeat(-127f, 32)];
        Assert.Equal([32 * 128f * 127f], MatmulData.Multiply(linear, team, input, 1));
        Assert.Equal(Enumerable.Repeat(32 * 128f * 127f, 9), MatmulData.Multiply(linear, team, [.. Enumerable.Repeat(-127f, 32 * 9)], 9));
    }
}
