using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Tools.Trainer;

/// <summary>A matrix seen through strides, so that a transposed one needs no copy.</summary>
/// <param name="Data">Element (0, 0).</param>
/// <param name="RowStride">Elements from one row to the next.</param>
/// <param name="ColumnStride">Elements from one column to the next.</param>
public readonly unsafe record struct Matrix(nint Data, int RowStride, int ColumnStride)
{
    /// <summary>A row-major matrix with rows of <paramref name="columns"/> elements.</summary>
    public Matrix(float* data, int columns)
        : this((nint)data, columns, 1)
    {
    }

    /// <summary>The same elements, rows and columns exchanged.</summary>
    public Matrix Transposed => new(Data, ColumnStride, RowStride);

    /// <summary>Element (0, 0).</summary>
    public float* Pointer => (float*)Data;
}

/// <summary>
/// Single-precision matrix product on one thread: 8×32 tiles of C in registers over panels of B that are packed once per block of K. Every
/// sum runs over k in ascending order with fused multiply-adds, so the result does not depend on the machine's vector width.
/// </summary>
public sealed unsafe class Gemm : IDisposable
{
    private const int TileRows = 8;
    private const int TileColumns = 32;
    private const int BlockK = 256;
    private readonly float* panel = (float*)NativeMemory.AlignedAlloc(BlockK * TileColumns * sizeof(float), 64);
    private float* strips;
    private nuint stripsLength;

    /// <summary>C[m, n] = (accumulate ? C : 0) + Σₖ A[m, k]·B[k, n].</summary>
    /// <param name="c">Row-major result; <paramref name="m"/> a multiple of 8, <paramref name="n"/> of 32.</param>
    /// <param name="a">Left factor; one of its strides is 1.</param>
    /// <param name="b">Right factor, any strides.</param>
    /// <param name="m">Rows of C.</param>
    /// <param name="n">Columns of C.</param>
    /// <param name="k">Length of the sums.</param>
    /// <param name="accumulate">Add to C instead of replacing it.</param>
    public void Multiply(Matrix c, Matrix a, Matrix b, int m, int n, int k, bool accumulate = false)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(m % TileRows, 0);
        ArgumentOutOfRangeException.ThrowIfNotEqual(n % TileColumns, 0);
        for (int k0 = 0; k0 < k; k0 += BlockK)
        {
            int depth = Math.Min(BlockK, k - k0);
            (Matrix left, int stripStride) = PackLeft(a, m, k0, depth);
            for (int n0 = 0; n0 < n; n0 += TileColumns)
            {
                PackPanel(b, k0, depth, n0);
                for (int m0 = 0; m0 < m; m0 += TileRows)
                {
                    float* tile = c.Pointer + (nint)m0 * c.RowStride + n0;
                    float* strip = left.Pointer + (nint)(m0 / TileRows) * stripStride;
                    Tile(tile, c.RowStride, strip, left.RowStride, left.ColumnStride, panel, depth, accumulate || k0 > 0);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        NativeMemory.AlignedFree(panel);
        NativeMemory.AlignedFree(strips);
    }

    /// <summary>Rows that are contiguous in k are read in place; a transposed A is copied into strips of 8 rows first.</summary>
    private (Matrix Left, int StripStride) PackLeft(Matrix a, int m, int k0, int depth)
    {
        if (a.ColumnStride == 1)
            return (new Matrix((nint)(a.Pointer + k0), a.RowStride, 1), TileRows * a.RowStride);
        nuint needed = (nuint)m * BlockK;
        if (stripsLength < needed)
        {
            strips = (float*)NativeMemory.AlignedRealloc(strips, needed * sizeof(float), 64);
            stripsLength = needed;
        }

        for (int row = 0; row < depth; row++)
        {
            float* source = a.Pointer + (nint)(k0 + row) * a.ColumnStride;
            float* target = strips + row * TileRows;
            for (int m0 = 0; m0 < m; m0 += TileRows)
                Vector256.Load(source + m0).Store(target + (nint)m0 * depth);
        }

        return (new Matrix((nint)strips, 1, TileRows), TileRows * depth);
    }

    private void PackPanel(Matrix b, int k0, int depth, int n0)
    {
        if (b.ColumnStride == 1)
        {
            for (int row = 0; row < depth; row++)
            {
                float* source = b.Pointer + (nint)(k0 + row) * b.RowStride + n0;
                new ReadOnlySpan<float>(source, TileColumns).CopyTo(new Span<float>(panel + row * TileColumns, TileColumns));
            }

            return;
        }

        for (int column = 0; column < TileColumns; column++)
        {
            float* source = b.Pointer + (nint)(n0 + column) * b.ColumnStride + (nint)k0 * b.RowStride;
            for (int row = 0; row < depth; row++)
                panel[row * TileColumns + column] = source[(nint)row * b.RowStride];
        }
    }

    private static void Tile(float* c, int cStride, float* a, int aRow, int aColumn, float* panel, int depth, bool accumulate)
    {
        Vector512<float> c00 = default, c01 = default, c10 = default, c11 = default;
        Vector512<float> c20 = default, c21 = default, c30 = default, c31 = default;
        Vector512<float> c40 = default, c41 = default, c50 = default, c51 = default;
        Vector512<float> c60 = default, c61 = default, c70 = default, c71 = default;
        float* a4 = a + 4 * (nint)aRow;
        nint row = aRow, row2 = 2 * row, row3 = 3 * row;
        for (int k = 0; k < depth; k++)
        {
            Vector512<float> b0 = Vector512.Load(panel), b1 = Vector512.Load(panel + 16);
            Vector512<float> x = Vector512.Create(*a);
            c00 = Vector512.FusedMultiplyAdd(x, b0, c00);
            c01 = Vector512.FusedMultiplyAdd(x, b1, c01);
            x = Vector512.Create(a[row]);
            c10 = Vector512.FusedMultiplyAdd(x, b0, c10);
            c11 = Vector512.FusedMultiplyAdd(x, b1, c11);
            x = Vector512.Create(a[row2]);
            c20 = Vector512.FusedMultiplyAdd(x, b0, c20);
            c21 = Vector512.FusedMultiplyAdd(x, b1, c21);
            x = Vector512.Create(a[row3]);
            c30 = Vector512.FusedMultiplyAdd(x, b0, c30);
            c31 = Vector512.FusedMultiplyAdd(x, b1, c31);
            x = Vector512.Create(*a4);
            c40 = Vector512.FusedMultiplyAdd(x, b0, c40);
            c41 = Vector512.FusedMultiplyAdd(x, b1, c41);
            x = Vector512.Create(a4[row]);
            c50 = Vector512.FusedMultiplyAdd(x, b0, c50);
            c51 = Vector512.FusedMultiplyAdd(x, b1, c51);
            x = Vector512.Create(a4[row2]);
            c60 = Vector512.FusedMultiplyAdd(x, b0, c60);
            c61 = Vector512.FusedMultiplyAdd(x, b1, c61);
            x = Vector512.Create(a4[row3]);
            c70 = Vector512.FusedMultiplyAdd(x, b0, c70);
            c71 = Vector512.FusedMultiplyAdd(x, b1, c71);
            panel += TileColumns;
            a += aColumn;
            a4 += aColumn;
        }

        StoreRow(c, c00, c01, accumulate);
        StoreRow(c += cStride, c10, c11, accumulate);
        StoreRow(c += cStride, c20, c21, accumulate);
        StoreRow(c += cStride, c30, c31, accumulate);
        StoreRow(c += cStride, c40, c41, accumulate);
        StoreRow(c += cStride, c50, c51, accumulate);
        StoreRow(c += cStride, c60, c61, accumulate);
        StoreRow(c + cStride, c70, c71, accumulate);
    }

    private static void StoreRow(float* c, Vector512<float> first, Vector512<float> second, bool accumulate)
    {
        if (accumulate)
        {
            first += Vector512.Load(c);
            second += Vector512.Load(c + 16);
        }

        first.Store(c);
        second.Store(c + 16);
    }
}
