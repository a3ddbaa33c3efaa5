using Engine.Checkpoints;

namespace Engine.Reference;

/// <summary>Decodes rows of a tensor to float32, which holds the values of every weight format exactly.</summary>
internal static class WeightCodec
{
    public static void Decode(TensorView view, long row, Span<float> destination) => view.DecodeRow(row, destination);
}
