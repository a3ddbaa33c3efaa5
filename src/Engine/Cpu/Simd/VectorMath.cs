using System.Runtime.CompilerServices;

namespace Engine.Cpu.Simd;

/// <summary>Transcendental functions on vectors, written once for all widths.</summary>
internal static unsafe class VectorMath<TSimd, V>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
{
    // exp(r) = 1 + r + r²·P(r) on |r| ≤ ln 2 / 2; minimax, relative error of exp 3e-9.
    private const float P0 = 0.4999999341f, P1 = 0.1666652011f, P2 = 0.04166839421f, P3 = 0.008368780411f, P4 = 0.001381446706f;
    private const float Log2E = 1.4426950408889634f;

    // ln 2 in two parts: the first has so few bits that n · Ln2High is exact for every exponent n.
    private const float Ln2High = 0.693359375f, Ln2Low = -2.12194440e-4f;

    /// <summary>eˣ to 2 units in the last place; 0 and infinity where float32 has nothing nearer. NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Exp(V x)
    {
        x = TSimd.Max(TSimd.Broadcast(-105f), TSimd.Min(TSimd.Broadcast(90f), x));
        V n = TSimd.Round(TSimd.Multiply(x, TSimd.Broadcast(Log2E)));
        V r = TSimd.MultiplyAdd(n, TSimd.Broadcast(-Ln2High), x);
        r = TSimd.MultiplyAdd(n, TSimd.Broadcast(-Ln2Low), r);
        V p = TSimd.MultiplyAdd(TSimd.Broadcast(P4), r, TSimd.Broadcast(P3));
        p = TSimd.MultiplyAdd(p, r, TSimd.Broadcast(P2));
        p = TSimd.MultiplyAdd(p, r, TSimd.Broadcast(P1));
        p = TSimd.MultiplyAdd(p, r, TSimd.Broadcast(P0));
        p = TSimd.MultiplyAdd(TSimd.Multiply(p, r), r, r);
        return TSimd.ScaleByPowerOfTwo(TSimd.Add(p, TSimd.Broadcast(1f)), n);
    }

    /// <summary>eˣ of one number, with the same bits as a lane.</summary>
    public static float Exp(float x)
    {
        float* lanes = stackalloc float[TSimd.Width];
        TSimd.Store(Exp(TSimd.Broadcast(x)), lanes);
        return lanes[0];
    }

    /// <summary>x · sigmoid(scale): x / (1 + exp(−scale)).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V TimesSigmoid(V x, V scale)
    {
        V exponential = Exp(TSimd.Subtract(TSimd.Broadcast(0f), scale));
        return TSimd.Divide(x, TSimd.Add(TSimd.Broadcast(1f), exponential));
    }

    /// <summary>sigmoid(x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Sigmoid(V x) => TimesSigmoid(TSimd.Broadcast(1f), x);

    /// <summary>tanh(x) as 2 · sigmoid(2x) − 1: within 2⁻²¹, which is not its relative accuracy where it is small.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Tanh(V x) => TSimd.Subtract(TimesSigmoid(TSimd.Broadcast(2f), TSimd.Add(x, x)), TSimd.Broadcast(1f));

    /// <summary>x · sigmoid(x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Silu(V x) => TimesSigmoid(x, x);

    /// <summary>GELU, tanh approximation: x · sigmoid(2·√(2/π)·(x + 0.044715·x³)), which has no cancellation where x is negative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V GeluTanh(V x)
    {
        const float TwoRootTwoOverPi = 1.5957691216057308f;
        V cubic = TSimd.MultiplyAdd(TSimd.Multiply(x, x), TSimd.Broadcast(0.044715f * TwoRootTwoOverPi), TSimd.Broadcast(TwoRootTwoOverPi));
        return TimesSigmoid(x, TSimd.Multiply(x, cubic));
    }

    /// <summary>GELU, exact: x · Φ(x) with Φ(−|x|) = ½·erfc(|x| / √2), so that the left tail keeps its relative accuracy.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Gelu(V x)
    {
        V a = TSimd.Multiply(TSimd.Abs(x), TSimd.Broadcast(0.7071067811865476f));
        V t = TSimd.Divide(TSimd.Broadcast(1f), TSimd.MultiplyAdd(a, TSimd.Broadcast(ScaledErfc.Slope), TSimd.Broadcast(1f)));
        ReadOnlySpan<float> coefficients = ScaledErfc.Coefficients;
        V erfcx = TSimd.Broadcast(coefficients[^1]);
        for (int i = coefficients.Length - 2; i >= 0; i--)
        {
            erfcx = TSimd.MultiplyAdd(erfcx, t, TSimd.Broadcast(coefficients[i]));
        }
        V exponential = Exp(TSimd.Subtract(TSimd.Broadcast(0f), TSimd.Multiply(a, a)));
        V tail = TSimd.Multiply(TSimd.Multiply(exponential, erfcx), TSimd.Broadcast(0.5f));
        V phi = TSimd.SelectNegative(x, tail, TSimd.Subtract(TSimd.Broadcast(1f), tail));
        return TSimd.Multiply(x, phi);
    }
}
