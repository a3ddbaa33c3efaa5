namespace Engine.Cpu.Matmul;

/// <summary>Tokens split into tiles of nearly equal size, none larger than a kernel can take.</summary>
/// <param name="Tokens">Tokens in all, at least 1.</param>
/// <param name="Largest">Tokens a tile may have.</param>
internal readonly record struct TokenTiles(int Tokens, int Largest)
{
    /// <summary>Tiles.</summary>
    public int Count { get; } = (Tokens + Largest - 1) / Largest;

    /// <summary>Tokens of a tile.</summary>
    public int Size(int tile) => Tokens / Count + (tile < Tokens % Count ? 1 : 0);

    /// <summary>The first token of a tile.</summary>
    public int First(int tile) => tile * (Tokens / Count) + Math.Min(tile, Tokens % Count);

    /// <summary>The tile of a token.</summary>
    public int Of(int token)
    {
        int small = Tokens / Count, large = Tokens % Count * (small + 1);
        return token < large ? token / (small + 1) : Tokens % Count + (token - large) / small;
    }
}

/// <summary>One multiplication, as all threads of a run see it.</summary>
internal unsafe struct MultiplyJob
{
    /// <summary>What is multiplied.</summary>
    public PackedLinear Linear;

    /// <summary>The threads.</summary>
    public ThreadTeam Team;

    /// <summary>[tokens, inputs], or the rows that <see cref="InputRows"/> names.</summary>
    public float* Input;

    /// <summary>[tokens]: which row of the input each token is; null where they are in order.</summary>
    public int* InputRows;

    /// <summary>[tokens, <see cref="OutputStride"/>].</summary>
    public float* Output;

    /// <summary>Elements of the output from a token to the next.</summary>
    public int OutputStride;

    /// <summary>Tokens.</summary>
    public int Tokens;

    /// <summary>The product is added to the output instead of replacing it.</summary>
    public bool Accumulate;

    /// <summary>Products that are no outputs yet (<see cref="PartCompletion"/>), [tokens, rows] of one matrix after another; null where there are none.</summary>
    public float* Hidden;

    /// <summary>Quantized activations (<see cref="ActivationLayout"/>), tile after tile, of one order after another (<see cref="BlockActivations"/>).</summary>
    public byte* Blocks;

    /// <summary>Bytes of the quantized activations of an order.</summary>
    public nuint OrderBytes;

    /// <summary>float32 activations (<see cref="FloatActivations"/>), tile after tile; null where no part needs them.</summary>
    public uint* Floats;

    /// <summary>The same rounded to bfloat16.</summary>
    public uint* RoundedFloats;

    /// <summary>The same in pairs.</summary>
    public uint* Pairs;

    /// <summary>Work items taken so far; threads take the next until none is left, so that a thread that is held up does less.</summary>
    public int NextItem;

    /// <summary>The inputs of a token.</summary>
    public readonly float* Row(int token, int inputs) => Input + (InputRows == null ? token : InputRows[token]) * (long)inputs;

    /// <summary>Quantized activations in the order of a matrix.</summary>
    public readonly byte* BlocksOf(PackedMatrix matrix) => Blocks + (nuint)matrix.ActivationOrder * OrderBytes;

    /// <summary>Activations of a form that is not <see cref="ActivationForms.Blocks"/>.</summary>
    public readonly uint* Words(ActivationForms form) => form switch
    {
        ActivationForms.Pairs => Pairs,
        ActivationForms.RoundedFloats => RoundedFloats,
        _ => Floats,
    };
}
