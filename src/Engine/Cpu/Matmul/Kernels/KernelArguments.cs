using System.Runtime.InteropServices;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>What a kernel works on. Assembled code reads the fields at their offsets.</summary>
[StructLayout(LayoutKind.Explicit, Size = 160)]
internal unsafe struct KernelArguments
{
    /// <summary>
    /// Weights: a packed panel, or a tile that has been unpacked from one or two. Kernels for block formats leave here where the next block starts. Masked floats:
    /// the masks.
    /// </summary>
    [FieldOffset(0)]
    public byte* Weights;

    /// <summary>Block formats: per block the scale (and second scale or minimum) of each row as float32. Float formats: the table of <see cref="Formats.IFloatFormat.Widen"/>.</summary>
    [FieldOffset(8)]
    public float* Scales;

    /// <summary>Block formats: records of <see cref="ActivationLayout"/>. Float formats: [inputs, tokens] float32, or [pairs of inputs, tokens] bfloat16 twice.</summary>
    [FieldOffset(16)]
    public byte* Activations;

    /// <summary>[tokens, rows] float32, read, added to and written back. The kernels that expand masked floats write steps there.</summary>
    [FieldOffset(24)]
    public float* Accumulators;

    /// <summary>Blocks of 32 inputs; for float formats steps of one or two inputs, for masked ones pairs. At least 1.</summary>
    [FieldOffset(32)]
    public long Count;

    /// <summary>Float formats: bytes from one step, or mask, to the next. Read by the kernels that are not assembled.</summary>
    [FieldOffset(40)]
    public long StepStride;

    /// <summary>Which kernel this is; read by the kernels that are not assembled.</summary>
    [FieldOffset(48)]
    public BlockKernel Kernel;

    /// <summary>Kernels with scales: groups of <see cref="Count"/> steps, at least 1.</summary>
    [FieldOffset(128)]
    public long Groups;

    /// <summary>Kernels with scales: [panels, 16] float32 of the first group.</summary>
    [FieldOffset(136)]
    public byte* GroupScales;

    /// <summary>Kernels with scales: bytes from a group to the next.</summary>
    [FieldOffset(144)]
    public long GroupStride;

    /// <summary>Masked floats: [panels] where the next kept element of each panel lies; moved on by the kernel.</summary>
    [FieldOffset(152)]
    public byte** Kept;
}
