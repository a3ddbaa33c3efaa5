using System.Runtime.InteropServices;

namespace Engine.Checkpoints.Codecs;

/// <summary>The top 16 bits of a binary32. Encoding rounds to nearest even.</summary>
internal sealed class BF16Codec : Codec
{
    public override DType DType => DType.BF16;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source)
    {
        ReadOnlySpan<ushort> values = MemoryMarshal.Cast<byte, ushort>(source);
        for (int i = 0; i < values.Length; i++)
        {
            if ((values[i] & 0x7F80) == 0x7F80)
                return i;
        }
        return -1;
    }

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination)
    {
        ReadOnlySpan<ushort> values = MemoryMarshal.Cast<byte, ushort>(source);
        Span<uint> bits = MemoryMarshal.Cast<float, uint>(destination);
        for (int i = 0; i < values.Length; i++)
            bits[i] = (uint)values[i] << 16;
    }

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination)
    {
        Span<ushort> values = MemoryMarshal.Cast<byte, ushort>(destination);
        for (int i = 0; i < values.Length; i++)
        {
            uint bits = BitConverter.SingleToUInt32Bits(source[i]);
            uint rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
            if ((rounded & 0x7F80) == 0x7F80)
                throw new EngineException($"element {i} is {source[i]}, which rounds to infinity in BF16");
            values[i] = (ushort)rounded;
        }
    }
}
