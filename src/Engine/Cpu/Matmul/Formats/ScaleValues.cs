using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>How a scale of a group is held: the narrowest that holds all scales of a matrix exactly.</summary>
internal unsafe interface IScaleValue
{
    /// <summary>Bytes of a scale.</summary>
    static abstract int Bytes { get; }

    /// <summary>Stores a finite scale that is held exactly.</summary>
    static abstract void Store(float scale, byte* target);

    /// <summary>Widens the scales of a panel's rows.</summary>
    static abstract void Widen(byte* scales, float* floats);
}

/// <summary>A scale that is the top half of a binary32.</summary>
internal unsafe struct BFloat16Scale : IScaleValue
{
    public static int Bytes => 2;

    public static void Store(float scale, byte* target) => *(ushort*)target = (ushort)(BitConverter.SingleToUInt32Bits(scale) >> 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Widen(byte* scales, float* floats)
    {
        for (int row = 0; row < Panel.Rows; row += 8)
        {
            (Widening.ToUInt32((ushort*)scales + row) << 16).AsSingle().Store(floats + row);
        }
    }
}

/// <summary>A scale in IEEE binary16.</summary>
internal unsafe struct Float16Scale : IScaleValue
{
    public static int Bytes => 2;

    public static void Store(float scale, byte* target) => *(Half*)target = (Half)scale;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Widen(byte* scales, float* floats) => HalfFloats.Widen((ushort*)scales, floats);
}

/// <summary>A scale in IEEE binary32.</summary>
internal unsafe struct Float32Scale : IScaleValue
{
    public static int Bytes => 4;

    public static void Store(float scale, byte* target) => *(float*)target = scale;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Widen(byte* scales, float* floats) => Unsafe.CopyBlockUnaligned(floats, scales, Panel.Rows * sizeof(float));
}
