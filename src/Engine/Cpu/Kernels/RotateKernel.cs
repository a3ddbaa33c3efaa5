using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;
using Engine.Execution;

namespace Engine.Cpu.Kernels;

/// <summary>Where the tokens of the selected rows' tracks lie in one slot.</summary>
internal unsafe struct KvAccess
{
    /// <summary>The page pool.</summary>
    public byte* Pool;

    /// <summary>Bytes from a page to the next.</summary>
    public long PageBytes;

    public KvLayout Layout;

    /// <summary>All page tables of the step.</summary>
    public int* Pages;

    /// <summary>Per run, its track's view of the slot.</summary>
    public KvView* Views;

    /// <summary>Per row, the index of its own token in the slot, which is the last that it sees.</summary>
    public int* Indices;

    /// <summary>The tile of a KV head; tiles of a track are numbered through its pages.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly byte* Tile(int run, int page, int tileInPage, int kvHead) =>
        Pool + Pages[Views[run].FirstPage + page] * PageBytes + Layout.TileOffset(kvHead, tileInPage);
}

/// <summary>Rotation of q and k, and the appending of k and v, for all rows of a step.</summary>
internal unsafe struct RotateWork
{
    /// <summary>[rows, qkvWidth]: per row [q heads | k heads | v heads], or [q heads | k heads] where values are a part of the keys.</summary>
    public float* Qkv;

    public int QkvWidth;
    public int Heads;

    /// <summary>The first element of a head that is rotated.</summary>
    public int RopeStart;

    /// <summary>The selected rows.</summary>
    public StepRow* Rows;

    /// <summary>Their runs.</summary>
    public RowRun* Runs;

    public int RowCount;

    /// <summary>The rotation's factors, or null.</summary>
    public RopeTable Rope;

    public KvAccess Kv;
}

/// <summary>Factors of a rotation per position; see <see cref="CpuRope"/>.</summary>
internal unsafe struct RopeTable
{
    public float* Factors;

    /// <summary>Elements of a head that are rotated.</summary>
    public int Dimensions;

    /// <summary>Pairs are (2i, 2i + 1) instead of (i, i + dimensions / 2).</summary>
    public bool Adjacent;

    /// <summary>Floats per position.</summary>
    public readonly int Stride => Adjacent ? 2 * Dimensions : Dimensions;
}

/// <summary>Rotary embedding (Su et al. 2021) and the writing of the cache.</summary>
internal static unsafe class RotateKernel<TSimd, V>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(void* state, int thread, int threads)
    {
        var work = (RotateWork*)state;
        ref readonly KvLayout layout = ref work->Kv.Layout;
        (long first, long end) = Share.Of(work->RowCount, thread, threads);
        for (long r = first; r < end; r++)
        {
            StepRow row = work->Rows[r];
            bool writes = work->Runs[row.Run].WritesKv;
            int rotated = writes ? work->Heads + layout.KvHeads : work->Heads;
            float* heads = work->Qkv + r * work->QkvWidth;
            if (work->Rope.Factors is not null)
            {
                float* factors = work->Rope.Factors + (long)row.Position * work->Rope.Stride;
                for (int head = 0; head < rotated; head++)
                {
                    float* x = heads + (long)head * layout.HeadDim + work->RopeStart;
                    if (work->Rope.Adjacent)
                    {
                        RotateAdjacent(x, factors, work->Rope.Dimensions);
                    }
                    else
                    {
                        RotateHalves(x, factors, work->Rope.Dimensions / 2);
                    }
                }
            }
            if (!writes)
            {
                continue;
            }

            int index = work->Kv.Indices[r];
            int page = index / layout.PageTokens, tokenInPage = index % layout.PageTokens;
            int tileInPage = tokenInPage / layout.TileTokens, token = tokenInPage % layout.TileTokens;
            float* keys = heads + (long)work->Heads * layout.HeadDim;
            float* values = keys + (long)layout.KvHeads * layout.HeadDim;
            for (int kvHead = 0; kvHead < layout.KvHeads; kvHead++)
            {
                byte* tile = work->Kv.Tile(row.Run, page, tileInPage, kvHead);
                KvWriter.StoreKey(layout, tile, token, keys + (long)kvHead * layout.HeadDim);
                if (layout.HasValues)
                {
                    KvWriter.StoreValue(layout, tile + layout.KeyBytes, token, values + (long)kvHead * layout.HeadDim);
                }
            }
        }
    }

    /// <summary>Factors are [cos: pairs | sin: pairs].</summary>
    private static void RotateHalves(float* x, float* factors, int pairs)
    {
        int i = 0;
        for (; i <= pairs - TSimd.Width; i += TSimd.Width)
        {
            V a = TSimd.Load(x + i), b = TSimd.Load(x + pairs + i);
            V cosine = TSimd.Load(factors + i), sine = TSimd.Load(factors + pairs + i);
            TSimd.Store(TSimd.Subtract(TSimd.Multiply(a, cosine), TSimd.Multiply(b, sine)), x + i);
            TSimd.Store(TSimd.MultiplyAdd(a, sine, TSimd.Multiply(b, cosine)), x + pairs + i);
        }
        for (; i < pairs; i++)
        {
            (float a, float b) = (x[i], x[pairs + i]);
            x[i] = a * factors[i] - b * factors[pairs + i];
            x[pairs + i] = a * factors[pairs + i] + b * factors[i];
        }
    }

    /// <summary>Factors are [cos, cos per pair: dimensions | −sin, sin per pair: dimensions].</summary>
    private static void RotateAdjacent(float* x, float* factors, int dimensions)
    {
        int i = 0;
        for (; i <= dimensions - TSimd.Width; i += TSimd.Width)
        {
            V a = TSimd.Load(x + i);
            V turned = TSimd.Multiply(TSimd.SwapPairs(a), TSimd.Load(factors + dimensions + i));
            TSimd.Store(TSimd.MultiplyAdd(a, TSimd.Load(factors + i), turned), x + i);
        }
        for (; i < dimensions; i += 2)
        {
            (float a, float b) = (x[i], x[i + 1]);
            x[i] = a * factors[i] + b * factors[dimensions + i];
            x[i + 1] = b * factors[i + 1] + a * factors[dimensions + i + 1];
        }
    }
}
