using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Engine.Cpu.Kernels;

/// <summary>Turns a matrix of float32 around.</summary>
internal static unsafe class Transposition
{
    /// <summary>Columns taken together: a cache line of the source, and as few lines of the destination as a first-level cache holds at any stride.</summary>
    private const int ColumnsTogether = 16;

    /// <summary>destination[c][r] = source[r][c].</summary>
    /// <param name="source">[rows, columns].</param>
    /// <param name="sourceStride">Elements from a row to the next.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="columns">Columns; a multiple of four.</param>
    /// <param name="destination">[columns, rows].</param>
    /// <param name="stride">Elements from a row of the destination to the next.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(float* source, nint sourceStride, int rows, int columns, float* destination, nint stride)
    {
        for (int first = 0; first < columns; first += ColumnsTogether)
        {
            int end = Math.Min(columns, first + ColumnsTogether), row = 0;
            for (; Sse.IsSupported && row + 4 <= rows; row += 4)
            {
                for (int column = first; column < end; column += 4)
                {
                    Four(source + row * sourceStride + column, sourceStride, destination + column * stride + row, stride);
                }
            }
            for (; row < rows; row++)
            {
                for (int column = first; column < end; column++)
                {
                    destination[column * stride + row] = source[row * sourceStride + column];
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Four(float* source, nint sourceStride, float* destination, nint stride)
    {
        Vector128<float> a = Vector128.Load(source), b = Vector128.Load(source + sourceStride);
        Vector128<float> c = Vector128.Load(source + 2 * sourceStride), d = Vector128.Load(source + 3 * sourceStride);
        Vector128<float> ab = Sse.UnpackLow(a, b), cd = Sse.UnpackLow(c, d), abHigh = Sse.UnpackHigh(a, b), cdHigh = Sse.UnpackHigh(c, d);
        Sse.MoveLowToHigh(ab, cd).Store(destination);
        Sse.MoveHighToLow(cd, ab).Store(destination + stride);
        Sse.MoveLowToHigh(abHigh, cdHigh).Store(destination + 2 * stride);
        Sse.MoveHighToLow(cdHigh, abHigh).Store(destination + 3 * stride);
    }
}
