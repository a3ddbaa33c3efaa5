using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>An activation over rows: output [rows, width]; input [rows, width], or [rows, gate: width | up: width].</summary>
internal unsafe struct ActivationWork
{
    public float* Input;
    public float* Output;
    public int Rows;
    public int Width;

    /// <summary>Of <see cref="Plans.SwiGluClamp"/>.</summary>
    public float Limit, Alpha;
}

/// <summary>A non-linearity as the loop wants it.</summary>
internal interface IActivation
{
    static abstract bool IsGated { get; }

    /// <summary>The output for a gate and an up projection; kinds without a gate get their input as <paramref name="gate"/> and nothing else.</summary>
    static abstract V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged;
}

internal readonly struct SwiGlu : IActivation
{
    public static bool IsGated => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.Multiply(VectorMath<TSimd, V>.Silu(gate), up);
}

internal readonly struct Silu : IActivation
{
    public static bool IsGated => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => VectorMath<TSimd, V>.Silu(gate);
}

internal readonly struct GeGluTanh : IActivation
{
    public static bool IsGated => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.Multiply(VectorMath<TSimd, V>.GeluTanh(gate), up);
}

internal readonly struct GeluTanh : IActivation
{
    public static bool IsGated => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => VectorMath<TSimd, V>.GeluTanh(gate);
}

internal readonly struct Gelu : IActivation
{
    public static bool IsGated => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => VectorMath<TSimd, V>.Gelu(gate);
}

internal readonly struct ClampedSwiGlu : IActivation
{
    public static bool IsGated => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Apply<TSimd, V>(V gate, V up, in ActivationWork work)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        V limit = TSimd.Broadcast(work.Limit);
        gate = TSimd.Min(limit, gate);
        up = TSimd.Max(TSimd.Broadcast(-work.Limit), TSimd.Min(limit, up));
        V activated = VectorMath<TSimd, V>.TimesSigmoid(gate, TSimd.Multiply(gate, TSimd.Broadcast(work.Alpha)));
        return TSimd.Multiply(activated, TSimd.Add(up, TSimd.Broadcast(1f)));
    }
}

/// <summary>
/// The loop over rows. A single wide row is shared between threads too; the last, partial vector of a row goes through a padded copy, so an element
/// has the same bits wherever the cuts fall.
/// </summary>
internal static unsafe class ActivationKernel<TSimd, V, TActivation>
    where TSimd : struct, ISimd<V>
    where V : unmanaged
    where TActivation : struct, IActivation
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(void* state, int thread, int threads)
    {
        var work = (ActivationWork*)state;
        int lanes = TSimd.Width, width = work->Width;
        long vectorsPerRow = (width + lanes - 1) / lanes;
        (long first, long end) = Share.Of(work->Rows * vectorsPerRow, thread, threads);
        while (first < end)
        {
            long row = first / vectorsPerRow;
            long endInRow = Math.Min(end - row * vectorsPerRow, vectorsPerRow);
            float* gate = work->Input + row * width * (TActivation.IsGated ? 2 : 1);
            float* output = work->Output + row * width;
            for (long vector = first - row * vectorsPerRow; vector < endInRow; vector++)
            {
                long i = vector * lanes;
                if (i + lanes <= width)
                {
                    Apply(*work, gate + i, gate + width + i, output + i);
                }
                else
                {
                    ApplyPartial(*work, gate + i, gate + width + i, output + i, (int)(width - i));
                }
            }
            first = row * vectorsPerRow + endInRow;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Apply(in ActivationWork work, float* gate, float* up, float* output) =>
        TSimd.Store(TActivation.Apply<TSimd, V>(TSimd.Load(gate), TActivation.IsGated ? TSimd.Load(up) : default, work), output);

    private static void ApplyPartial(in ActivationWork work, float* gate, float* up, float* output, int count)
    {
        float* padded = stackalloc float[3 * TSimd.Width];
        new Span<float>(padded, 3 * TSimd.Width).Clear();
        new Span<float>(gate, count).CopyTo(new Span<float>(padded, count));
        if (TActivation.IsGated)
        {
            new Span<float>(up, count).CopyTo(new Span<float>(padded + TSimd.Width, count));
        }
        Apply(work, padded, padded + TSimd.Width, padded + 2 * TSimd.Width);
        new Span<float>(padded + 2 * TSimd.Width, count).CopyTo(new Span<float>(output, count));
    }
}
