namespace Engine.Plans.Readers;

/// <summary>Heads of a layer: how many, how many share keys and values, and how wide.</summary>
/// <param name="Heads">Query heads; 0 where the layer has no attention.</param>
/// <param name="KvHeads">Key and value heads; 0 where the layer has no attention, or a matrix in place of it, as GGUF's architecture <c>deci</c> says it.</param>
/// <param name="HeadDim">Elements of a head.</param>
internal readonly record struct AttentionGeometry(int Heads, int KvHeads, int HeadDim)
{
    /// <summary>Far beyond any model; bounds the table of frequencies before a tensor has confirmed the number.</summary>
    private const int LargestHeadDim = 1 << 16;

    /// <summary>The layer has attention.</summary>
    public bool HasAttention => KvHeads > 0;

    /// <summary>The layer has a matrix in place of attention.</summary>
    public bool HasLinear => Heads > 0 && KvHeads == 0;

    /// <summary>Width of the queries and of the attention's result.</summary>
    public int QueryWidth => Heads * HeadDim;

    /// <summary>Width of the keys, and of the values.</summary>
    public int KeyWidth => KvHeads * HeadDim;

    /// <summary>
    /// Reads every layer's geometry. <c>head_dim</c> and <c>num_key_value_heads</c> may be absent; the shapes of the q and k projections
    /// tell then
    /// (families differ in the defaults, files do not lie about shapes).
    /// </summary>
    /// <param name="config">The configuration.</param>
    /// <param name="tensors">The tensors.</param>
    /// <param name="hiddenSize">Width of the residual stream.</param>
    /// <param name="layers">Layers.</param>
    /// <param name="attentionName">What the names of a layer's attention begin with.</param>
    /// <param name="mayBeAbsent">Layers may have no attention.</param>
    /// <exception cref="EngineException">Heads do not fit each other or the projections.</exception>
    public static AttentionGeometry[] Read(
        ConfigReader config, TensorCatalog tensors, int hiddenSize, int layers, Func<int, string> attentionName, bool mayBeAbsent)
    {
        int least = mayBeAbsent ? 0 : 1;
        int[] heads = config.CountPerLayer("num_attention_heads", layers, least)
            ?? throw config.Error("num_attention_heads", "the key is missing");
        int[]? kvHeads = config.CountPerLayer("num_key_value_heads", layers, least);
        int[]? headDims = config.CountPerLayer("head_dim", layers);
        var geometry = new AttentionGeometry[layers];
        for (int layer = 0; layer < layers; layer++)
        {
            if (heads[layer] == 0 || kvHeads?[layer] == 0)
            {
                geometry[layer] = heads[layer] > 0 || kvHeads?[layer] is null or 0
                    ? new AttentionGeometry(heads[layer], 0, 0)
                    : throw config.Error($"num_key_value_heads[{layer}]", $"there are no query heads; found {kvHeads[layer]}");
                continue;
            }
            string attention = attentionName(layer);
            int headDim = headDims?[layer]
                ?? Quotient(RowsOf(tensors, $"{attention}.q_proj.weight"), heads[layer])
                ?? Quotient(hiddenSize, heads[layer])
                ?? throw config.Error(
                    "num_attention_heads", $"expected a divisor of hidden_size, {hiddenSize}, in layer {layer}; found {heads[layer]}");
            int kv = kvHeads?[layer] ?? Quotient(RowsOf(tensors, $"{attention}.k_proj.weight"), headDim) ?? heads[layer];
            geometry[layer] = Checked(config, heads[layer], kv, headDim, layer);
        }
        return geometry;
    }

    private static AttentionGeometry Checked(ConfigReader config, int heads, int kvHeads, int headDim, int layer)
    {
        if (heads % kvHeads != 0)
        {
            throw config.Error("num_key_value_heads", $"expected a divisor of the {heads} query heads in layer {layer}; found {kvHeads}");
        }
        return headDim <= LargestHeadDim && (long)heads * headDim <= ConfigReader.LargestCount
            ? new AttentionGeometry(heads, kvHeads, headDim)
            : throw config.Error("head_dim", $"{heads} heads of {headDim} elements in layer {layer} are more than this engine can address");
    }

    private static int? RowsOf(TensorCatalog tensors, string name) =>
        tensors.ShapeOf(name) is [long rows and > 0 and <= int.MaxValue, _] ? (int)rows : null;

    private static int? Quotient(int? width, int parts) => width % parts == 0 ? width / parts : null;
}
