using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>Key and value prefixes of one layer, per set [streams, kvHeads, tokens, headDim].</summary>
internal sealed class ReferencePrefixes(
    IReadOnlyList<(StreamPrefixPlan Plan, int Streams, int Tokens)?> prefixes, KvSlotPlan shape, Checkpoint checkpoint) : ReferenceWeights
{
    private readonly (float[] Keys, float[] Values)[] sets = [.. prefixes.Select(set => set is var (plan, streams, tokens)
        ? (Read(plan.Keys, streams * shape.KvHeads * tokens, shape.HeadDim, checkpoint),
            Read(plan.Values, streams * shape.KvHeads * tokens, shape.HeadDim, checkpoint))
        : ([], []))];

    /// <summary>Tokens of a set's prefixes; 0 where it has none.</summary>
    public int Tokens(int set) => prefixes[set]?.Tokens ?? 0;

    public Span<float> Head(int set, int stream, int kvHead, int token, bool value) =>
        (value ? sets[set].Values : sets[set].Keys).AsSpan(
            ((stream * shape.KvHeads + kvHead) * Tokens(set) + token) * shape.HeadDim, shape.HeadDim);

    private static float[] Read(WeightRef weight, int rows, int columns, Checkpoint checkpoint)
    {
        var matrix = new ReferenceMatrix(weight, rows, columns, checkpoint);
        var values = new float[rows * columns];
        for (int row = 0; row < rows; row++)
        {
            matrix.ReadRow(row, values.AsSpan(row * columns, columns));
        }
        return values;
    }
}
