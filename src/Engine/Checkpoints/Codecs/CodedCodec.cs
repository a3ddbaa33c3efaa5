namespace Engine.Checkpoints.Codecs;

/// <summary>Stands for <see cref="DType.Coded"/>, whose rows have no bytes of their own: a <see cref="CodedMatrix"/> decodes them.</summary>
internal sealed class CodedCodec : Codec
{
    public override DType DType => DType.Coded;

    public override long IndexOfNonFinite(ReadOnlySpan<byte> source) => throw Unsupported();

    protected override void DecodeBlocks(ReadOnlySpan<byte> source, Span<float> destination) => throw Unsupported();

    protected override void EncodeBlocks(ReadOnlySpan<float> source, Span<byte> destination) => throw Unsupported();

    private static EngineException Unsupported() => new("codes whose scales are stored apart cannot be read or written as rows of bytes");
}
