using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>Rows of a panel: the 32-bit lanes of a 512-bit vector. Each lane sums the products of its own row, in input order.</summary>
internal static class Panel
{
    /// <summary>Output rows that are interleaved.</summary>
    public const int Rows = 16;

    /// <summary>Bytes of one group of codes: 4 consecutive inputs of each row.</summary>
    public const int GroupBytes = Rows * ActivationLayout.GroupInputs;
}

/// <summary>Which kernel for block formats. Whatever the variant, a row and token see the same operations in the same order:
/// per block <c>acc = fma(float(Σ (code − offset) · x) · dx, scale, acc)</c>, then with a minimum <c>acc = fma(minimum, dx · Σ x, acc)</c>; with half blocks
/// the first for each half and then the second for each.</summary>
/// <param name="Bits">Bits of a stored code: 1 to 6 as packed, or 8, which is also what tiles hold.</param>
/// <param name="CodeBits">Bits that codes have, also where a tile holds them as bytes.</param>
/// <param name="OffsetShift">log₂ of the offset of the codes; 0 where there is none.</param>
/// <param name="HasMinimum">Blocks have a minimum that is added.</param>
/// <param name="HalfBlocks">A scale, and a minimum if any, covers 16 inputs instead of 32.</param>
/// <param name="Panels">Panels side by side, 1 or 2.</param>
/// <param name="Tokens">Tokens of the activation tile.</param>
/// <param name="Table">16 bytes that stored codes of up to 4 bits are looked up in, the first the lowest; 0 for none, as for a tile, whose codes already were.</param>
/// <param name="Sparsity">Which codes of zero are left out.</param>
internal readonly record struct BlockKernel(
    int Bits, int CodeBits, int OffsetShift, bool HasMinimum, bool HalfBlocks, int Panels, int Tokens, UInt128 Table = default, CodeSparsity Sparsity = CodeSparsity.None)
{
    /// <summary>The most tokens of a kernel for one panel: 8 × (2 integer + 1 float accumulator) leave 8 of 32 vector registers for operands.</summary>
    public const int MaxTokens = 8;

    /// <summary>The most tokens of a kernel for 2 panels: 2 × 6 × (integer + float accumulator) leave as many.</summary>
    public const int MaxPairTokens = 6;

    // Up to here codes are read where they lie: unpacking a tile waits for memory while nothing is multiplied, which 8 tokens pay with half their speed
    // and 64 do not notice.
    private const int MostDirectTokens = 48;

    /// <summary>The tiles of so many tokens: those of few are for kernels that take one panel, of many for pairs of panels.</summary>
    public static TokenTiles Tiles(int tokens) => new(tokens, tokens <= MostDirectTokens ? MaxTokens : MaxPairTokens);

    /// <summary>Bytes of packed codes per block and panel; 0 where blocks differ.</summary>
    public int BlockBytes => CodeBytes(Bits, Sparsity);

    /// <summary>Bytes of a block of codes of a panel.</summary>
    public static unsafe int CodeBytes(int bits, CodeSparsity sparsity, byte* block) =>
        sparsity == CodeSparsity.Unstructured ? MaskedGroups.Bytes(block, bits) : CodeBytes(bits, sparsity);

    /// <summary>Vectors of 16 × float32 per block and panel: scale, second scale, minimum, second minimum, as far as there are.</summary>
    public int ScaleVectors => (HasMinimum ? 2 : 1) * (HalfBlocks ? 2 : 1);

    /// <summary>Bytes of a block of codes of a panel; 0 where blocks differ.</summary>
    public static int CodeBytes(int bits, CodeSparsity sparsity) => sparsity switch
    {
        CodeSparsity.TwoOfFour => SparseGroups.PlaceBytes + SparseGroups.Steps * Panel.GroupBytes * bits / 8,
        CodeSparsity.Unstructured => 0,
        _ => Panel.Rows * ActivationLayout.BlockInputs * bits / 8,
    };
}
