using System.Numerics.Tensors;

namespace Engine.Checkpoints.Codecs;

/// <summary>32 weights: <c>d: f16 | m: f16 | codes: u8[16]</c>; value = d·q + m. Nibbles as in <see cref="Q4_0Format"/>.</summary>
internal readonly struct Q4_1Format : IBlockFormat, IBlockGrid
{
    public const int BlockElements = 32, MinimumOffset = 2, CodesOffset = 4, BlockBytes = CodesOffset + BlockElements / 2;

    public static DType DType => DType.Q4_1;
    public static int GroupElements => BlockElements;
    public static ReadOnlySpan<sbyte> Values => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    public static bool IsFinite(ReadOnlySpan<byte> block) => HalfField.IsFinite(block) && HalfField.IsFinite(block[MinimumOffset..]);

    public static void Decode(ReadOnlySpan<byte> block, Span<float> values)
    {
        float scale = HalfField.Read(block), minimum = HalfField.Read(block[MinimumOffset..]);
        ReadOnlySpan<byte> codes = block.Slice(CodesOffset, BlockElements / 2);
        for (int j = 0; j < BlockElements / 2; j++)
        {
            values[j] = scale * (codes[j] & 15) + minimum;
            values[j + BlockElements / 2] = scale * (codes[j] >> 4) + minimum;
        }
    }

    public static void Encode(ReadOnlySpan<float> values, Span<byte> block)
    {
        (float inverse, float minimum) = UnsignedScale.Write(values, 15, block, block[MinimumOffset..]);
        Span<byte> codes = stackalloc byte[BlockElements];
        for (int i = 0; i < BlockElements; i++)
            codes[i] = (byte)UnsignedScale.Code(values[i], inverse, minimum, 15);
        WriteCodes(codes, block);
    }

    public static void ReadGroups(ReadOnlySpan<byte> block, Span<float> scales, Span<float> minima) =>
        (scales[0], minima[0]) = (HalfField.Read(block), -HalfField.Read(block[MinimumOffset..]));

    public static void WriteCodes(ReadOnlySpan<byte> codes, Span<byte> block) => Nibbles.Write(codes, block[CodesOffset..]);
}

/// <summary>Scale and minimum of formats that have both: codes span the block's range.</summary>
internal static class UnsignedScale
{
    /// <summary>Stores scale and minimum and returns the inverse scale and the minimum.</summary>
    public static (float Inverse, float Minimum) Write(
        ReadOnlySpan<float> values, int maxCode, Span<byte> scaleField, Span<byte> minimumField)
    {
        float minimum = TensorPrimitives.Min(values);
        float scale = (TensorPrimitives.Max(values) - minimum) / maxCode;
        HalfField.Write(scale, scaleField);
        HalfField.Write(minimum, minimumField);
        float inverse = scale == 0 ? 0f : 1f / scale;
        return (float.IsInfinity(inverse) ? 0f : inverse, minimum);
    }

    /// <summary>The code, 0 … maxCode.</summary>
    public static int Code(float value, float inverse, float minimum, int maxCode) =>
        Math.Min(maxCode, (int)((value - minimum) * inverse + 0.5f));
}
