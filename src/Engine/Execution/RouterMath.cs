namespace Engine.Execution;

/// <summary>What routers of depths and of experts make of their outputs z: float32, but for sums of exponentials.</summary>
internal static class RouterMath
{
    /// <summary>σ(z) = 1 / (1 + exp(−z)).</summary>
    public static float Sigmoid(float z) => (float)(1 / (1 + Math.Exp(-z)));
}

/// <summary>A softmax over some outputs of a router.</summary>
/// <param name="Largest">The largest of them, which is taken off before an exponential is.</param>
/// <param name="Sum">Of the exponentials.</param>
internal readonly record struct RouterSoftmax(float Largest, double Sum)
{
    /// <summary>The softmax over <paramref name="z"/>, at least one; where there is a <paramref name="map"/>, over those that it maps to 0 or more.</summary>
    public static RouterSoftmax Over(ReadOnlySpan<float> z, ReadOnlySpan<int> map = default)
    {
        float largest = float.MinValue;
        for (int i = 0; i < z.Length; i++)
        {
            largest = map.IsEmpty || map[i] >= 0 ? Math.Max(largest, z[i]) : largest;
        }
        double sum = 0;
        for (int i = 0; i < z.Length; i++)
        {
            sum += map.IsEmpty || map[i] >= 0 ? Math.Exp(z[i] - largest) : 0;
        }
        return new RouterSoftmax(largest, sum);
    }

    /// <summary>The part of one of them.</summary>
    public float Of(float z) => (float)(Math.Exp(z - Largest) / Sum);
}
