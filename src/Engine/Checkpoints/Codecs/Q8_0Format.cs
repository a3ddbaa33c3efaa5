using System.Numerics.Tensors;

namespace Engine.Checkpoints.Codecs;

/// <summary>32 weights: <c>d: f16 | codes: i8[32]</c>; value = d·q.</summary>
internal readonly struct Q8_0Format : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 32, CodesOffset = 2, BlockBytes = CodesOffset + BlockElements;

    private const int LargestCode = 127;

    private static readonly sbyte[] codeValues = [.. Enumerable.Range(-LargestCode, 2 * LargestCode + 1).Select(static code => (sbyte)code)];

    public static DType DType => DType.Q8_0;
    public static int GroupElements => BlockElements;

    /// <summary>Around zero; −128 is never written.</summary>
    public static ReadOnlySpan<sbyte> Values => codeValues;

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfField.Read(block);
        ReadOnlySpan<byte> codes = block.Slice(CodesOffset, BlockElements);
        for (int i = 0; i < BlockElements; i++)
            values[i] = scale * (sbyte)codes[i];
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        // Codes are chosen against the exact scale, not the rounded one: this is what ggml does, and files should agree byte for byte.
        float scale = MathF.Abs(TensorPrimitives.MaxMagnitude(values)) / LargestCode;
        float inverse = scale == 0 ? 0f : 1f / scale;
        if (float.IsInfinity(inverse))
            inverse = 0f;
        HalfField.Write(scale, block);
        for (int i = 0; i < BlockElements; i++)
            block[CodesOffset + i] = (byte)(sbyte)MathF.Round(values[i] * inverse, MidpointRounding.AwayFromZero);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        (scales[0], minima[0]) = (HalfField.Read(block), 0f);

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block)
    {
        for (int i = 0; i < BlockElements; i++)
            block[CodesOffset + i] = (byte)(codes[i] - LargestCode);
    }
}
