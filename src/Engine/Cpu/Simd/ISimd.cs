namespace Engine.Cpu.Simd;

/// <summary>
/// A vector of float32 of one width, so that a kernel is written once and compiled per width: <c>TSimd</c> names the operations and
/// <c>V</c> is the vector they work on. Lane arithmetic is the same at every width; only sums over lanes depend on it.
/// </summary>
/// <typeparam name="V">The vector.</typeparam>
internal unsafe interface ISimd<V>
    where V : unmanaged
{
    /// <summary>Lanes: 4, 8 or 16.</summary>
    static abstract int Width { get; }

    /// <summary>Reads <see cref="Width"/> floats; no alignment needed.</summary>
    static abstract V Load(float* source);

    /// <summary>Writes <see cref="Width"/> floats; no alignment needed.</summary>
    static abstract void Store(V value, float* destination);

    /// <summary>Reads <see cref="Width"/> finite IEEE binary16 numbers, exactly.</summary>
    static abstract V LoadHalf(ushort* source);

    /// <summary>Reads <see cref="Width"/> signed bytes.</summary>
    static abstract V LoadSByte(sbyte* source);

    /// <summary>One number in every lane.</summary>
    static abstract V Broadcast(float value);

    /// <summary>a + b.</summary>
    static abstract V Add(V a, V b);

    /// <summary>a − b.</summary>
    static abstract V Subtract(V a, V b);

    /// <summary>a · b.</summary>
    static abstract V Multiply(V a, V b);

    /// <summary>a / b.</summary>
    static abstract V Divide(V a, V b);

    /// <summary>a · b + c, fused where the processor can.</summary>
    static abstract V MultiplyAdd(V a, V b, V c);

    /// <summary>The larger; a NaN in <paramref name="b"/> is kept.</summary>
    static abstract V Max(V a, V b);

    /// <summary>The smaller; a NaN in <paramref name="b"/> is kept.</summary>
    static abstract V Min(V a, V b);

    /// <summary>|a|.</summary>
    static abstract V Abs(V a);

    /// <summary>The nearest integer, ties to even.</summary>
    static abstract V Round(V a);

    /// <summary>
    /// a · 2ⁿ for integers n in [−252, 254]; in two factors, so that results below and above the normal range are rounded as they should be.
    /// </summary>
    static abstract V ScaleByPowerOfTwo(V a, V n);

    /// <summary>Lane by lane: <paramref name="sign"/> is negative (or −0) ? a : b.</summary>
    static abstract V SelectNegative(V sign, V a, V b);

    /// <summary>Exchanges lanes 2i and 2i + 1.</summary>
    static abstract V SwapPairs(V a);

    /// <summary>The sum of all lanes, as a tree.</summary>
    static abstract float Sum(V a);

    /// <summary>The largest lane.</summary>
    static abstract float MaxLane(V a);
}
