using System.Globalization;

namespace Engine.Checkpoints.Pruned;

/// <summary>What the tensors of a layer say about it.</summary>
/// <param name="HasAttention">There are tensors of attention.</param>
/// <param name="HasFeedForward">There are tensors of a feed-forward.</param>
/// <param name="QueryRows">Rows of the query projection; null where it is not stored as a matrix of that name.</param>
/// <param name="KeyRows">Rows of the key projection.</param>
/// <param name="Width">Inner width of the feed-forward, which at least two of its matrices agree on.</param>
internal sealed record StoredLayer(bool HasAttention, bool HasFeedForward, long? QueryRows, long? KeyRows, long? Width)
{
    private const string Attention = "self_attn.", FeedForward = "mlp.", Buffers = "self_attn.rotary_emb.";

    /// <summary>Norms before attention and before the feed-forward: of no use where those are gone.</summary>
    public const string AttentionNorm = "input_layernorm.", FeedForwardNorm = "post_attention_layernorm.";

    /// <summary>The layers that tensors exist for, by number. A few outlines are read.</summary>
    /// <param name="checkpoint">The model.</param>
    /// <param name="prefix">What stands before a layer's number.</param>
    public static SortedDictionary<int, StoredLayer> Find(Checkpoint checkpoint, string prefix)
    {
        var modules = new SortedDictionary<int, (bool Attention, bool FeedForward)>();
        foreach (string tensor in checkpoint.TensorNames)
        {
            if (Split(tensor, prefix) is not (var number, var inLayer))
            {
                continue;
            }
            (bool attention, bool feedForward) = modules.GetValueOrDefault(number);
            modules[number] = (
                attention || (inLayer.StartsWith(Attention, StringComparison.Ordinal) && !inLayer.StartsWith(Buffers, StringComparison.Ordinal)),
                feedForward || inLayer.StartsWith(FeedForward, StringComparison.Ordinal));
        }
        var layers = new SortedDictionary<int, StoredLayer>();
        foreach ((int number, (bool attention, bool feedForward)) in modules)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"{prefix}{number}.");
            layers[number] = new StoredLayer(
                attention, feedForward, Rows("self_attn.q_proj"), Rows("self_attn.k_proj"),
                Agreed(Rows("mlp.gate_proj"), Rows("mlp.up_proj"), Shape("mlp.down_proj") is [_, var columns] ? columns : null));

            long[]? Shape(string linear) => checkpoint.TryGetOutline($"{name}{linear}.weight", out TensorView? tensor) ? tensor.Shape : null;

            long? Rows(string linear) => Shape(linear) is [var rows, _] ? rows : null;
        }
        return layers;
    }

    /// <summary>A layer's number and the rest of the name; null where the tensor is in no layer.</summary>
    public static (int Number, string InLayer)? Split(string tensor, string prefix)
    {
        if (!tensor.StartsWith(prefix, StringComparison.Ordinal))
        {
            return null;
        }
        int dot = tensor.IndexOf('.', prefix.Length);
        return dot > 0 && int.TryParse(tensor.AsSpan(prefix.Length, dot - prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? (number, tensor[(dot + 1)..])
            : null;
    }

    private static long? Agreed(long? gate, long? up, long? down) => gate == up ? gate : up == down ? up : gate == down ? gate : null;
}
