namespace Engine.Tests.Plans.Oracle;

/// <summary>What the forward passes of the oracle are made of: rows of doubles, nothing else.</summary>
internal static class OracleMath
{
    /// <summary>torch.nn.Linear: weight [out, in].</summary>
    public static double[] Linear(double[] x, float[] weight, float[]? bias)
    {
        int outputs = weight.Length / x.Length;
        double[] y = new double[outputs];
        for (int o = 0; o < outputs; o++)
        {
            double sum = bias is null ? 0 : bias[o];
            for (int i = 0; i < x.Length; i++)
            {
                sum += (double)weight[o * x.Length + i] * x[i];
            }
            y[o] = sum;
        }
        return y;
    }

    /// <summary>transformers' Conv1D: weight [in, out].</summary>
    public static double[] Conv1D(double[] x, float[] weight, float[] bias)
    {
        double[] y = [.. bias.Select(static b => (double)b)];
        for (int i = 0; i < x.Length; i++)
        {
            for (int o = 0; o < y.Length; o++)
            {
                y[o] += x[i] * weight[i * y.Length + o];
            }
        }
        return y;
    }

    public static double[] RmsNorm(double[] x, float[] weight, double epsilon)
    {
        double variance = x.Average(static v => v * v);
        return [.. x.Select((v, i) => weight[i] * (v / Math.Sqrt(variance + epsilon)))];
    }

    public static double[] LayerNorm(double[] x, float[] weight, float[] bias, double epsilon)
    {
        double mean = x.Average();
        double variance = x.Average(v => (v - mean) * (v - mean));
        return [.. x.Select((v, i) => (v - mean) / Math.Sqrt(variance + epsilon) * weight[i] + bias[i])];
    }

    public static double[] Softmax(double[] x)
    {
        double largest = x.Max();
        double[] powers = [.. x.Select(v => Math.Exp(v - largest))];
        double sum = powers.Sum();
        return [.. powers.Select(v => v / sum)];
    }

    public static double[] Add(double[] a, double[] b) => [.. a.Zip(b, static (x, y) => x + y)];

    public static double Silu(double x) => x / (1 + Math.Exp(-x));

    /// <summary>NewGELUActivation: the tanh form.</summary>
    public static double GeluNew(double x) => 0.5 * x * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (x + 0.044715 * Math.Pow(x, 3))));

    /// <summary>Exact GELU. erf by its Maclaurin series, or by the continued fraction of erfc where the series would cancel.</summary>
    public static double GeluExact(double x) => 0.5 * x * (1 + Erf(x / Math.Sqrt(2)));

    /// <summary>
    /// softmax(scale · q·kᵀ + mask)·v for one query; every list holds one entry per position, masked where the mask says no.
    /// </summary>
    public static double[] Attend(
        double[] query, IReadOnlyList<double[]> keys, IReadOnlyList<double[]> values, double scale, Func<int, bool> visible)
    {
        double[] scores = [.. keys.Select((key, j) =>
            visible(j) ? scale * query.Zip(key, static (a, b) => a * b).Sum() : double.NegativeInfinity)];
        double[] weights = Softmax(scores);
        return [.. query.Select((_, i) => weights.Select((w, j) => w * values[j][i]).Sum())];
    }

    private static double Erf(double x)
    {
        double size = Math.Abs(x), result;
        if (size < 3)
        {
            double term = size, sum = size;
            for (int n = 1; n < 120; n++)
            {
                term *= -size * size / n;
                sum += term / (2 * n + 1);
            }
            result = 2 / Math.Sqrt(Math.PI) * sum;
        }
        else
        {
            double fraction = size;
            for (int n = 80; n >= 1; n--)
            {
                fraction = size + n / 2.0 / fraction;
            }
            result = 1 - Math.Exp(-size * size) / (fraction * Math.Sqrt(Math.PI));
        }
        return x < 0 ? -result : result;
    }
}
