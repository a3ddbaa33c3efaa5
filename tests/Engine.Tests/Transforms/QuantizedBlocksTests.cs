using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Writing;
using Engine.Tests.Transforms.Calibration;
using Engine.Transforms.Calibration;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Transforms;

/// <summary>Blocks of GGUF whose codes are chosen one by one.</summary>
public sealed class QuantizedBlocksTests
{
    public static TheoryData<string> Formats => [.. QuantizationRecipe.All.Select(static recipe => recipe.Name)
        .Where(static name => Enum.TryParse(name, out DType dtype) && dtype is not (DType.F32 or DType.F16 or DType.BF16))];

    [Theory]
    [MemberData(nameof(Formats))]
    public void Codes_are_the_nearest_under_the_scales_that_the_codec_chooses(string format)
    {
        DType dtype = Enum.Parse<DType>(format);
        int rows = 4, columns = 2 * dtype.Info().BlockElements;
        Random random = Seed.Fresh();
        float[] weights = Cpu.TestRows.Normal(random, rows * columns);
        // A block of zeros, and one whose weights differ by their size, have scales that others have not.
        weights.AsSpan(0, dtype.Info().BlockElements).Clear();
        for (int i = columns; i < 2 * columns; i++)
        {
            weights[i] *= MathF.Exp(3 * random.NextSingle()) * 1e-3f;
        }
        var matrix = new QuantizedBlocks(rows, columns, dtype);
        float[] rounded = new float[weights.Length];
        for (int row = 0; row < rows; row++)
        {
            for (int column = columns - matrix.GroupColumns; column >= 0; column -= matrix.GroupColumns)
            {
                int first = row * columns + column;
                matrix.Fit(row, column, weights.AsSpan(first, matrix.GroupColumns));
                for (int i = matrix.GroupColumns - 1; i >= 0; i--)
                {
                    rounded[first + i] = matrix.Round(row, column + i, weights[first + i]);
                }
            }
        }
        byte[] stored = matrix.ToBytes(), usual = new byte[stored.Length];
        Codec.For(dtype).Encode(weights, usual);
        float[] decoded = Decode(dtype, stored), expected = Decode(dtype, usual);
        // −0 and 0 are one number, and which of them a code stands for is the codec's affair.
        Assert.Equal(decoded.Select(static value => value + 0f), rounded.Select(static value => value + 0f));
        // Encoders round with scales that are not rounded yet, or go by other weights of the error: here each weight is as near as its block allows.
        for (int i = 0; i < weights.Length; i++)
        {
            float least = MathF.Abs(weights[i] - expected[i]);
            Assert.True(MathF.Abs(weights[i] - decoded[i]) <= least * 1.00001f + 1e-12f, $"weight {i}: {weights[i]} became {decoded[i]}, the codec has {expected[i]}");
        }
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q4_1")]
    [InlineData("Q5_0")]
    [InlineData("Q8_0")]
    [InlineData("IQ4_NL")]
    [InlineData("Q2_K")]
    [InlineData("Q3_K")]
    [InlineData("Q4_K")]
    [InlineData("Q6_K")]
    [InlineData("IQ4_XS")]
    [InlineData("TQ2_0")]
    public void Compensated_codes_lose_less(string format)
    {
        DType dtype = Enum.Parse<DType>(format);
        // Wider than a block of the sweep.
        var layer = new CorrelatedLayer(Seed.Fresh(), 12, 256, 700);
        byte[] usual = new byte[dtype.RowBytes(layer.Columns) * layer.Rows];
        Codec.For(dtype).Encode(layer.Weights, usual);
        var moment = new SecondMoment(layer.Columns, full: true);
        moment.Add(layer.Inputs, layer.Samples);
        float[] norms = moment.Norms();
        int[] largestFirst = [.. Enumerable.Range(0, layer.Columns).OrderByDescending(column => norms[column])];
        foreach (int[]? order in (int[]?[])[null, largestFirst])
        {
            var target = new QuantizedBlocks(layer.Rows, layer.Columns, dtype);
            float[] left = [.. layer.Weights];
            OptimalBrainSurgeon.Run(
                left, layer.Rows, layer.Columns, InverseFactor.Compute(moment.ToMatrix(order), layer.Columns), pattern: null, target: target, order: order);
            float[] decoded = Decode(dtype, target.ToBytes());
            Assert.Equal(decoded.Select(static value => value + 0f), left.Select(static value => value + 0f));
            Assert.True(layer.Error(decoded) < layer.Error(Decode(dtype, usual)), $"{layer.Error(decoded)} {layer.Error(Decode(dtype, usual))}");
        }
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q5_0")]
    [InlineData("Q8_0")]
    [InlineData("Q6_K")]
    public void Pruned_weights_stay_zero(string format)
    {
        DType dtype = Enum.Parse<DType>(format);
        var layer = new CorrelatedLayer(Seed.Fresh(), 6, 256, 300);
        var moment = new SecondMoment(layer.Columns, full: true);
        moment.Add(layer.Inputs, layer.Samples);
        var target = new QuantizedBlocks(layer.Rows, layer.Columns, dtype);
        OptimalBrainSurgeon.Run(
            [.. layer.Weights], layer.Rows, layer.Columns, InverseFactor.Compute(moment.ToMatrix(), layer.Columns), SparsityPattern.TwoOfFour, target: target);
        Assert.All(Decode(dtype, target.ToBytes()).Chunk(4), static group => Assert.True(group.Count(static weight => weight == 0) >= 2));
    }

    [Fact]
    public void Floats_have_no_codes()
    {
        Assert.All(QuantizationRecipe.All, static recipe =>
            Assert.Equal(Engine.Compression.CompressionOptions.HasCodes(recipe), QuantizedBlocks.Takes(recipe.For("blk.0.attn_q.weight", [256, 256], 4, false))));
        Assert.Throws<ArgumentException>(static () => new QuantizedBlocks(1, 32, DType.F16));
        Assert.Throws<ArgumentException>(static () => new QuantizedBlocks(1, 40, DType.Q4_0));
    }

    private static float[] Decode(DType dtype, byte[] stored)
    {
        float[] values = new float[stored.Length / dtype.Info().BlockBytes * dtype.Info().BlockElements];
        Codec.For(dtype).Decode(stored, values);
        return values;
    }
}
