using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>A recurrent cell over rows: state [rows, width], in place; input and hidden [rows, gates × width].</summary>
internal unsafe struct RecurrenceWork
{
    public float* Input;
    public float* Hidden;
    public float* State;
    public int Rows;
    public int Width;
}

/// <summary>A cell as the loop wants it.</summary>
internal unsafe interface IRecurrentCell
{
    /// <summary>Parts of a row of input and hidden.</summary>
    static abstract int Gates { get; }

    /// <summary>The next state of one vector of elements.</summary>
    /// <param name="input">Their first part; the others follow every <paramref name="stride"/> elements.</param>
    /// <param name="hidden">Likewise.</param>
    /// <param name="state">Their state.</param>
    /// <param name="stride">Elements from a part to the next.</param>
    static abstract V Next<TSimd, V>(float* input, float* hidden, V state, long stride)
        where TSimd : struct, ISimd<V>
        where V : unmanaged;
}

internal readonly unsafe struct GruCell : IRecurrentCell
{
    public static int Gates => 3;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Next<TSimd, V>(float* input, float* hidden, V state, long stride)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        V reset = VectorMath<TSimd, V>.Sigmoid(TSimd.Add(TSimd.Load(input), TSimd.Load(hidden)));
        V keep = VectorMath<TSimd, V>.Sigmoid(TSimd.Add(TSimd.Load(input + stride), TSimd.Load(hidden + stride)));
        V fresh = VectorMath<TSimd, V>.Tanh(TSimd.MultiplyAdd(reset, TSimd.Load(hidden + 2 * stride), TSimd.Load(input + 2 * stride)));
        return TSimd.MultiplyAdd(keep, TSimd.Subtract(state, fresh), fresh);
    }
}

internal readonly unsafe struct RnnCell : IRecurrentCell
{
    public static int Gates => 1;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Next<TSimd, V>(float* input, float* hidden, V state, long stride)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => VectorMath<TSimd, V>.Tanh(TSimd.Add(TSimd.Load(input), TSimd.Load(hidden)));
}

/// <summary>
/// The loop over rows. A single row is shared between threads too; the last, partial vector of a row goes through padded copies, so an element has the same
/// bits wherever the cuts fall.
/// </summary>
internal static unsafe class RecurrenceKernel<TSimd, V, TCell>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
    where TCell : struct, IRecurrentCell
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(void* state, int thread, int threads)
    {
        var work = (RecurrenceWork*)state;
        int lanes = TSimd.Width, width = work->Width;
        long vectorsPerRow = (width + lanes - 1) / lanes;
        (long first, long end) = Share.Of(work->Rows * vectorsPerRow, thread, threads);
        for (long vector = first; vector < end; vector++)
        {
            long row = vector / vectorsPerRow, i = vector % vectorsPerRow * lanes, gates = row * TCell.Gates * width + i;
            float* input = work->Input + gates, hidden = work->Hidden + gates, target = work->State + row * width + i;
            if (i + lanes <= width)
            {
                TSimd.Store(TCell.Next<TSimd, V>(input, hidden, TSimd.Load(target), width), target);
            }
            else
            {
                NextPartial(input, hidden, target, width, (int)(width - i));
            }
        }
    }

    private static void NextPartial(float* input, float* hidden, float* target, int width, int count)
    {
        int lanes = TSimd.Width, gates = TCell.Gates * lanes;
        float* padded = stackalloc float[2 * gates + lanes];
        new Span<float>(padded, 2 * gates + lanes).Clear();
        for (int gate = 0; gate < TCell.Gates; gate++)
        {
            new Span<float>(input + (long)gate * width, count).CopyTo(new Span<float>(padded + gate * lanes, count));
            new Span<float>(hidden + (long)gate * width, count).CopyTo(new Span<float>(padded + gates + gate * lanes, count));
        }
        float* state = padded + 2 * gates;
        new Span<float>(target, count).CopyTo(new Span<float>(state, count));
        TSimd.Store(TCell.Next<TSimd, V>(padded, padded + gates, TSimd.Load(state), lanes), state);
        new Span<float>(state, count).CopyTo(new Span<float>(target, count));
    }
}
