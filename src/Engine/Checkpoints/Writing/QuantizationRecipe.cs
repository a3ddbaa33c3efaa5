using System.Collections.Immutable;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// Which type each tensor of a GGUF model is stored in: one type for all matrices, or llama.cpp's mixture Q4_K_M, which keeps what is most
/// sensitive in Q6_K. Vectors (norms, biases) stay F32. Where a row is not whole blocks, formats fall back as in llama.cpp: Q2_K, Q3_K and
/// IQ4_XS to IQ4_NL, TQ2_0 and Q1_0 to Q4_0, Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0; where it is not a multiple of 32 either, to F16.
/// </summary>
public sealed class QuantizationRecipe
{
    private readonly DType dtype;
    private readonly bool mixed;

    private QuantizationRecipe(string name, DType dtype, bool mixed, uint fileType)
    {
        Name = name;
        this.dtype = dtype;
        this.mixed = mixed;
        FileType = fileType;
    }

    /// <summary>All recipes. File types are llama.cpp's <c>llama_ftype</c>; for a uniform K-quant the "small" mixture is the
    /// nearest.</summary>
    public static ImmutableArray<QuantizationRecipe> All { get; } =
    [
        new("F32", DType.F32, false, 0),
        new("F16", DType.F16, false, 1),
        new("BF16", DType.BF16, false, 32),
        new("Q4_0", DType.Q4_0, false, 2),
        new("Q4_1", DType.Q4_1, false, 3),
        new("Q5_0", DType.Q5_0, false, 8),
        new("Q5_1", DType.Q5_1, false, 9),
        new("Q8_0", DType.Q8_0, false, 7),
        new("Q1_0", DType.Q1_0, false, 40),
        new("TQ2_0", DType.TQ2_0, false, 37),
        new("Q2_K", DType.Q2_K, false, 10),
        new("Q3_K", DType.Q3_K, false, 11),
        new("IQ4_NL", DType.IQ4_NL, false, 25),
        new("IQ4_XS", DType.IQ4_XS, false, 30),
        new("Q4_K", DType.Q4_K, false, 14),
        new("Q4_K_M", DType.Q4_K, true, 15),
        new("Q5_K", DType.Q5_K, false, 16),
        new("Q6_K", DType.Q6_K, false, 18),
    ];

    /// <summary>Its name: a type, or <c>Q4_K_M</c>.</summary>
    public string Name { get; }

    /// <summary>Elements of a block of its main type; rows that are not whole blocks of it fall back.</summary>
    public int BlockElements => dtype.Info().BlockElements;

    /// <summary>The value of <c>general.file_type</c>; informative only.</summary>
    public uint FileType { get; }

    /// <summary>Finds a recipe by name, whatever the case.</summary>
    /// <exception cref="EngineException">There is none.</exception>
    public static QuantizationRecipe Named(string name) =>
        All.FirstOrDefault(recipe => string.Equals(recipe.Name, name, StringComparison.OrdinalIgnoreCase))
        ?? throw new EngineException($"unknown format {name}; known are {string.Join(", ", All.Select(static recipe => recipe.Name))}");

    /// <summary>The type of one tensor.</summary>
    /// <param name="name">Its GGUF name.</param>
    /// <param name="shape">Its shape, outermost first.</param>
    /// <param name="layers">Layers of the model.</param>
    /// <param name="tied">The model has no <c>output.weight</c>.</param>
    public DType For(string name, ReadOnlySpan<long> shape, int layers, bool tied)
    {
        if (shape.Length < 2 || !name.EndsWith(".weight", StringComparison.Ordinal) || name.Contains("norm", StringComparison.Ordinal)
            || name.Contains("ffn_gate_inp", StringComparison.Ordinal) || name == "position_embd.weight")
        {
            return DType.F32;
        }
        DType wanted = mixed && WantsMoreBits(name, layers, tied) ? DType.Q6_K : dtype;
        long columns = shape[^1];
        if (columns % wanted.Info().BlockElements != 0)
        {
            wanted = wanted switch
            {
                DType.Q2_K or DType.Q3_K or DType.IQ4_XS => DType.IQ4_NL,
                DType.TQ2_0 or DType.Q1_0 => DType.Q4_0,
                DType.Q4_K => DType.Q5_0,
                DType.Q5_K => DType.Q5_1,
                DType.Q6_K => DType.Q8_0,
                _ => wanted,
            };
            if (columns % wanted.Info().BlockElements != 0)
                wanted = DType.F16;
        }
        return wanted;
    }

    /// <summary>Q4_K_M: the head everywhere; attn_v and ffn_down in the first and last eighth of the layers and in every third
    /// between.</summary>
    private static bool WantsMoreBits(string name, int layers, bool tied)
    {
        if (name == "output.weight" || (tied && name == "token_embd.weight"))
            return true;
        string[] parts = name.Split('.');
        if (parts is not ["blk", var number, "attn_v" or "ffn_down" or "ffn_down_exps", "weight"] || !int.TryParse(number, out int layer))
            return false;
        return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
    }
}
