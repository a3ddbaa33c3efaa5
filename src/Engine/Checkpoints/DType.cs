namespace Engine.Checkpoints;

/// <summary>How the elements of a tensor are stored. Block types follow ggml; the layouts are in <c>Codecs/</c>, one file each.</summary>
public enum DType
{
    /// <summary>IEEE binary32.</summary>
    F32,
    /// <summary>IEEE binary16.</summary>
    F16,
    /// <summary>The top 16 bits of a binary32.</summary>
    BF16,
    /// <summary>IEEE binary64.</summary>
    F64,
    /// <summary>Signed 8-bit integer.</summary>
    I8,
    /// <summary>Signed 16-bit integer.</summary>
    I16,
    /// <summary>Signed 32-bit integer.</summary>
    I32,
    /// <summary>Signed 64-bit integer.</summary>
    I64,
    /// <summary>Unsigned 8-bit integer.</summary>
    U8,
    /// <summary>Unsigned 16-bit integer.</summary>
    U16,
    /// <summary>Unsigned 32-bit integer.</summary>
    U32,
    /// <summary>Unsigned 64-bit integer.</summary>
    U64,
    /// <summary>One byte, 0 or 1.</summary>
    Bool,
    /// <summary>32 weights: f16 scale, 4-bit codes minus 8.</summary>
    Q4_0,
    /// <summary>32 weights: f16 scale and minimum, 4-bit codes.</summary>
    Q4_1,
    /// <summary>32 weights: f16 scale, 5-bit codes minus 16.</summary>
    Q5_0,
    /// <summary>32 weights: f16 scale and minimum, 5-bit codes.</summary>
    Q5_1,
    /// <summary>32 weights: f16 scale, signed 8-bit codes.</summary>
    Q8_0,
    /// <summary>256 weights: 8 groups of 32 with 6-bit scales and minima, 4-bit codes.</summary>
    Q4_K,
    /// <summary>256 weights: 8 groups of 32 with 6-bit scales and minima, 5-bit codes.</summary>
    Q5_K,
    /// <summary>256 weights: 16 groups of 16 with 8-bit scales, 6-bit codes minus 32.</summary>
    Q6_K,
    /// <summary>8-bit float S.EEEE.MMM, bias 7, no infinities (OCP "fn").</summary>
    F8_E4M3,
    /// <summary>8-bit float S.EEEEE.MM: the top byte of an F16.</summary>
    F8_E5M2,
    /// <summary>8-bit power of two: 2^(b − 127); 0xFF is NaN (OCP MX scale).</summary>
    F8_E8M0,
    /// <summary>32 weights: a power of two (E8M0), 4-bit floats S.EE.M (OCP MX).</summary>
    MXFP4,
    /// <summary>256 weights: 16 groups of 16 with 4-bit scales and minima, 2-bit codes.</summary>
    Q2_K,
    /// <summary>256 weights: 16 groups of 16 with 6-bit scales, 3-bit codes minus 4.</summary>
    Q3_K,
    /// <summary>32 weights: f16 scale, 4-bit codes of sixteen uneven steps.</summary>
    IQ4_NL,
    /// <summary>256 weights: 8 groups of 32 with 6-bit scales, codes as in IQ4_NL.</summary>
    IQ4_XS,
    /// <summary>256 weights: 8 groups of 32 with 4-bit scales, codebook of 256 vectors of 4, even signs.</summary>
    IQ3_XXS,
    /// <summary>256 weights: 8 groups of 32 with 4-bit scales, codebook of 512 vectors of 4, signs.</summary>
    IQ3_S,
    /// <summary>256 weights: 8 groups of 32 with 4-bit scales, codebook of 256 vectors of 8, even signs.</summary>
    IQ2_XXS,
    /// <summary>256 weights: 16 groups of 16 with 4-bit scales, codebook of 512 vectors of 8, even signs.</summary>
    IQ2_XS,
    /// <summary>256 weights: 16 groups of 16 with 4-bit scales, codebook of 1024 vectors of 8, signs.</summary>
    IQ2_S,
    /// <summary>256 weights: 8 groups of 32 with 3-bit scales, codebook of 2048 ternary vectors of 8, shifted by an eighth.</summary>
    IQ1_S,
    /// <summary>256 weights: 16 groups of 16 with 3-bit scales, codebook as in IQ1_S.</summary>
    IQ1_M,
    /// <summary>256 ternary weights: f16 scale, five base-3 digits to a byte.</summary>
    TQ1_0,
    /// <summary>256 ternary weights: f16 scale, 2-bit codes minus 1.</summary>
    TQ2_0,
    /// <summary>64 weights: 4 groups of 16 with scales in 8-bit floats, 4-bit floats S.EE.M (ggml's layout).</summary>
    NVFP4,
    /// <summary>128 weights: f16 scale, signs.</summary>
    Q1_0,
    /// <summary>64 weights: f16 scale, 2-bit codes minus 1.</summary>
    Q2_0,
    /// <summary>Codes whose scales are stored apart: the view has a <see cref="CodedMatrix"/> instead of bytes.</summary>
    Coded,
}
