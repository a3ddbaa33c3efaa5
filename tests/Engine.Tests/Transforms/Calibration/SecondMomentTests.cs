using Engine.Transforms.Calibration;

namespace Engine.Tests.Transforms.Calibration;

/// <summary>Second moments and their factors against double precision.</summary>
public sealed class SecondMomentTests
{
    [Theory]
    [InlineData(1, 1)]
    [InlineData(3, 7)]
    [InlineData(31, 40)]
    [InlineData(66, 129)]
    [InlineData(131, 300)]
    public void Moments_are_those_of_double_precision_however_rows_come(int inputs, int samples)
    {
        var layer = new CorrelatedLayer(Seed.Fresh(), 1, inputs, samples);
        double[,] expected = layer.Moment();
        var moment = new SecondMoment(inputs, full: true);
        int cut = samples / 3;
        moment.Add(layer.Inputs.AsSpan(0, cut * inputs), cut);
        moment.Add(layer.Inputs.AsSpan(cut * inputs), samples - cut);
        float[] found = moment.ToMatrix(), norms = moment.Norms();
        Assert.Equal(samples, moment.Rows);
        for (int i = 0; i < inputs; i++)
        {
            Assert.Equal(Math.Sqrt(expected[i, i]), norms[i], 1e-5 * norms[i]);
            for (int j = 0; j < inputs; j++)
            {
                Assert.Equal(expected[i, j], found[i * inputs + j], 1e-5 * Math.Sqrt(expected[i, i] * expected[j, j]));
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(5)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(150)]
    public void The_factor_is_that_of_the_inverse(int inputs)
    {
        // Fewer samples than inputs: without damping there is no inverse.
        var layer = new CorrelatedLayer(Seed.Fresh(), 1, inputs, Math.Max(1, inputs / 2));
        double[,] moment = layer.Moment();
        double damping = 0.01 * Enumerable.Range(0, inputs).Average(i => moment[i, i]);
        float[] factor = InverseFactor.Compute(Flat(moment), inputs, 0.01);
        for (int i = 0; i < inputs; i++)
        {
            moment[i, i] += damping;
            Assert.True(factor[i * inputs + i] > 0);
            Assert.All(Enumerable.Range(0, i), j => Assert.Equal(0, factor[i * inputs + j]));
        }
        // (H + λI)·Uᵀ·U is the identity.
        for (int i = 0; i < inputs; i++)
        {
            double[] left = [.. Enumerable.Range(0, inputs).Select(k => Enumerable.Range(k, inputs - k).Sum(j => moment[i, j] * factor[k * inputs + j]))];
            for (int j = 0; j < inputs; j++)
            {
                double product = Enumerable.Range(0, j + 1).Sum(k => left[k] * factor[k * inputs + j]);
                Assert.Equal(i == j ? 1 : 0, product, 2e-3);
            }
        }
    }

    [Fact]
    public void Without_rows_the_factor_is_the_identity_but_for_its_size()
    {
        float[] factor = InverseFactor.Compute(new float[49], 7);
        for (int i = 0; i < 49; i++)
        {
            Assert.Equal(i % 8 == 0 ? factor[0] : 0, factor[i]);
        }
        Assert.True(factor[0] > 0);
    }

    [Fact]
    public void Rows_that_are_not_finite_are_refused()
    {
        var moment = new SecondMoment(2, full: false);
        Assert.Contains("not finite", Assert.Throws<EngineException>(() => moment.Add([1, float.NaN], 1)).Message, StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => moment.ToMatrix());
        Assert.Throws<EngineException>(() => new SecondMoment(SecondMoment.LargestInputs + 1, full: true));
    }

    private static float[] Flat(double[,] matrix) => [.. matrix.Cast<double>().Select(static value => (float)value)];
}
