using Engine.Checkpoints;
using Engine.Transforms.Calibration;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Transforms.Calibration;

/// <summary>Pruning and quantization of single matrices: patterns, what calibration is worth, and the sweep against the formula it shortens.</summary>
public sealed class OptimalBrainSurgeonTests
{
    private static readonly SparsityPattern Half = SparsityPattern.Unstructured(0.5);

    [Theory]
    [InlineData(5, 12, false)]
    [InlineData(3, 132, false)]
    [InlineData(4, 12, true)]
    [InlineData(3, 132, true)]
    public void The_sweep_is_the_optimal_update_input_by_input(int rows, int columns, bool reorders)
    {
        Random random = Seed.Fresh();
        var layer = new CorrelatedLayer(random, rows, columns, 3 * columns);
        bool[] pruned = [.. Enumerable.Range(0, rows * columns).Select(_ => random.Next(2) == 0)];
        float[] found = [.. layer.Weights];
        int[] order = [.. Enumerable.Range(0, columns)];
        if (reorders)
        {
            random.Shuffle(order);
        }
        float[] factor = InverseFactor.Compute(Moments(layer).ToMatrix(reorders ? order : null), columns);
        OptimalBrainSurgeon.Run(found, rows, columns, factor, pattern: null, pruned, order: reorders ? order : null);

        double[] expected = Surgery(layer, pruned, order);
        double largest = expected.Max(Math.Abs);
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.Equal(expected[i], found[i], 2e-3 * largest);
            Assert.True(!pruned[i] || found[i] == 0);
        }
    }

    [Theory]
    [InlineData("2:4")]
    [InlineData("0.5")]
    [InlineData("0.7")]
    public void Calibrated_criteria_lose_less(string text)
    {
        SparsityPattern pattern = SparsityPattern.Parse(text);
        // Wider than a block of the sweep, and not a multiple of it.
        var layer = new CorrelatedLayer(Seed.Fresh(), 24, 196, 600);
        float[] magnitude = Zeroed(layer.Weights, PruningMask.Magnitude(layer.Weights, layer.Rows, layer.Columns, pattern));
        float[] wanda = Zeroed(layer.Weights, PruningMask.Wanda(layer.Weights, layer.Rows, layer.Columns, pattern, Moments(layer).Norms()));
        float[] sparse = [.. layer.Weights];
        OptimalBrainSurgeon.Run(sparse, layer.Rows, layer.Columns, Factor(layer), pattern);

        foreach (float[] result in (float[][])[magnitude, wanda, sparse])
        {
            int zeros = result.Count(static weight => weight == 0);
            Assert.Equal(pattern.Ratio, (double)zeros / result.Length, 0.01);
            Assert.True(!pattern.IsTwoOfFour || result.Chunk(4).All(static group => group.Count(static weight => weight == 0) == 2));
        }
        Assert.True(layer.Error(sparse) < layer.Error(wanda), $"{layer.Error(sparse)} {layer.Error(wanda)}");
        Assert.True(layer.Error(wanda) <= layer.Error(magnitude), $"{layer.Error(wanda)} {layer.Error(magnitude)}");
    }

    [Theory]
    [InlineData("int4:g28")]
    [InlineData("int4:channel")]
    [InlineData("int4:g28:asym")]
    [InlineData("int8")]
    public void Compensated_rounding_loses_less(string text)
    {
        IntegerFormat format = IntegerFormat.Parse(text);
        var layer = new CorrelatedLayer(Seed.Fresh(), 24, 196, 600);
        var nearest = new QuantizedMatrix(layer.Rows, layer.Columns, format, DType.BF16);
        nearest.RoundToNearest(layer.Weights);
        var compensated = new QuantizedMatrix(layer.Rows, layer.Columns, format, DType.BF16);
        float[] left = [.. layer.Weights];
        OptimalBrainSurgeon.Run(left, layer.Rows, layer.Columns, Factor(layer), pattern: null, target: compensated);

        Cpu.TestRows.SameBits(Decode(compensated), left, "what is left is what the codes say");
        Assert.True(layer.Error(left) < layer.Error(Decode(nearest)), $"{layer.Error(left)} {layer.Error(Decode(nearest))}");

        float[] norms = Moments(layer).Norms();
        int[] order = [.. Enumerable.Range(0, layer.Columns).OrderByDescending(column => norms[column])];
        var ordered = new QuantizedMatrix(layer.Rows, layer.Columns, format, DType.BF16);
        left = [.. layer.Weights];
        OptimalBrainSurgeon.Run(
            left, layer.Rows, layer.Columns, InverseFactor.Compute(Moments(layer).ToMatrix(order), layer.Columns), pattern: null, target: ordered, order: order);
        Cpu.TestRows.SameBits(Decode(ordered), left, "what is left is what the codes say, in the order that inputs have");
        // Groups are those of rounding to the nearest: what they were before anything changed.
        Assert.Equal(nearest.Scales, ordered.Scales);
        Assert.Equal(nearest.Zeros, ordered.Zeros);
        Assert.True(layer.Error(left) < layer.Error(Decode(nearest)), $"{layer.Error(left)} {layer.Error(Decode(nearest))}");
    }

    [Theory]
    [InlineData("int4:g28")]
    [InlineData("int8:asym")]
    public void Pruned_weights_stay_zero_when_they_are_quantized_at_once(string text)
    {
        var layer = new CorrelatedLayer(Seed.Fresh(), 9, 140, 300);
        var target = new QuantizedMatrix(layer.Rows, layer.Columns, IntegerFormat.Parse(text), DType.F16);
        float[] weights = [.. layer.Weights];
        OptimalBrainSurgeon.Run(weights, layer.Rows, layer.Columns, Factor(layer), SparsityPattern.TwoOfFour, target: target);
        Assert.All(Decode(target).Chunk(4), static group => Assert.True(group.Count(static weight => weight == 0) >= 2));
    }

    [Fact]
    public void Exactly_as_many_are_pruned_as_asked_for_and_of_equal_ones_the_first()
    {
        Assert.Equal([true, true, false, false], PruningMask.Magnitude(new float[] { 1, -1, 1, 1 }, 1, 4, SparsityPattern.TwoOfFour));
        Assert.Equal([true, false, true, false, false, false], PruningMask.Magnitude(new float[] { 2, 3, -2, 2, 2, 9 }, 2, 3, SparsityPattern.Unstructured(0.4)));
        // Of each output as many, whatever its size.
        Assert.Equal(
            [false, true, false, true], PruningMask.Wanda(new float[] { 1, 2, 100, 300 }, 2, 2, Half, [10, 1]));
        Assert.Equal(0, PruningMask.Magnitude(new float[] { 1, 2 }, 1, 2, SparsityPattern.Unstructured(0.01)).Count(static mark => mark));
    }

    [Fact]
    public void Results_do_not_depend_on_when_they_are_computed()
    {
        var layer = new CorrelatedLayer(Seed.Fresh(), 40, 300, 400);
        float[] first = [.. layer.Weights], second = [.. layer.Weights];
        OptimalBrainSurgeon.Run(first, layer.Rows, layer.Columns, Factor(layer), Half);
        OptimalBrainSurgeon.Run(second, layer.Rows, layer.Columns, Factor(layer), Half);
        Cpu.TestRows.SameBits(first, second, "the same again");
    }

    /// <summary>
    /// Each input in turn is fixed; the others that are left change by what minimises the loss, for which H of those that are left is inverted anew.
    /// </summary>
    private static double[] Surgery(CorrelatedLayer layer, bool[] pruned, int[] order)
    {
        int columns = layer.Columns;
        double[,] moment = layer.Moment();
        double damping = InverseFactor.UsualDamping * Enumerable.Range(0, columns).Average(i => moment[i, i]);
        double[] weights = [.. layer.Weights.Select(static weight => (double)weight)];
        for (int fix = 0; fix < columns; fix++)
        {
            // The column of the inverse that belongs to the first of those that are left.
            int left = columns - fix;
            double[][] system = [.. Enumerable.Range(0, left).Select(i => Enumerable.Range(0, left + 1)
                .Select(j => j == left ? (i == 0 ? 1 : 0) : moment[order[fix + i], order[fix + j]] + (i == j ? damping : 0)).ToArray())];
            double[] inverse = Solve(system);
            for (int row = 0; row < layer.Rows; row++)
            {
                int place = row * columns + order[fix];
                double kept = pruned[place] ? 0 : weights[place];
                double change = (weights[place] - kept) / inverse[0];
                for (int i = 1; i < left; i++)
                {
                    weights[row * columns + order[fix + i]] -= change * inverse[i];
                }
                weights[place] = kept;
            }
        }
        return weights;
    }

    /// <summary>Gaussian elimination; the matrix is positive definite.</summary>
    private static double[] Solve(double[][] system)
    {
        int n = system.Length;
        for (int pivot = 0; pivot < n; pivot++)
        {
            for (int row = pivot + 1; row < n; row++)
            {
                double factor = system[row][pivot] / system[pivot][pivot];
                for (int column = pivot; column <= n; column++)
                {
                    system[row][column] -= factor * system[pivot][column];
                }
            }
        }
        double[] solution = new double[n];
        for (int row = n - 1; row >= 0; row--)
        {
            double sum = system[row][n];
            for (int column = row + 1; column < n; column++)
            {
                sum -= system[row][column] * solution[column];
            }
            solution[row] = sum / system[row][row];
        }
        return solution;
    }

    private static SecondMoment Moments(CorrelatedLayer layer)
    {
        var moment = new SecondMoment(layer.Columns, full: true);
        moment.Add(layer.Inputs, layer.Samples);
        return moment;
    }

    private static float[] Factor(CorrelatedLayer layer) => InverseFactor.Compute(Moments(layer).ToMatrix(), layer.Columns);

    private static float[] Zeroed(float[] weights, bool[] pruned) => [.. weights.Zip(pruned, static (weight, zero) => zero ? 0 : weight)];

    private static float[] Decode(QuantizedMatrix matrix)
    {
        float[] values = new float[matrix.Rows * matrix.Columns];
        for (int row = 0; row < matrix.Rows; row++)
        {
            matrix.DecodeRow(row, values.AsSpan(row * matrix.Columns, matrix.Columns));
        }
        return values;
    }
}
