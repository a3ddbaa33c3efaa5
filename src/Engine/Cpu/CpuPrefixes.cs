using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// The key and value prefixes that streams have in one layer, as float32 tiles like those of <see cref="KvLayout"/>: read by all sequences, copied for none.
/// </summary>
internal sealed unsafe class CpuPrefixes : DeviceWeights
{
    /// <summary>Columns of K are whole vectors of the widest kind.</summary>
    private const int Lanes = 16;

    /// <summary>A bound far above any model's, so that no product below overflows.</summary>
    private const int LargestPrefix = 1 << 16;

    private readonly (NativeBuffer Memory, int Streams, PrefixTile First)?[] sets;

    /// <exception cref="EngineException">A tensor is missing, has another shape, or holds a number that is not finite.</exception>
    public CpuPrefixes(IReadOnlyList<(StreamPrefixPlan Plan, int Streams, int Tokens)?> prefixes, KvSlotPlan shape, Checkpoint checkpoint)
    {
        (KvHeads, HeadDim) = (shape.KvHeads, shape.HeadDim);
        sets = new (NativeBuffer, int, PrefixTile)?[prefixes.Count];
        try
        {
            for (int set = 0; set < sets.Length; set++)
            {
                if (prefixes[set] is var (plan, streams, tokens))
                {
                    sets[set] = Load(plan, streams, tokens, checkpoint);
                }
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public int KvHeads { get; }

    public int HeadDim { get; }

    /// <inheritdoc/>
    public override long Bytes => sets.Sum(static set => set?.Memory.Bytes ?? 0);

    /// <summary>The prefix of a stream; one without tokens where the set has none.</summary>
    public PrefixTile Tile(int set, int stream)
    {
        if ((uint)set >= (uint)sets.Length)
        {
            throw new EngineException($"there are {sets.Length} sets of streams, none is {set}");
        }
        if (sets[set] is not var (_, streams, first))
        {
            return default;
        }
        return (uint)stream < (uint)streams
            ? first with { Address = first.Address + (nint)(stream * KvHeads * first.HeadFloats * sizeof(float)) }
            : throw new EngineException($"a set has {streams} streams, none is {stream}");
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        foreach (var set in sets)
        {
            set?.Memory.Dispose();
        }
    }

    private (NativeBuffer Memory, int Streams, PrefixTile First) Load(StreamPrefixPlan plan, int streams, int tokens, Checkpoint checkpoint)
    {
        if (streams is < 1 or > LargestPrefix || tokens is < 1 or > LargestPrefix)
        {
            throw new EngineException($"{streams} streams with prefixes of {tokens} tokens are impossible", checkpoint.Path, plan.Keys.Tensor);
        }
        float[] keys = Read(plan.Keys, streams, tokens, checkpoint), values = Read(plan.Values, streams, tokens, checkpoint);
        var tile = new PrefixTile(0, tokens, (tokens + Lanes - 1) & -Lanes, HeadDim, (HeadDim + Lanes - 1) & -Lanes);
        var memory = new NativeBuffer(checked(streams * KvHeads * tile.HeadFloats * sizeof(float)), "stream prefixes");
        new Span<byte>(memory.Address, checked((int)memory.Bytes)).Clear();
        float* destination = (float*)memory.Address;
        for (int head = 0; head < streams * KvHeads; head++)
        {
            float* k = destination + head * tile.HeadFloats, v = k + tile.KeyFloats;
            for (int token = 0; token < tokens; token++)
            {
                int source = (head * tokens + token) * HeadDim;
                for (int i = 0; i < HeadDim; i++)
                {
                    k[(long)i * tile.Columns + token] = keys[source + i];
                    v[(long)token * tile.PaddedHeadDim + i] = values[source + i];
                }
            }
        }
        return (memory, streams, tile with { Address = (nint)destination });
    }

    private float[] Read(WeightRef weight, int streams, int tokens, Checkpoint checkpoint)
    {
        TensorView view = checkpoint[weight.Tensor];
        if (!weight.IsPlain || view.Shape is not [var s, var h, var t, var d] || s != streams || h != KvHeads || t != tokens || d != HeadDim)
        {
            throw new EngineException(
                $"expected a prefix [{streams}, {KvHeads}, {tokens}, {HeadDim}], found [{string.Join(", ", view.Shape)}]", checkpoint.Path, weight.Tensor);
        }
        var values = new float[checked(streams * KvHeads * tokens * HeadDim)];
        Codec codec = Codec.For(view.DType);
        for (long row = 0; row < view.Rows; row++)
        {
            codec.Decode(view.Row(row), values.AsSpan((int)row * HeadDim, HeadDim));
        }
        int bad = Array.FindIndex(values, static value => !float.IsFinite(value));
        return bad < 0 ? values : throw new EngineException($"element {bad} is {values[bad]}, expected a finite number", checkpoint.Path, weight.Tensor);
    }
}
