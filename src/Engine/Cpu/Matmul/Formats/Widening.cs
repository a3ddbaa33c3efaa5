using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>8 small integers to 8 of 32 bits.</summary>
internal static unsafe class Widening
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<uint> ToUInt32(ushort* words)
    {
        if (Avx2.IsSupported)
        {
            return Avx2.ConvertToVector256Int32(words).AsUInt32();
        }
        (Vector128<uint> lower, Vector128<uint> upper) = Vector128.Widen(Vector128.Load(words));
        return Vector256.Create(lower, upper);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<int> ToInt32(byte* bytes)
    {
        if (Avx2.IsSupported)
        {
            return Avx2.ConvertToVector256Int32(bytes);
        }
        Vector128<ushort> words = Vector128.WidenLower(Vector128.CreateScalarUnsafe(*(ulong*)bytes).AsByte());
        (Vector128<uint> lower, Vector128<uint> upper) = Vector128.Widen(words);
        return Vector256.Create(lower, upper).AsInt32();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<int> SignedToInt32(sbyte* bytes)
    {
        if (Avx2.IsSupported)
        {
            return Avx2.ConvertToVector256Int32(bytes);
        }
        Vector128<short> words = Vector128.WidenLower(Vector128.CreateScalarUnsafe(*(ulong*)bytes).AsSByte());
        (Vector128<int> lower, Vector128<int> upper) = Vector128.Widen(words);
        return Vector256.Create(lower, upper);
    }
}

/// <summary>float16 to float32, for finite values: .NET exposes no vector instruction for it.</summary>
internal static unsafe class HalfFloats
{
    // 2¹¹² as float32: the difference of the exponent biases.
    private const uint BiasCorrection = 0x77800000u;

    /// <summary>Widens the values of a panel's rows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Widen(ushort* halves, float* floats)
    {
        if (Avx512F.IsSupported)
        {
            WidenAvx512(halves).Store(floats);
            return;
        }
        for (int i = 0; i < Panel.Rows; i += 8)
        {
            Widen(halves + i).Store(floats + i);
        }
    }

    /// <summary>Widens 16 values as <see cref="Widen(ushort*)"/> does 8.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> WidenAvx512(ushort* halves) => FromBits(Avx512F.ConvertToVector512UInt32(Vector256.Load(halves)));

    /// <summary>Widens 16 values, each the low half of a word.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> FromBits(Vector512<uint> bits)
    {
        Vector512<float> magnitude = ((bits & Vector512.Create(0x7FFFu)) << 13).AsSingle() * Vector512.Create(BiasCorrection).AsSingle();
        return (magnitude.AsUInt32() | ((bits & Vector512.Create(0x8000u)) << 16)).AsSingle();
    }

    /// <summary>
    /// Widens 8 values. Exponent and mantissa are moved to their place and the product with 2¹¹² corrects the bias; it is exact, also for subnormals.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(ushort* halves)
    {
        Vector256<uint> bits = Widening.ToUInt32(halves);
        Vector256<float> magnitude = ((bits & Vector256.Create(0x7FFFu)) << 13).AsSingle() * Vector256.Create(BiasCorrection).AsSingle();
        return (magnitude.AsUInt32() | ((bits & Vector256.Create(0x8000u)) << 16)).AsSingle();
    }
}
