using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>Vectors to normalise: <see cref="Groups"/> runs of <see cref="PerGroup"/> neighbours. A row is a group of one; its heads are a group of many.</summary>
internal unsafe struct NormWork
{
    public float* Input;
    public float* Output;

    /// <summary>[width].</summary>
    public float* Gain;

    /// <summary>[width], or null.</summary>
    public float* Bias;

    public int Width;
    public int Groups;
    public int PerGroup;

    /// <summary>Elements from a group to the next.</summary>
    public long Stride;

    public float Epsilon;

    /// <summary>Layer norm: the mean is taken off first.</summary>
    public bool Centred;
}

/// <summary>RMS norm and layer norm.</summary>
internal static unsafe class NormKernel<TSimd, V>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(void* state, int thread, int threads)
    {
        var work = (NormWork*)state;
        (long first, long end) = Share.Of(work->Groups, thread, threads);
        for (long group = first; group < end; group++)
        {
            for (int i = 0; i < work->PerGroup; i++)
            {
                long offset = group * work->Stride + (long)i * work->Width;
                Normalize(work, work->Input + offset, work->Output + offset);
            }
        }
    }

    private static void Normalize(NormWork* work, float* input, float* output)
    {
        int width = work->Width;
        float mean = work->Centred ? Sum(input, width) / width : 0f;
        float factor = (float)(1 / Math.Sqrt((double)SumOfSquares(input, width, mean) / width + work->Epsilon));
        V means = TSimd.Broadcast(mean), factors = TSimd.Broadcast(factor);
        int i = 0;
        for (; i <= width - TSimd.Width; i += TSimd.Width)
        {
            V y = TSimd.Multiply(TSimd.Subtract(TSimd.Load(input + i), means), factors);
            V gain = TSimd.Load(work->Gain + i);
            TSimd.Store(work->Bias is null ? TSimd.Multiply(y, gain) : TSimd.MultiplyAdd(y, gain, TSimd.Load(work->Bias + i)), output + i);
        }
        for (; i < width; i++)
        {
            float y = (input[i] - mean) * factor;
            output[i] = work->Bias is null ? y * work->Gain[i] : MathF.FusedMultiplyAdd(y, work->Gain[i], work->Bias[i]);
        }
    }

    private static float Sum(float* x, int width)
    {
        V sum = TSimd.Broadcast(0f);
        int i = 0;
        for (; i <= width - TSimd.Width; i += TSimd.Width)
        {
            sum = TSimd.Add(sum, TSimd.Load(x + i));
        }
        float total = TSimd.Sum(sum);
        for (; i < width; i++)
        {
            total += x[i];
        }
        return total;
    }

    private static float SumOfSquares(float* x, int width, float mean)
    {
        V means = TSimd.Broadcast(mean), even = TSimd.Broadcast(0f), odd = even;
        int i = 0;
        for (; i <= width - 2 * TSimd.Width; i += 2 * TSimd.Width)
        {
            V a = TSimd.Subtract(TSimd.Load(x + i), means), b = TSimd.Subtract(TSimd.Load(x + i + TSimd.Width), means);
            even = TSimd.MultiplyAdd(a, a, even);
            odd = TSimd.MultiplyAdd(b, b, odd);
        }
        float total = TSimd.Sum(TSimd.Add(even, odd));
        for (; i < width; i++)
        {
            total += (x[i] - mean) * (x[i] - mean);
        }
        return total;
    }
}
