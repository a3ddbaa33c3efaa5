namespace Tools.Trainer;

/// <summary>The shape of a llama model with tied embeddings.</summary>
/// <param name="Vocabulary">Tokens; a multiple of 32.</param>
/// <param name="Dimension">Width of the residual stream; a multiple of 32.</param>
/// <param name="Layers">Blocks.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KvHeads">Key and value heads; divides <paramref name="Heads"/>.</param>
/// <param name="FeedForward">Inner width of the SwiGLU; a multiple of 32.</param>
/// <param name="Context">Longest sequence.</param>
public sealed record LlamaShape(int Vocabulary, int Dimension, int Layers, int Heads, int KvHeads, int FeedForward, int Context)
{
    /// <summary>Base of the rotary frequencies.</summary>
    public const float RopeBase = 10000f;

    /// <summary>Added to the mean square in RMSNorm.</summary>
    public const float NormEpsilon = 1e-5f;

    /// <summary>Width of one head.</summary>
    public int HeadDimension => Dimension / Heads;

    /// <summary>Width of all keys, and of all values, of one token.</summary>
    public int KvWidth => KvHeads * HeadDimension;

    /// <summary>Width of queries, keys and values side by side.</summary>
    public int QkvWidth => Dimension + 2 * KvWidth;

    /// <summary>Weights in all.</summary>
    public int ParameterCount => Vocabulary * Dimension + Dimension
        + Layers * (2 * Dimension + QkvWidth * Dimension + Dimension * Dimension + 3 * FeedForward * Dimension);
}
