using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>A plain float format. A panel is [inputs, 16] elements as they are in the file.</summary>
internal unsafe interface IFloatFormat
{
    /// <summary>The type of a tensor in this format.</summary>
    static abstract DType DType { get; }

    /// <summary>Bytes of an element.</summary>
    static abstract int Bytes { get; }

    /// <summary>Widens 8 elements to float32, exactly.</summary>
    static abstract Vector256<float> Widen(byte* elements);
}

/// <summary>IEEE binary32.</summary>
internal unsafe struct Float32 : IFloatFormat
{
    public static DType DType => DType.F32;
    public static int Bytes => 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements) => Vector256.Load((float*)elements);
}

/// <summary>IEEE binary16.</summary>
internal unsafe struct Float16 : IFloatFormat
{
    public static DType DType => DType.F16;
    public static int Bytes => 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements) => HalfFloats.Widen((ushort*)elements);
}

/// <summary>The top half of a binary32.</summary>
internal unsafe struct BFloat16 : IFloatFormat
{
    public static DType DType => DType.BF16;
    public static int Bytes => 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements) => (Widening.ToUInt32((ushort*)elements) << 16).AsSingle();
}
