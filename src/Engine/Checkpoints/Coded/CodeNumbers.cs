using System.Collections.Immutable;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints;

/// <summary>Which numbers the codes of a <see cref="CodedMatrix"/> stand for.</summary>
public enum CodeNumbers
{
    /// <summary>Unsigned integers: code itself.</summary>
    Integer,
    /// <summary>4-bit floats S.EE.M: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives (OCP MX).</summary>
    E2M1,
    /// <summary>8-bit floats S.EEEE.MMM, bias 7, no infinities (OCP "fn").</summary>
    E4M3,
    /// <summary>8-bit floats S.EEEEE.MM, the top byte of a binary16.</summary>
    E5M2,
    /// <summary>16 quantiles of a normal distribution, −1 … 1 (Dettmers et al. 2023); the file has the table.</summary>
    Table,
}

/// <summary>Tables of <see cref="CodeNumbers"/>.</summary>
public static class CodeTables
{
    private static readonly ImmutableArray<float> e2m1 = [0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6];
    private static readonly ImmutableArray<float> e4m3 = Decoded(DType.F8_E4M3);
    private static readonly ImmutableArray<float> e5m2 = Decoded(DType.F8_E5M2);

    /// <summary>The number of each code; empty for integers and for tables that a file brings.</summary>
    public static ImmutableArray<float> Of(CodeNumbers numbers) => numbers switch
    {
        CodeNumbers.E2M1 => e2m1,
        CodeNumbers.E4M3 => e4m3,
        CodeNumbers.E5M2 => e5m2,
        _ => [],
    };

    private static ImmutableArray<float> Decoded(DType dtype)
    {
        var values = new float[256];
        Codec.For(dtype).Decode([.. Enumerable.Range(0, 256).Select(static code => (byte)code)], values);
        return [.. values];
    }
}
