using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>
/// Causal attention over pages (Dao et al. 2022 for the softmax, Kwon et al. 2023 for the pages). A row goes through its tokens tile by tile from the
/// first, closes a segment at fixed token numbers and merges segments in order; which rows share a tile's bytes, which thread works and where the
/// pages lie are free. The query heads of a KV head go together.
/// </summary>
internal static unsafe class AttentionKernel<TSimd, V, TKey, TValue>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
    where TKey : struct, IKvTile<TKey>
    where TValue : struct, IKvTile<TValue>
{
    /// <summary>From so many queries on, a tile is decoded once to float32; below, it is decoded in registers for each few of them.</summary>
    private const int DecodeFrom = 16;

    public static void Run(void* state, int thread, int threads)
    {
        var work = (AttentionWork*)state;
        while (true)
        {
            int index = Interlocked.Increment(ref work->NextTask) - 1;
            if (index >= work->TaskCount)
            {
                return;
            }
            RunTask(work, work->Tasks[index], work->Scratch + thread * work->ScratchStride);
        }
    }

    /// <summary>After <see cref="Run"/>: merges the partial results of tasks that share an output.</summary>
    public static void Merge(void* state, int thread, int threads)
    {
        var work = (AttentionWork*)state;
        (long first, long end) = Share.Of(work->TaskCount, thread, threads);
        for (long index = first; index < end; index++)
        {
            AttentionTask task = work->Tasks[index];
            if (task.Parts == 0 || task.Partial < 0)
            {
                continue;
            }
            RowBlock block = work->Blocks[task.Block];
            RunningSoftmax total = Partial(work, task, block);
            for (int part = 1; part < task.Parts; part++)
            {
                total.Merge<TSimd, V>(Partial(work, work->Tasks[index + part], block));
            }
            Write(work, block, task.HeadGroup, total);
        }
    }

    private static RunningSoftmax Partial(AttentionWork* work, in AttentionTask task, in RowBlock block) =>
        new((nint)(work->Partials + task.Partial), block.RowCount * work->PaddedGroup, work->Kv.Layout.PaddedValueDim);

    private static void RunTask(AttentionWork* work, in AttentionTask task, byte* scratch)
    {
        RowBlock block = work->Blocks[task.Block];
        ref readonly KvLayout layout = ref work->Kv.Layout;
        int queries = block.RowCount * work->PaddedGroup, kvHead = task.HeadGroup / work->GroupsPerKvHead;
        float* q = Take(ref scratch, (long)queries * layout.HeadDim);
        float* scores = Take(ref scratch, (long)queries * work->ScoreColumns);
        float* decoded = Take(ref scratch, (long)layout.TileTokens * (layout.HeadDim + layout.PaddedValueDim));
        var segment = new RunningSoftmax((nint)Take(ref scratch, work->StateFloats(block.RowCount)), queries, layout.PaddedValueDim);
        RunningSoftmax total = task.Partial >= 0
            ? Partial(work, task, block)
            : segment with { Memory = (nint)Take(ref scratch, work->StateFloats(block.RowCount)) };
        LoadQueries(work, block, task.HeadGroup, q);
        total.Clear();
        if (work->Prefixes is not null && (task.Partial < 0 || task.Parts > 0))
        {
            segment.Clear();
            RunPrefix(work, block, kvHead, q, scores, segment);
            total.Merge<TSimd, V>(segment);
        }
        for (int s = task.FirstSegment; s < task.EndSegment; s++)
        {
            segment.Clear();
            RunSegment(work, block, kvHead, s, q, scores, decoded, segment);
            total.Merge<TSimd, V>(segment);
        }
        if (task.Partial < 0)
        {
            Write(work, block, task.HeadGroup, total);
        }
    }

    /// <summary>All rows of a block see all of their stream's prefix.</summary>
    private static void RunPrefix(AttentionWork* work, in RowBlock block, int kvHead, float* q, float* scores, in RunningSoftmax state)
    {
        PrefixTile prefix = work->Prefixes[block.Run];
        if (prefix.Tokens == 0)
        {
            return;
        }
        float* keys = (float*)prefix.Address + kvHead * prefix.HeadFloats;
        var rows = new TileRows(null, 0, 0, block.RowCount, prefix.Tokens, int.MaxValue);
        Products(work, rows, null, null, new F32Tile(keys, prefix.Columns), new F32Tile(keys + prefix.KeyFloats, prefix.PaddedHeadDim),
            prefix.Columns, q, scores, state);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void RunSegment(
        AttentionWork* work, in RowBlock block, int kvHead, int segment, float* q, float* scores, float* decoded, in RunningSoftmax state)
    {
        ref readonly KvLayout layout = ref work->Kv.Layout;
        int* indices = work->Kv.Indices + block.FirstRow;
        int lastIndex = work->LastIndex(block);
        long endPage = Math.Min((segment + 1L) * work->SegmentPages, (long)lastIndex / layout.PageTokens + 1);
        for (int page = segment * work->SegmentPages; page < endPage; page++)
        {
            for (int tileInPage = 0; tileInPage < layout.TilesPerPage; tileInPage++)
            {
                int start = page * layout.PageTokens + tileInPage * layout.TileTokens;
                int tokens = Math.Min(layout.TileTokens, layout.PageTokens - tileInPage * layout.TileTokens);
                // Rows that see a token of the tile: not before its first token, and not so late that the window has passed its last.
                int firstRow = 0, endRow = block.RowCount;
                while (firstRow < endRow && indices[firstRow] < start)
                {
                    firstRow++;
                }
                while (endRow > firstRow && indices[endRow - 1] >= (long)start + tokens - 1 + work->Window)
                {
                    endRow--;
                }
                if (firstRow < endRow)
                {
                    byte* tile = work->Kv.Tile(block.Run, page, tileInPage, kvHead);
                    byte* nextTile = tileInPage + 1 < layout.TilesPerPage ? work->Kv.Tile(block.Run, page, tileInPage + 1, kvHead)
                        : page < lastIndex / layout.PageTokens ? work->Kv.Tile(block.Run, page + 1, 0, kvHead) : null;
                    var rows = new TileRows(indices, start, firstRow, endRow, tokens, work->Window);
                    RunTile(work, rows, tile, nextTile, q, scores, decoded, state);
                }
            }
        }
    }

    /// <summary>The rows of a block that see a tile, and which of its tokens each sees.</summary>
    /// <param name="indices">Index in the slot of each row of the block; null where all rows see the whole tile.</param>
    /// <param name="start">Index in the slot of the tile's first token.</param>
    /// <param name="first">First row.</param>
    /// <param name="end">One past the last row.</param>
    /// <param name="tokens">Tokens of the tile.</param>
    /// <param name="window">Tokens that a row sees.</param>
    private readonly struct TileRows(int* indices, int start, int first, int end, int tokens, int window)
    {
        public int First => first;

        public int End => end;

        public int From(int row) => indices is null ? 0 : (int)Math.Max(0, (long)indices[row] - start + 1 - window);

        public int To(int row) => indices is null ? tokens : Math.Min(tokens, indices[row] - start + 1);
    }

    private static void RunTile(
        AttentionWork* work, in TileRows rows, byte* tile, byte* nextTile, float* q, float* scores, float* decoded, in RunningSoftmax state)
    {
        ref readonly KvLayout layout = ref work->Kv.Layout;
        if (!layout.HasValues)
        {
            RunLatentTile(work, rows, tile, nextTile, q, scores, decoded, state);
            return;
        }
        TKey keys = TKey.At(tile, layout.HeadDim, layout.TileTokens);
        int columns = layout.TileTokens;
        TValue values = TValue.At(tile + layout.KeyBytes, layout.TileTokens, layout.PaddedValueDim);
        if (TKey.IsPlain || (rows.End - rows.First) * work->PaddedGroup < DecodeFrom)
        {
            Products(work, rows, tile, nextTile, keys, values, columns, q, scores, state);
            return;
        }
        float* decodedValues = decoded + (nint)layout.HeadDim * layout.TileTokens;
        int end = rows.To(rows.End - 1);
        Decode(keys, layout.HeadDim, (end + TSimd.Width - 1) & -TSimd.Width, decoded, layout.TileTokens);
        Decode(values, end, layout.PaddedValueDim, decodedValues, layout.PaddedValueDim);
        Products(work, rows, tile, nextTile, new F32Tile(decoded, layout.TileTokens), new F32Tile(decodedValues, layout.PaddedValueDim), columns,
            q, scores, state);
    }

    /// <summary>Values are the first elements of the keys: they are turned around for the second product, for all queries at once.</summary>
    private static void RunLatentTile(
        AttentionWork* work, in TileRows rows, byte* tile, byte* nextTile, float* q, float* scores, float* decoded, in RunningSoftmax state)
    {
        ref readonly KvLayout layout = ref work->Kv.Layout;
        int columns = (rows.To(rows.End - 1) + TSimd.Width - 1) & -TSimd.Width;
        float* plain = (float*)tile;
        if (!TKey.IsPlain)
        {
            plain = decoded;
            Decode(TKey.At(tile, layout.HeadDim, layout.TileTokens), layout.HeadDim, columns, decoded, layout.TileTokens);
        }
        float* turned = decoded + (nint)layout.HeadDim * layout.TileTokens;
        Transposition.Run(plain, layout.TileTokens, layout.ValueDim, columns, turned, layout.PaddedValueDim);
        Products(work, rows, null, nextTile, new F32Tile(plain, layout.TileTokens), new F32Tile(turned, layout.PaddedValueDim), layout.TileTokens, q,
            scores, state);
    }

    /// <param name="work">What is computed.</param>
    /// <param name="rows">Whose queries, and what each sees.</param>
    /// <param name="tile">Where the keys lie, to fetch the values behind them ahead; null not to.</param>
    /// <param name="nextTile">What is read next, or null.</param>
    /// <param name="keys">K, [headDim, scoreColumns].</param>
    /// <param name="values">V, [scoreColumns, paddedValueDim].</param>
    /// <param name="scoreColumns">Columns of K.</param>
    /// <param name="q">[queries, headDim].</param>
    /// <param name="scores">Room for [queries, scoreColumns].</param>
    /// <param name="state">Takes the result.</param>
    private static void Products<TK, TV>(
        AttentionWork* work, in TileRows rows, byte* tile, byte* nextTile, TK keys, TV values, int scoreColumns, float* q, float* scores,
        in RunningSoftmax state)
        where TK : struct, IKvTile<TK>
        where TV : struct, IKvTile<TV>
    {
        ref readonly KvLayout layout = ref work->Kv.Layout;
        int group = work->PaddedGroup;
        int columns = (rows.To(rows.End - 1) + TSimd.Width - 1) & -TSimd.Width;
        long first = (long)rows.First * group;
        TileProduct<TSimd, V, TK>.Run(keys, 0, layout.HeadDim, columns, q + first * layout.HeadDim, layout.HeadDim,
            scores + first * scoreColumns, scoreColumns, (rows.End - rows.First) * group, accumulate: false,
            tile is null ? null : tile + layout.KeyBytes, layout.ValueBytes);
        for (int row = rows.First; row < rows.End;)
        {
            // Rows that see the same tokens of this tile multiply together; where the diagonal or the window's edge passes, each goes alone.
            (int from, int to) = (rows.From(row), rows.To(row));
            int next = row + 1;
            while (next < rows.End && rows.From(next) == from && rows.To(next) == to)
            {
                next++;
            }
            for (int query = row * group; query < next * group; query++)
            {
                if (query % group < work->Group)
                {
                    state.Take<TSimd, V>(query, scores + (long)query * scoreColumns, from, to);
                }
            }
            TileProduct<TSimd, V, TV>.Run(values, from, to, layout.PaddedValueDim, scores + (long)row * group * scoreColumns, scoreColumns,
                state.Accumulator(row * group), layout.PaddedValueDim, (next - row) * group, accumulate: true, nextTile, layout.KeyBytes);
            row = next;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Decode<TTile>(TTile tile, int rows, int columns, float* destination, int stride)
        where TTile : struct, IKvTile<TTile>
    {
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < columns; column += TSimd.Width)
            {
                TSimd.Store(tile.Load<TSimd, V>(row, column), destination + (nint)row * stride + column);
            }
        }
    }

    /// <summary>q times the scale, [rows × paddedGroup, headDim]; the padding is 0.</summary>
    private static void LoadQueries(AttentionWork* work, in RowBlock block, int headGroup, float* q)
    {
        int headDim = work->Kv.Layout.HeadDim;
        for (int row = 0; row < block.RowCount; row++)
        {
            float* source = work->Qkv + (long)(block.FirstRow + row) * work->QkvWidth + (long)headGroup * work->Group * headDim;
            for (int i = 0; i < work->Group * headDim; i++)
            {
                q[i] = source[i] * work->Scale;
            }
            new Span<float>(q + work->Group * headDim, (work->PaddedGroup - work->Group) * headDim).Clear();
            q += work->PaddedGroup * headDim;
        }
    }

    private static void Write(AttentionWork* work, in RowBlock block, int headGroup, in RunningSoftmax total)
    {
        int valueDim = work->Kv.Layout.ValueDim;
        for (int row = 0; row < block.RowCount; row++)
        {
            for (int head = 0; head < work->Group; head++)
            {
                int query = row * work->PaddedGroup + head;
                float factor = Normalizer(work, headGroup * work->Group + head, total.Maxima[query], total.Sums[query]);
                float* source = total.Accumulator(query);
                float* destination = work->Output + ((long)(block.FirstRow + row) * work->Heads + (long)headGroup * work->Group + head) * valueDim;
                for (int i = 0; i < valueDim; i++)
                {
                    destination[i] = source[i] * factor;
                }
            }
        }
    }

    /// <summary>
    /// What the accumulator of a query is to be multiplied by: one over its sum, to which a sink of logit s adds exp(s − m). The sink comes last, when all
    /// segments are merged, so that it counts once however the work was cut.
    /// </summary>
    private static float Normalizer(AttentionWork* work, int head, float maximum, float sum)
    {
        if (work->Sinks is null)
        {
            return 1f / sum;
        }
        float sink = work->Sinks[head], largest = MathF.Max(maximum, sink);
        float keep = VectorMath<TSimd, V>.Exp(maximum - largest);
        return keep / (sum * keep + VectorMath<TSimd, V>.Exp(sink - largest));
    }

    private static float* Take(ref byte* scratch, long floats)
    {
        var taken = (float*)scratch;
        scratch += (floats * sizeof(float) + NativeBuffer.Alignment - 1) & -(long)NativeBuffer.Alignment;
        return taken;
    }
}
