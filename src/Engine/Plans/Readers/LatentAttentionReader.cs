namespace Engine.Plans.Readers;

/// <summary>
/// Reads DeepSeek's multi-head latent attention: <c>q_proj</c>, or <c>q_a_proj</c>, <c>q_a_layernorm</c> and <c>q_b_proj</c>; <c>kv_a_proj_with_mqa</c>
/// [kv_lora_rank + qk_rope_head_dim, hidden], <c>kv_a_layernorm</c>, and <c>kv_b_proj</c> [heads × (qk_nope_head_dim + v_head_dim), kv_lora_rank]. GGUF has the
/// last in two: <c>k_b_proj</c> [heads, kv_lora_rank, qk_nope_head_dim], transposed, and <c>v_b_proj</c> [heads, v_head_dim, kv_lora_rank].
/// </summary>
internal sealed class LatentAttentionReader
{
    /// <summary>The norms inside keep the default of their class, whatever <c>rms_norm_eps</c> says (transformers, modeling_deepseek_v3.py).</summary>
    private const float Epsilon = 1e-6f;

    private readonly TensorCatalog tensors;
    private readonly RopeReader rope;
    private readonly int hidden;
    private readonly int heads;
    private readonly int rank;
    private readonly int rotated;
    private readonly int plain;
    private readonly int valueDim;
    private readonly int? queryRank;
    private readonly bool biased;

    /// <summary>Reads what is not particular to a layer.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="tensors">The tensors.</param>
    /// <param name="rope">The rotation.</param>
    /// <param name="hidden">Width of the residual stream.</param>
    /// <param name="biased">Projections from the hidden state to what is compressed, and to it from the result, have biases.</param>
    /// <exception cref="EngineException">A key is missing or malformed.</exception>
    public LatentAttentionReader(ConfigReader config, TensorCatalog tensors, RopeReader rope, int hidden, bool biased)
    {
        (this.tensors, this.rope, this.hidden, this.biased) = (tensors, rope, hidden, biased);
        heads = config.Count("num_attention_heads");
        rank = config.Count("kv_lora_rank");
        rotated = config.Count("qk_rope_head_dim");
        plain = config.Count("qk_nope_head_dim");
        valueDim = config.Count("v_head_dim");
        queryRank = config.CountOrNull("q_lora_rank");
        if ((long)(heads + 1) * ((long)rank + rotated + plain + valueDim) > ConfigReader.LargestCount)
        {
            throw config.Error("num_attention_heads", $"{heads} heads with a latent of {rank} elements are more than this engine can address");
        }
    }

    /// <summary>Reads a layer's attention; <paramref name="name"/> ends in <c>self_attn</c>.</summary>
    public AttentionPlan Read(string name)
    {
        int queries = heads * (plain + rotated);
        (HeadLinearPlan keyUp, HeadLinearPlan valueUp) = Ups(name);
        return new AttentionPlan
        {
            Heads = heads,
            KvHeads = 1,
            HeadDim = rank + rotated,
            Scale = (float)(rope.ScoreFactor / Math.Sqrt(plain + rotated)),
            Qkv = new LinearPlan(hidden, [tensors.Part($"{name}.kv_a_proj_with_mqa", rank + rotated, hidden, biased)]),
            KeyNorm = Norm($"{name}.kv_a_layernorm", rank),
            Rope = rope.ForHeadDim(rotated),
            Output = new LinearPlan(heads * valueDim, [tensors.Part($"{name}.o_proj", hidden, heads * valueDim, biased)]),
            Latent = new LatentPlan
            {
                Rank = rank,
                QueryDown = queryRank is { } down ? new LinearPlan(hidden, [tensors.Part($"{name}.q_a_proj", down, hidden, biased)]) : null,
                QueryDownNorm = queryRank is { } width ? Norm($"{name}.q_a_layernorm", width) : null,
                Query = queryRank is { } inputs
                    ? new LinearPlan(inputs, [tensors.Part($"{name}.q_b_proj", queries, inputs)])
                    : new LinearPlan(hidden, [tensors.Part($"{name}.q_proj", queries, hidden)]),
                KeyUp = keyUp,
                ValueUp = valueUp,
            },
        };
    }

    private (HeadLinearPlan Key, HeadLinearPlan Value) Ups(string name)
    {
        string key = $"{name}.k_b_proj.weight", value = $"{name}.v_b_proj.weight";
        if (tensors.Has(key) || tensors.Has(value))
        {
            return (
                new HeadLinearPlan(heads, plain, rank, rotated, tensors.Tensor(key, heads, rank, plain), rank),
                new HeadLinearPlan(heads, rank, valueDim, 0, tensors.Tensor(value, heads, valueDim, rank), valueDim));
        }
        int stored = plain + valueDim;
        WeightRef up = tensors.Matrix($"{name}.kv_b_proj.weight", heads * stored, rank);
        return (
            new HeadLinearPlan(heads, plain, rank, rotated, up with { Transposed = true }, stored),
            new HeadLinearPlan(heads, rank, valueDim, 0, up with { FirstRow = plain }, stored));
    }

    private NormPlan Norm(string name, int width) => new(NormKind.Rms, Epsilon, tensors.Vector($"{name}.weight", width));
}
