namespace Engine.Cpu.Simd;

/// <summary>
/// exp(a²)·erfc(a) for a in [0, 10] as a polynomial in t = 1 / (1 + <see cref="Slope"/>·a), the form of Abramowitz and Stegun 7.1.26. The coefficients
/// are a minimax fit of degree 10 in relative error: 4e−9.
/// </summary>
internal static class ScaledErfc
{
    public const float Slope = 0.35f;

    /// <summary>From the constant upwards.</summary>
    public static ReadOnlySpan<float> Coefficients =>
    [
        -1.4584654e-5f, 0.1978026625f, 0.194100697f, 0.2045057364f, 0.09349213429f, 0.2793302217f,
        -0.1205510692f, 0.1877396393f, 0.03861467175f, -0.1042130818f, 0.02919297634f,
    ];
}
