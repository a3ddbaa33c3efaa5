using System.Runtime.InteropServices;

namespace Engine.Checkpoints.Codecs;

/// <summary>Binary32: bytes as they are.</summary>
internal sealed class F32Codec : Codec
{
    public override DType DType => DType.F32;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source) =>
        FiniteCheck.IndexOfNonFinite(MemoryMarshal.Cast<byte, float>(source));

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination) =>
        source.CopyTo(MemoryMarshal.AsBytes(destination));

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination) =>
        MemoryMarshal.AsBytes(source).CopyTo(destination);
}
