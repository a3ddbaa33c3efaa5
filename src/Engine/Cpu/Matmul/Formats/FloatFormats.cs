using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>A format that kernels widen to float32. A panel is a list of steps, each [16 rows, interleaved inputs] elements.</summary>
internal unsafe interface IFloatFormat
{
    /// <summary>The type of a tensor in this format; <see cref="DType.Coded"/> for nibbles that a table has the numbers of.</summary>
    static abstract DType DType { get; }

    /// <summary>Bytes of a step of one row.</summary>
    static abstract int StepBytes { get; }

    /// <summary>Consecutive inputs of a row that lie side by side in a step: of plain floats the first of them last, of nibbles the first of them low.</summary>
    static abstract int StepInputs { get; }

    /// <summary>Widens one input of 8 rows to float32, exactly.</summary>
    /// <param name="elements">The first of the 8 rows in a step.</param>
    /// <param name="input">Which of the inputs of the step.</param>
    /// <param name="table">Of nibbles, their numbers [16]; of 8-bit floats, what the assembled kernels multiply with; null for others.</param>
    static abstract Vector256<float> Widen(byte* elements, int input, float* table);
}

/// <summary>IEEE binary32.</summary>
internal unsafe struct Float32 : IFloatFormat
{
    public static DType DType => DType.F32;
    public static int StepBytes => 4;
    public static int StepInputs => 1;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table) => Vector256.Load((float*)elements);
}

/// <summary>IEEE binary16.</summary>
internal unsafe struct Float16 : IFloatFormat
{
    public static DType DType => DType.F16;
    public static int StepBytes => 2;
    public static int StepInputs => 1;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table) => HalfFloats.Widen((ushort*)elements);
}

/// <summary>
/// The top half of a binary32. Inputs come in pairs, which is what VDPBF16PS multiplies; it adds the high half's product before the low half's,
/// so the high half holds the first input. To widen, one is masked and the other shifted.
/// </summary>
internal unsafe struct BFloat16 : IFloatFormat
{
    public static DType DType => DType.BF16;
    public static int StepBytes => 4;
    public static int StepInputs => 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table)
    {
        Vector256<uint> pairs = Vector256.Load((uint*)elements);
        return (input == 0 ? pairs & Vector256.Create(0xFFFF0000u) : pairs << 16).AsSingle();
    }
}
