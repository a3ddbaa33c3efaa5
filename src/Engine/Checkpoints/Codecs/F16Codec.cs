using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace Engine.Checkpoints.Codecs;

/// <summary>Binary16. Encoding rounds to nearest even.</summary>
internal sealed class F16Codec : Codec
{
    public override DType DType => DType.F16;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source) => IndexOfNonFinite(MemoryMarshal.Cast<byte, ushort>(source));

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination) =>
        TensorPrimitives.ConvertToSingle(MemoryMarshal.Cast<byte, Half>(source), destination);

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination)
    {
        TensorPrimitives.ConvertToHalf(source, MemoryMarshal.Cast<byte, Half>(destination));
        int bad = IndexOfNonFinite(MemoryMarshal.Cast<byte, ushort>(destination));
        if (bad >= 0)
            throw new EngineException($"element {bad} is {source[bad]}; F16 holds magnitudes up to 65504");
    }

    private static int IndexOfNonFinite(ReadOnlySpan<ushort> values)
    {
        for (int i = 0; i < values.Length; i++)
        {
            if ((values[i] & 0x7C00) == 0x7C00)
                return i;
        }
        return -1;
    }
}

/// <summary>The f16 fields (scales and minima) inside blocks.</summary>
internal static class HalfField
{
    public static float Read(ReadOnlySpan<byte> field) => (float)BitConverter.ToHalf(field);

    public static bool IsFinite(ReadOnlySpan<byte> field) => Half.IsFinite(BitConverter.ToHalf(field));

    /// <summary>Stores a value and returns what was stored, so that codes are chosen against the rounded scale.</summary>
    /// <exception cref="EngineException">The value does not fit in binary16.</exception>
    public static float Write(float value, Span<byte> field)
    {
        Half half = (Half)value;
        if (!Half.IsFinite(half))
            throw new EngineException($"the weights need a scale of {value}, but block formats store scales as F16, up to 65504");
        BitConverter.TryWriteBytes(field, half);
        return (float)half;
    }
}
