namespace Engine.Reference;

/// <summary>Functions that <see cref="Math"/> lacks, to double precision.</summary>
public static class SpecialFunctions
{
    /// <summary>erfc(x) = 2/√π ∫ₓ^∞ exp(−t²) dt, with small relative error in both tails.</summary>
    public static double Erfc(double x)
    {
        if (x < 0)
        {
            return 2 - Erfc(-x);
        }
        if (x < 2.5)
        {
            // Maclaurin series of erf (Abramowitz and Stegun 7.1.6): all terms positive, nothing cancels inside the sum.
            double term = x, sum = x;
            for (int n = 1; term > sum * 1e-18; n++)
            {
                term *= 2 * x * x / (2 * n + 1);
                sum += term;
            }
            return 1 - 2 / Math.Sqrt(Math.PI) * Math.Exp(-x * x) * sum;
        }
        // Continued fraction (Abramowitz and Stegun 7.1.14), from the inside out.
        double fraction = 0;
        for (int n = 120; n >= 1; n--)
        {
            fraction = n / 2.0 / (x + fraction);
        }
        return Math.Exp(-x * x) / Math.Sqrt(Math.PI) / (x + fraction);
    }

    /// <summary>x · Φ(x), Φ the normal distribution (Hendrycks and Gimpel 2016, section 2).</summary>
    public static double Gelu(double x) => 0.5 * x * Erfc(-x / Math.Sqrt(2));

    /// <summary>The tanh approximation of <see cref="Gelu"/>; 1 + tanh(z) is written 2 / (1 + exp(−2z)), which does not cancel.</summary>
    public static double GeluTanh(double x) => x / (1 + Math.Exp(-2 * Math.Sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));

    /// <summary>x · sigmoid(x).</summary>
    public static double Silu(double x) => x / (1 + Math.Exp(-x));
}
