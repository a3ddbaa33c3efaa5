using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// Where keys and values lie. A page is, for every KV head, a run of <em>tiles</em> of <see cref="TileTokens"/> tokens; a tile is
/// [K: headDim × tileTokens | V: tileTokens × paddedValueDim], both row-major. K is transposed so that scores of neighbouring tokens are neighbouring
/// lanes and no sum over lanes is needed; V is not, so that neighbouring elements of the output are. Both products of attention are then the
/// same small matrix multiplication. Where values are a part of the keys, V is not stored, and attention turns K around. A Q8_0 tile is all its codes, then their scales as float32 that hold binary16 values.
/// </summary>
internal readonly record struct KvLayout
{
    /// <summary>Tokens of a tile at most: K and V of a tile of 64-element heads in float32 are half of a first-level cache.</summary>
    private const int LargestTile = 64;

    /// <summary>Elements that share a scale in Q8_0.</summary>
    public const int BlockElements = 32;

    /// <summary>Rows and columns of tiles are whole vectors of the widest kind.</summary>
    private const int Lanes = 16;

    public KvLayout(KvSlotPlan slot, KvFormat format, int pageTokens)
    {
        HeadDim = slot.HeadDim;
        KvHeads = slot.KvHeads;
        Format = format;
        PageTokens = pageTokens;
        ValueDim = slot.ValueDim;
        PaddedValueDim = RoundUp(slot.ValueDim);
        HasValues = slot.LatentDim is null;
        TileTokens = Math.Min(LargestTile, RoundUp(pageTokens));
        KeyBytes = TileBytes(format, (long)HeadDim * TileTokens);
        ValueBytes = HasValues ? TileBytes(format, (long)PaddedValueDim * TileTokens) : 0;
        TilesPerPage = (pageTokens + TileTokens - 1) / TileTokens;
        PageBytes = checked(KvHeads * TilesPerPage * (KeyBytes + ValueBytes));
    }

    public int KvHeads { get; }

    public int HeadDim { get; }

    /// <summary>Elements of a value.</summary>
    public int ValueDim { get; }

    /// <summary>valueDim rounded up to whole vectors: the columns of V.</summary>
    public int PaddedValueDim { get; }

    /// <summary>Values are stored; otherwise they are the first elements of the keys.</summary>
    public bool HasValues { get; }

    public KvFormat Format { get; }

    public int PageTokens { get; }

    public int TileTokens { get; }

    public int TilesPerPage { get; }

    /// <summary>Bytes of a tile's keys; its values follow.</summary>
    public long KeyBytes { get; }

    public long ValueBytes { get; }

    public long PageBytes { get; }

    /// <summary>Where a tile begins in its page.</summary>
    public long TileOffset(int kvHead, int tile) => ((long)kvHead * TilesPerPage + tile) * (KeyBytes + ValueBytes);

    private static int RoundUp(int value) => checked(value + Lanes - 1) & -Lanes;

    private static long TileBytes(KvFormat format, long elements) => format switch
    {
        KvFormat.F32 => elements * sizeof(float),
        KvFormat.F16 => elements * sizeof(ushort),
        KvFormat.Q8_0 => elements + elements / BlockElements * sizeof(float),
        _ => throw new EngineException($"unknown KV format {format}"),
    };
}
