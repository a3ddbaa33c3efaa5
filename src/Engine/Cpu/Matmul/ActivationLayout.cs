namespace Engine.Cpu.Matmul;

/// <summary>
/// Activations of a tile of T tokens, quantized to 8 bits per block of 32 inputs, in the order that kernels read them: one record per block,
/// each field [T], the codes [8, T] groups of 4 consecutive inputs. For one token the codes are simply in order.
/// </summary>
internal static class ActivationLayout
{
    /// <summary>Inputs that share a scale.</summary>
    public const int BlockInputs = 32;

    /// <summary>Inputs that one step of an integer dot product takes.</summary>
    public const int GroupInputs = 4;

    /// <summary>Groups of a block.</summary>
    public const int Groups = BlockInputs / GroupInputs;

    /// <summary>Bytes of a record per token.</summary>
    public const int BytesPerToken = BlockInputs + 5 * sizeof(float);

    /// <summary>Offsets of the fields in a record, to be multiplied by T: float32 scale d.</summary>
    public const int Scale = BlockInputs;

    /// <summary>float32 d · Σ codes, which the minimum of a block is multiplied with.</summary>
    public const int ScaledSum = Scale + 4;

    /// <summary>int32 −Σ codes, which the offset of unsigned weight codes is multiplied with.</summary>
    public const int NegativeSum = ScaledSum + 4;

    /// <summary>int32 −Σ of the first 16 codes; those of the other 16 follow.</summary>
    public const int NegativeHalfSums = NegativeSum + 4;

    /// <summary>Blocks of a token with so many inputs; the last may have fewer than others, and is filled with zeros.</summary>
    public static int Blocks(int inputs) => (inputs + BlockInputs - 1) / BlockInputs;

    /// <summary>Bytes of a token with so many inputs.</summary>
    public static long TokenBytes(int inputs) => (long)Blocks(inputs) * BytesPerToken;
}
