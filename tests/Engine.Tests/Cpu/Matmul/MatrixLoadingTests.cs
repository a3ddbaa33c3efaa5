using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;
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
            else
            {
                MemoryMarshal.Write(place, format == DType.BF16 ? (ushort)0x7F80 : (ushort)0xFC00);
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
    [MemberData(nameof(MatmulData.AllFormats), MemberType = typeof(MatmulData))]
    public void PackedWeightsAreNoLargerThanTheFile(DType format)
    {
        const int Inputs = 2048, Outputs = 256;
        using var team = new ThreadTeam(2);
        byte[] bytes = MatmulData.RandomBytes(format, Inputs * Outputs, new Random(1));
        using PackedLinear linear = MatmulData.Load(format, Inputs, Outputs, bytes, team);
        Assert.InRange(linear.Bytes, bytes.Length * 0.99, bytes.Length * 1.03);
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
