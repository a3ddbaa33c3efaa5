namespace Engine.Execution;

/// <summary>The precision in which activations enter a product with weights stored as BF16. Other weights are not affected, and sums are float32.</summary>
public enum ActivationPrecision
{
    /// <summary>float32, as they are.</summary>
    Float32,
    /// <summary>
    /// Rounded to bfloat16 (8 significant bits), to the nearest and ties to even, as llama.cpp does for such weights. A processor with AVX512_BF16
    /// multiplies them about twice as fast; any other rounds them the same way and multiplies in float32, which is no faster. A value beyond
    /// 3.39e38 becomes infinity, and AVX512_BF16 takes subnormal numbers for zero.
    /// </summary>
    BFloat16,
}
