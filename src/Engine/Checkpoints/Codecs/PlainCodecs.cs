using System.Numerics;
using System.Runtime.InteropServices;

namespace Engine.Checkpoints.Codecs;

/// <summary>Binary64, rounded to float32.</summary>
internal sealed class F64Codec : Codec
{
    public override DType DType => DType.F64;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source)
    {
        ReadOnlySpan<double> values = MemoryMarshal.Cast<byte, double>(source);
        for (int i = 0; i < values.Length; i++)
        {
            if (!double.IsFinite(values[i]))
                return i;
        }
        return -1;
    }

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination)
    {
        ReadOnlySpan<double> values = MemoryMarshal.Cast<byte, double>(source);
        for (int i = 0; i < values.Length; i++)
            destination[i] = (float)values[i];
    }

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination)
    {
        Span<double> values = MemoryMarshal.Cast<byte, double>(destination);
        for (int i = 0; i < values.Length; i++)
            values[i] = source[i];
    }
}

/// <summary>Integers, rounded to the nearest float32. They are read (indices, masks, codes), never made from weights.</summary>
internal sealed class IntegerCodec<T>(DType dtype) : Codec
    where T : unmanaged, IBinaryInteger<T>
{
    public override DType DType => dtype;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source) => -1;

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination)
    {
        ReadOnlySpan<T> values = MemoryMarshal.Cast<byte, T>(source);
        for (int i = 0; i < values.Length; i++)
            destination[i] = float.CreateSaturating(values[i]);
    }

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination) =>
        throw new EngineException($"weights cannot be stored as integers ({dtype.Info().Name})");
}

/// <summary>The three 8-bit floats (formats.md §1), read through a table of 256 values.</summary>
internal sealed class Float8Codec(DType dtype) : Codec
{
    private readonly float[] table = [.. Enumerable.Range(0, 256).Select(code => Value(dtype, (byte)code))];

    public override DType DType => dtype;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source)
    {
        for (int i = 0; i < source.Length; i++)
        {
            if (!float.IsFinite(table[source[i]]))
                return i;
        }
        return -1;
    }

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination)
    {
        for (int i = 0; i < source.Length; i++)
            destination[i] = table[source[i]];
    }

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination) =>
        throw ReadOnlyFormat.Refusal(dtype);

    private static float Value(DType dtype, byte code) => dtype switch
    {
        DType.F8_E5M2 => (float)BitConverter.UInt16BitsToHalf((ushort)(code << 8)),
        DType.F8_E8M0 => code == 0xFF ? float.NaN : MathF.ScaleB(1f, code - 127),
        _ => E4M3(code),
    };

    private static float E4M3(byte code)
    {
        int exponent = code >> 3 & 15, mantissa = code & 7;
        float magnitude = (exponent, mantissa) switch
        {
            (15, 7) => float.NaN,
            (0, _) => MathF.ScaleB(mantissa, -9),
            _ => MathF.ScaleB(8 + mantissa, exponent - 10),
        };
        return (code & 0x80) != 0 ? -magnitude : magnitude;
    }
}
