using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// How wide heads are where a configuration does not say. Pruning heads makes projections narrower and leaves <c>num_attention_heads</c> as it was, so that neither
/// hidden_size / heads nor rows / heads can be trusted: the one that every projection can be cut into is taken, and where both can, nothing is guessed.
/// </summary>
internal static class HeadWidth
{
    /// <summary><c>head_dim</c>, or what projections say about it; null where there is nothing to tell it from.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="layers">Layers, by number.</param>
    /// <param name="file">Where they are, for messages.</param>
    /// <exception cref="EngineException">There are several answers, or none.</exception>
    public static int? Find(JsonObject config, IReadOnlyDictionary<int, StoredLayer> layers, string file)
    {
        if (config[PrunedConfig.HeadDim] is not null)
        {
            return PrunedConfig.Count(config, PrunedConfig.HeadDim);
        }
        (int Layer, long Queries, long Keys)[] rows =
        [
            .. layers.Where(static layer => layer.Value is { QueryRows: > 0, KeyRows: > 0 })
                .Select(static layer => (layer.Key, layer.Value.QueryRows!.Value, layer.Value.KeyRows!.Value)),
        ];
        if (PrunedConfig.Count(config, PrunedConfig.Heads) is not { } heads || PrunedConfig.Count(config, PrunedConfig.Hidden) is not { } hidden || rows.Length == 0)
        {
            return null;
        }
        (int layer, long widest, _) = rows.MaxBy(static row => row.Queries);
        long? byHidden = Fitting(hidden), byRows = Fitting(widest);
        if (byRows is { } head && (byHidden is null || byHidden == byRows || (widest > hidden && rows.All(row => row.Queries == widest))))
        {
            return (int)head;
        }
        if (byRows is null && byHidden is { } other)
        {
            return (int)other;
        }
        throw new EngineException(
            byRows is null
                ? $"projections were pruned, and their rows (up to {widest}, in layer {layer}) are no whole heads of {hidden} / {heads} nor of {widest} / {heads} elements: expected the key, found none"
                : $"projections were pruned: {widest} rows in layer {layer} are heads of {byHidden} (hidden_size / heads) or of {byRows} (rows / heads) elements: expected the key, found none",
            file, PrunedConfig.HeadDim);

        long? Fitting(long width) =>
            width % heads == 0 && width / heads is > 0 and <= int.MaxValue and var dim && rows.All(row => row.Queries % dim == 0 && row.Keys % dim == 0)
                ? dim : null;
    }
}
