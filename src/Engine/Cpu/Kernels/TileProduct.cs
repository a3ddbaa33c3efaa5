using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>How the queries of a group are counted.</summary>
internal static class QueryGroups
{
    /// <summary>Products take queries by 1, 2, 4 or whole eights: another number is padded where that is cheaper than several passes over a tile.</summary>
    public static int Pad(int queries) => queries switch
    {
        <= 2 => queries,
        <= 4 => 4,
        _ => (queries + 7) & -8,
    };

    /// <summary>
    /// How many of the query heads of a key head go together: all, but where they are very many, an equal part of them that fits a block; and a smaller one
    /// where there would not be work for all threads. At least eight, the most that one pass over a tile takes.
    /// </summary>
    /// <param name="heads">Query heads of a key head.</param>
    /// <param name="others">Rows times key heads.</param>
    /// <param name="threads">Threads.</param>
    public static int Together(int heads, long others, int threads)
    {
        int together = heads;
        while (together % 2 == 0 && together >= 16 && (together > AttentionWork.BlockQueries || heads / together * others < threads))
        {
            together /= 2;
        }
        return together;
    }
}

/// <summary>
/// Asks for memory a little at a time. Tiles are read in columns, which the processor's own prefetching does not foresee, and pages lie anywhere.
/// </summary>
internal unsafe struct Prefetch(byte* address, long bytes, int iterations)
{
    private readonly nint step = address is null || iterations == 0 ? 0 : (nint)((bytes + iterations - 1) / iterations);
    private byte* address = address;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Next()
    {
        if (Sse.IsSupported)
        {
            Sse.Prefetch1(address);
            address += step;
        }
    }
}

/// <summary>
/// C [queries, columns] (+)= A [queries, rows] · B [rows, columns], B a KV tile. Every element of C is one chain of multiply-adds over the rows in
/// ascending order, so its bits depend neither on the other queries nor on how they are grouped.
/// </summary>
internal static unsafe class TileProduct<TSimd, V, TTile>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
    where TTile : struct, IKvTile<TTile>
{
    /// <summary>Computes C.</summary>
    /// <param name="tile">B.</param>
    /// <param name="firstRow">First row of B, and column of A, that takes part.</param>
    /// <param name="endRow">One past the last.</param>
    /// <param name="columns">Columns computed; a multiple of the vector's width.</param>
    /// <param name="a">A.</param>
    /// <param name="strideA">Elements from a query's A to the next.</param>
    /// <param name="c">C.</param>
    /// <param name="strideC">Elements from a query's C to the next.</param>
    /// <param name="queries">A number that <see cref="QueryGroups.Pad"/> returns, or a multiple of one.</param>
    /// <param name="accumulate">Adds to C.</param>
    /// <param name="next">Memory that will be read soon after, or null; it is fetched evenly along the way.</param>
    /// <param name="nextBytes">Bytes of it.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(
        TTile tile, int firstRow, int endRow, int columns, float* a, nint strideA, float* c, nint strideC, int queries, bool accumulate,
        byte* next, long nextBytes)
    {
        var ahead = new Prefetch(next, nextBytes, Iterations(firstRow, endRow, columns, queries));
        int query = 0;
        for (; query + 8 <= queries; query += 8)
        {
            Eight(tile, firstRow, endRow, columns, a + query * strideA, strideA, c + query * strideC, strideC, accumulate, ahead);
            ahead = default;
        }
        for (; query + 4 <= queries; query += 4)
        {
            Four(tile, firstRow, endRow, columns, a + query * strideA, strideA, c + query * strideC, strideC, accumulate, ahead);
            ahead = default;
        }
        for (; query + 2 <= queries; query += 2)
        {
            Two(tile, firstRow, endRow, columns, a + query * strideA, strideA, c + query * strideC, strideC, accumulate, ahead);
            ahead = default;
        }
        for (; query < queries; query++)
        {
            One(tile, firstRow, endRow, columns, a + query * strideA, c + query * strideC, accumulate, ahead);
            ahead = default;
        }
    }

    /// <summary>Rounds of the inner loop that the first call below makes.</summary>
    private static int Iterations(int firstRow, int endRow, int columns, int queries)
    {
        int vectors = columns / TSimd.Width, together = queries >= 8 ? 1 : queries >= 2 ? 2 : 4;
        return (vectors / together + vectors % together) * (endRow - firstRow);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Eight(
        TTile tile, int firstRow, int endRow, int columns, float* a, nint strideA, float* c, nint strideC, bool accumulate, Prefetch ahead)
    {
        nint strideA2 = 2 * strideA, strideA3 = 3 * strideA;
        for (int column = 0; column < columns; column += TSimd.Width)
        {
            float* output = c + column;
            V c0 = Start(output, accumulate), c1 = Start(output + strideC, accumulate);
            V c2 = Start(output + 2 * strideC, accumulate), c3 = Start(output + 3 * strideC, accumulate);
            V c4 = Start(output + 4 * strideC, accumulate), c5 = Start(output + 5 * strideC, accumulate);
            V c6 = Start(output + 6 * strideC, accumulate), c7 = Start(output + 7 * strideC, accumulate);
            float* low = a + firstRow;
            float* high = low + 4 * strideA;
            for (int row = firstRow; row < endRow; row++, low++, high++)
            {
                ahead.Next();
                V b = tile.Load<TSimd, V>(row, column);
                c0 = TSimd.MultiplyAdd(b, TSimd.Broadcast(low[0]), c0);
                c1 = TSimd.MultiplyAdd(b, TSimd.Broadcast(low[strideA]), c1);
                c2 = TSimd.MultiplyAdd(b, TSimd.Broadcast(low[strideA2]), c2);
                c3 = TSimd.MultiplyAdd(b, TSimd.Broadcast(low[strideA3]), c3);
                c4 = TSimd.MultiplyAdd(b, TSimd.Broadcast(high[0]), c4);
                c5 = TSimd.MultiplyAdd(b, TSimd.Broadcast(high[strideA]), c5);
                c6 = TSimd.MultiplyAdd(b, TSimd.Broadcast(high[strideA2]), c6);
                c7 = TSimd.MultiplyAdd(b, TSimd.Broadcast(high[strideA3]), c7);
            }
            TSimd.Store(c0, output);
            TSimd.Store(c1, output + strideC);
            TSimd.Store(c2, output + 2 * strideC);
            TSimd.Store(c3, output + 3 * strideC);
            TSimd.Store(c4, output + 4 * strideC);
            TSimd.Store(c5, output + 5 * strideC);
            TSimd.Store(c6, output + 6 * strideC);
            TSimd.Store(c7, output + 7 * strideC);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Four(
        TTile tile, int firstRow, int endRow, int columns, float* a, nint strideA, float* c, nint strideC, bool accumulate, Prefetch ahead)
    {
        nint strideA2 = 2 * strideA, strideA3 = 3 * strideA;
        // Two columns at a time, so that eight chains hide the latency; columns are sixteens, so there is no odd vector at any width but the widest.
        int column = 0;
        for (; column + 2 * TSimd.Width <= columns; column += 2 * TSimd.Width)
        {
            float* left = c + column;
            float* right = left + TSimd.Width;
            V l0 = Start(left, accumulate), l1 = Start(left + strideC, accumulate);
            V l2 = Start(left + 2 * strideC, accumulate), l3 = Start(left + 3 * strideC, accumulate);
            V r0 = Start(right, accumulate), r1 = Start(right + strideC, accumulate);
            V r2 = Start(right + 2 * strideC, accumulate), r3 = Start(right + 3 * strideC, accumulate);
            float* weights = a + firstRow;
            for (int row = firstRow; row < endRow; row++, weights++)
            {
                ahead.Next();
                V bl = tile.Load<TSimd, V>(row, column), br = tile.Load<TSimd, V>(row, column + TSimd.Width);
                V a0 = TSimd.Broadcast(weights[0]), a1 = TSimd.Broadcast(weights[strideA]);
                V a2 = TSimd.Broadcast(weights[strideA2]), a3 = TSimd.Broadcast(weights[strideA3]);
                l0 = TSimd.MultiplyAdd(bl, a0, l0);
                r0 = TSimd.MultiplyAdd(br, a0, r0);
                l1 = TSimd.MultiplyAdd(bl, a1, l1);
                r1 = TSimd.MultiplyAdd(br, a1, r1);
                l2 = TSimd.MultiplyAdd(bl, a2, l2);
                r2 = TSimd.MultiplyAdd(br, a2, r2);
                l3 = TSimd.MultiplyAdd(bl, a3, l3);
                r3 = TSimd.MultiplyAdd(br, a3, r3);
            }
            TSimd.Store(l0, left);
            TSimd.Store(l1, left + strideC);
            TSimd.Store(l2, left + 2 * strideC);
            TSimd.Store(l3, left + 3 * strideC);
            TSimd.Store(r0, right);
            TSimd.Store(r1, right + strideC);
            TSimd.Store(r2, right + 2 * strideC);
            TSimd.Store(r3, right + 3 * strideC);
        }
        for (; column < columns; column += TSimd.Width)
        {
            float* output = c + column;
            V c0 = Start(output, accumulate), c1 = Start(output + strideC, accumulate);
            V c2 = Start(output + 2 * strideC, accumulate), c3 = Start(output + 3 * strideC, accumulate);
            float* weights = a + firstRow;
            for (int row = firstRow; row < endRow; row++, weights++)
            {
                ahead.Next();
                V b = tile.Load<TSimd, V>(row, column);
                c0 = TSimd.MultiplyAdd(b, TSimd.Broadcast(weights[0]), c0);
                c1 = TSimd.MultiplyAdd(b, TSimd.Broadcast(weights[strideA]), c1);
                c2 = TSimd.MultiplyAdd(b, TSimd.Broadcast(weights[strideA2]), c2);
                c3 = TSimd.MultiplyAdd(b, TSimd.Broadcast(weights[strideA3]), c3);
            }
            TSimd.Store(c0, output);
            TSimd.Store(c1, output + strideC);
            TSimd.Store(c2, output + 2 * strideC);
            TSimd.Store(c3, output + 3 * strideC);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Two(
        TTile tile, int firstRow, int endRow, int columns, float* a, nint strideA, float* c, nint strideC, bool accumulate, Prefetch ahead)
    {
        int column = 0;
        for (; column + 2 * TSimd.Width <= columns; column += 2 * TSimd.Width)
        {
            float* left = c + column;
            float* right = left + TSimd.Width;
            V l0 = Start(left, accumulate), l1 = Start(left + strideC, accumulate);
            V r0 = Start(right, accumulate), r1 = Start(right + strideC, accumulate);
            for (int row = firstRow; row < endRow; row++)
            {
                ahead.Next();
                V bl = tile.Load<TSimd, V>(row, column), br = tile.Load<TSimd, V>(row, column + TSimd.Width);
                V a0 = TSimd.Broadcast(a[row]), a1 = TSimd.Broadcast(a[row + strideA]);
                l0 = TSimd.MultiplyAdd(bl, a0, l0);
                r0 = TSimd.MultiplyAdd(br, a0, r0);
                l1 = TSimd.MultiplyAdd(bl, a1, l1);
                r1 = TSimd.MultiplyAdd(br, a1, r1);
            }
            TSimd.Store(l0, left);
            TSimd.Store(l1, left + strideC);
            TSimd.Store(r0, right);
            TSimd.Store(r1, right + strideC);
        }
        for (; column < columns; column += TSimd.Width)
        {
            float* output = c + column;
            V c0 = Start(output, accumulate), c1 = Start(output + strideC, accumulate);
            for (int row = firstRow; row < endRow; row++)
            {
                ahead.Next();
                V b = tile.Load<TSimd, V>(row, column);
                c0 = TSimd.MultiplyAdd(b, TSimd.Broadcast(a[row]), c0);
                c1 = TSimd.MultiplyAdd(b, TSimd.Broadcast(a[row + strideA]), c1);
            }
            TSimd.Store(c0, output);
            TSimd.Store(c1, output + strideC);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void One(TTile tile, int firstRow, int endRow, int columns, float* a, float* c, bool accumulate, Prefetch ahead)
    {
        int column = 0;
        for (; column + 4 * TSimd.Width <= columns; column += 4 * TSimd.Width)
        {
            float* output = c + column;
            V c0 = Start(output, accumulate), c1 = Start(output + TSimd.Width, accumulate);
            V c2 = Start(output + 2 * TSimd.Width, accumulate), c3 = Start(output + 3 * TSimd.Width, accumulate);
            for (int row = firstRow; row < endRow; row++)
            {
                ahead.Next();
                V weight = TSimd.Broadcast(a[row]);
                c0 = TSimd.MultiplyAdd(tile.Load<TSimd, V>(row, column), weight, c0);
                c1 = TSimd.MultiplyAdd(tile.Load<TSimd, V>(row, column + TSimd.Width), weight, c1);
                c2 = TSimd.MultiplyAdd(tile.Load<TSimd, V>(row, column + 2 * TSimd.Width), weight, c2);
                c3 = TSimd.MultiplyAdd(tile.Load<TSimd, V>(row, column + 3 * TSimd.Width), weight, c3);
            }
            TSimd.Store(c0, output);
            TSimd.Store(c1, output + TSimd.Width);
            TSimd.Store(c2, output + 2 * TSimd.Width);
            TSimd.Store(c3, output + 3 * TSimd.Width);
        }
        for (; column < columns; column += TSimd.Width)
        {
            V sum = Start(c + column, accumulate);
            for (int row = firstRow; row < endRow; row++)
            {
                ahead.Next();
                sum = TSimd.MultiplyAdd(tile.Load<TSimd, V>(row, column), TSimd.Broadcast(a[row]), sum);
            }
            TSimd.Store(sum, c + column);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static V Start(float* c, bool accumulate) => accumulate ? TSimd.Load(c) : TSimd.Broadcast(0f);
}
