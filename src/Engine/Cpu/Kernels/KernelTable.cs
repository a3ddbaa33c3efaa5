using System.Runtime.Intrinsics;
using Engine.Cpu.Simd;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu.Kernels;

/// <summary>The kernels of one instruction set, chosen once. Each is a body for the thread team.</summary>
internal sealed unsafe class KernelTable
{
    private readonly delegate*<void*, int, int, void>[] activations;
    private readonly delegate*<void*, int, int, void>[] attention;
    private readonly delegate*<void*, int, int, void>[] cells;

    private KernelTable(
        delegate*<void*, int, int, void> normalize,
        delegate*<void*, int, int, void> rotate,
        delegate*<void*, int, int, void> merge,
        delegate*<void*, int, int, void> multiplyHeads,
        delegate*<void*, int, int, void>[] activations,
        delegate*<void*, int, int, void>[] attention,
        delegate*<void*, int, int, void>[] cells)
    {
        Normalize = normalize;
        Rotate = rotate;
        MergeAttention = merge;
        MultiplyHeads = multiplyHeads;
        this.activations = activations;
        this.attention = attention;
        this.cells = cells;
    }

    /// <summary>Runs a <see cref="NormWork"/>.</summary>
    public delegate*<void*, int, int, void> Normalize { get; }

    /// <summary>Runs a <see cref="RotateWork"/>.</summary>
    public delegate*<void*, int, int, void> Rotate { get; }

    /// <summary>Merges the partial results of an <see cref="AttentionWork"/>.</summary>
    public delegate*<void*, int, int, void> MergeAttention { get; }

    /// <summary>Runs a <see cref="HeadProductWork"/>.</summary>
    public delegate*<void*, int, int, void> MultiplyHeads { get; }

    /// <summary>
    /// Whether it is one of the enumeration. <see cref="Enum.IsDefined{TEnum}"/> would answer from a cache that every garbage collection drops, and
    /// allocate a new one in the middle of a step.
    /// </summary>
    public bool Has(Activation activation) => (uint)activation < (uint)activations.Length;

    /// <summary>Runs an <see cref="ActivationWork"/>.</summary>
    public delegate*<void*, int, int, void> Activate(Activation activation) => activations[(int)activation];

    /// <summary>As <see cref="Has(Activation)"/>.</summary>
    public bool Has(RecurrentCell cell) => (uint)cell < (uint)cells.Length;

    /// <summary>Runs a <see cref="RecurrenceWork"/>.</summary>
    public delegate*<void*, int, int, void> Recur(RecurrentCell cell) => cells[(int)cell];

    /// <summary>Runs an <see cref="AttentionWork"/>.</summary>
    public delegate*<void*, int, int, void> Attend(KvFormat format) => attention[(int)format];

    /// <summary>The kernels for an instruction set that this machine has.</summary>
    public static KernelTable For(InstructionSet set) => set switch
    {
        InstructionSet.Avx512 => Create<Simd512, Vector512<float>>(),
        InstructionSet.Avx2 => Create<Simd256, Vector256<float>>(),
        _ => Create<Simd128, Vector128<float>>(),
    };

    private static KernelTable Create<TSimd, V>()
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        // In the order of their enumerations.
        var activations = new delegate*<void*, int, int, void>[6];
        activations[(int)Activation.SwiGlu] = &ActivationKernel<TSimd, V, SwiGlu>.Run;
        activations[(int)Activation.GeluTanh] = &ActivationKernel<TSimd, V, GeluTanh>.Run;
        activations[(int)Activation.Gelu] = &ActivationKernel<TSimd, V, Gelu>.Run;
        activations[(int)Activation.GeGluTanh] = &ActivationKernel<TSimd, V, GeGluTanh>.Run;
        activations[(int)Activation.Silu] = &ActivationKernel<TSimd, V, Silu>.Run;
        activations[(int)Activation.ClampedSwiGlu] = &ActivationKernel<TSimd, V, ClampedSwiGlu>.Run;
        var attention = new delegate*<void*, int, int, void>[3];
        attention[(int)KvFormat.F32] = &AttentionKernel<TSimd, V, F32Tile, F32Tile>.Run;
        attention[(int)KvFormat.F16] = &AttentionKernel<TSimd, V, F16Tile, F16Tile>.Run;
        attention[(int)KvFormat.Q8_0] = &AttentionKernel<TSimd, V, Q8KeyTile, Q8ValueTile>.Run;
        var cells = new delegate*<void*, int, int, void>[2];
        cells[(int)RecurrentCell.Gru] = &RecurrenceKernel<TSimd, V, GruCell>.Run;
        cells[(int)RecurrentCell.Rnn] = &RecurrenceKernel<TSimd, V, RnnCell>.Run;
        return new KernelTable(
            &NormKernel<TSimd, V>.Run, &RotateKernel<TSimd, V>.Run, &AttentionKernel<TSimd, V, F32Tile, F32Tile>.Merge,
            &HeadProductKernel<TSimd, V>.Run, activations, attention, cells);
    }
}
