using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>The linear maps of all heads on some rows; see <see cref="Plans.HeadLinearPlan"/>.</summary>
internal unsafe struct HeadProductWork
{
    /// <summary>[rows, heads × (inputs + carried)].</summary>
    public float* Input;

    /// <summary>[rows, tailWidth], or null.</summary>
    public float* Tail;

    /// <summary>[rows, heads × (outputs + carried) + tailWidth].</summary>
    public float* Output;

    /// <summary>As <see cref="CpuHeads"/> has them.</summary>
    public float* Weights;

    public int Rows, Heads, Inputs, Outputs, Carried, TailWidth;

    /// <summary>Panels of a head.</summary>
    public int Panels;

    public readonly nint InputWidth => (nint)Heads * (Inputs + Carried);

    public readonly nint OutputWidth => (nint)Heads * (Outputs + Carried) + TailWidth;
}

/// <summary>Block-diagonal products. Every output sums its products in input order, so its bits do not depend on the rows beside it.</summary>
internal static unsafe class HeadProductKernel<TSimd, V>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
{
    /// <summary>Rows multiplied together: what a product takes at most.</summary>
    private const int RowsTogether = 8;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(void* state, int thread, int threads)
    {
        var work = (HeadProductWork*)state;
        const int columns = CpuHeads.PanelOutputs;
        float* sums = stackalloc float[RowsTogether * columns];
        (long first, long end) = Share.Of((long)work->Heads * work->Panels, thread, threads);
        for (long item = first; item < end; item++)
        {
            int head = (int)(item / work->Panels), panel = (int)(item % work->Panels);
            float* input = work->Input + (nint)head * (work->Inputs + work->Carried);
            float* output = work->Output + (nint)head * (work->Outputs + work->Carried);
            int firstOutput = panel * columns, count = Math.Min(columns, work->Outputs - firstOutput);
            var weights = new F32Tile(work->Weights + (nint)item * work->Inputs * columns, columns);
            for (int row = 0; row < work->Rows; row += RowsTogether)
            {
                int rows = Math.Min(RowsTogether, work->Rows - row);
                TileProduct<TSimd, V, F32Tile>.Run(weights, 0, work->Inputs, (count + TSimd.Width - 1) & -TSimd.Width,
                    input + row * work->InputWidth, work->InputWidth, sums, columns, rows, accumulate: false, null, 0);
                for (int i = 0; i < rows; i++)
                {
                    Copy(sums + i * columns, output + (row + i) * work->OutputWidth + firstOutput, count);
                }
            }
            if (panel == 0 && work->Carried > 0)
            {
                for (int row = 0; row < work->Rows; row++)
                {
                    Copy(input + row * work->InputWidth + work->Inputs, output + row * work->OutputWidth + work->Outputs, work->Carried);
                }
            }
        }
        if (work->Tail is null)
        {
            return;
        }
        (first, end) = Share.Of(work->Rows, thread, threads);
        for (long row = first; row < end; row++)
        {
            Copy(work->Tail + row * work->TailWidth, work->Output + (nint)(row + 1) * work->OutputWidth - work->TailWidth, work->TailWidth);
        }
    }

    private static void Copy(float* source, float* destination, int count) =>
        new ReadOnlySpan<float>(source, count).CopyTo(new Span<float>(destination, count));
}
