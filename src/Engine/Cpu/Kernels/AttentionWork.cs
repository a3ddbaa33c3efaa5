namespace Engine.Cpu.Kernels;

/// <summary>Neighbouring rows of a run that are processed together, so that a tile of K and V is read once for all of them.</summary>
internal readonly record struct RowBlock(int Run, int FirstRow, int RowCount);

/// <summary>
/// Keys and values that all queries of a stream see: per KV head [K: headDim × columns | V: columns × paddedHeadDim] in float32; see <see cref="CpuPrefixes"/>.
/// </summary>
/// <param name="Address">The first head's.</param>
/// <param name="Tokens">Tokens; 0 where there is no prefix.</param>
/// <param name="Columns">Tokens rounded up to whole vectors.</param>
/// <param name="HeadDim">Elements of a head.</param>
/// <param name="PaddedHeadDim">headDim rounded up to whole vectors.</param>
internal readonly record struct PrefixTile(nint Address, int Tokens, int Columns, int HeadDim, int PaddedHeadDim)
{
    public long KeyFloats => (long)HeadDim * Columns;

    /// <summary>Floats from a head to the next.</summary>
    public long HeadFloats => KeyFloats + (long)Columns * PaddedHeadDim;
}

/// <summary>
/// A unit of attention: the query heads that go together, a block of rows, and the segments it covers. A task over all segments writes the output; one over a part of them
/// writes a partial result at <paramref name="Partial"/>, and the tasks of the same block and head follow one another.
/// </summary>
/// <param name="Block">Index of the row block.</param>
/// <param name="HeadGroup">Query heads, all of one key head: those from headGroup × <see cref="AttentionWork.Group"/> on.</param>
/// <param name="FirstSegment">First segment.</param>
/// <param name="EndSegment">One past the last.</param>
/// <param name="Partial">Offset of the partial result in floats, or −1.</param>
/// <param name="Parts">Tasks that follow and belong to the same output, this one included; 0 where this is not the first.</param>
internal readonly record struct AttentionTask(int Block, int HeadGroup, int FirstSegment, int EndSegment, long Partial, int Parts);

/// <summary>Attention of all rows of a step over one slot.</summary>
internal unsafe struct AttentionWork
{
    /// <summary>
    /// Tokens after which a running softmax is closed and merged into the row's total, whether or not another thread takes the next stretch: where
    /// work is cut must not change the result. Rounded to pages.
    /// </summary>
    public const int SegmentTokens = 512;

    /// <summary>Queries processed together: their accumulators, scores and a decoded tile fit a second-level cache.</summary>
    public const int BlockQueries = 32;

    /// <summary>[rows, qkvWidth], queries first.</summary>
    public float* Qkv;

    public int QkvWidth;

    /// <summary>[rows, heads × valueDim].</summary>
    public float* Output;

    public int Heads;

    /// <summary>Query heads that go together: all that share a key head, or an equal part of them.</summary>
    public int Group;

    /// <summary>Groups that share a key head.</summary>
    public int GroupsPerKvHead;

    /// <summary><see cref="Group"/>, padded to what the products take.</summary>
    public int PaddedGroup;

    /// <summary>Factor on q·k.</summary>
    public float Scale;

    /// <summary>Tokens that a row sees, itself included; int.MaxValue where there is no window.</summary>
    public int Window;

    /// <summary>Per run, its stream's prefix; null where the layer has none.</summary>
    public PrefixTile* Prefixes;

    /// <summary>[heads] logits that join the softmax without a value; null where there are none.</summary>
    public float* Sinks;

    public KvAccess Kv;
    public RowBlock* Blocks;
    public AttentionTask* Tasks;
    public int TaskCount;

    /// <summary>The next task nobody has taken.</summary>
    public int NextTask;

    /// <summary>Partial results of tasks that cover a part of the segments.</summary>
    public float* Partials;

    /// <summary>Working memory of all threads.</summary>
    public byte* Scratch;

    /// <summary>Bytes of it per thread.</summary>
    public long ScratchStride;

    /// <summary>Pages of a segment.</summary>
    public readonly int SegmentPages => Math.Max(1, SegmentTokens / Kv.Layout.PageTokens);

    /// <summary>The index in the slot of a block's first row.</summary>
    public readonly int FirstIndex(in RowBlock block) => Kv.Indices[block.FirstRow];

    /// <summary>The index in the slot of a block's last row.</summary>
    public readonly int LastIndex(in RowBlock block) => Kv.Indices[block.FirstRow + block.RowCount - 1];

    /// <summary>Scores of a query at a time: a tile's, or a prefix's.</summary>
    public int ScoreColumns;

    /// <summary>Floats of a block's running softmax: accumulators, maxima and sums.</summary>
    public readonly long StateFloats(int rows) => (long)rows * PaddedGroup * (Kv.Layout.PaddedValueDim + 2);

    /// <summary>Bytes of working memory that a thread needs for a block of <paramref name="rows"/>.</summary>
    public readonly long ScratchBytes(int rows)
    {
        long queries = (long)rows * PaddedGroup;
        long tile = (long)Kv.Layout.TileTokens * (Kv.Layout.HeadDim + Kv.Layout.PaddedValueDim);
        long floats = queries * (Kv.Layout.HeadDim + ScoreColumns) + tile + 2 * StateFloats(rows);
        // Whole cache lines, plus room for the alignment of each array.
        return (floats * sizeof(float) + 8 * NativeBuffer.Alignment) & -(long)NativeBuffer.Alignment;
    }
}
