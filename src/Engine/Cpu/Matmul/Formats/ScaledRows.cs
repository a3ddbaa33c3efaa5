using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>
/// Products of small integers and a number, one each for the rows of a panel: how scales of groups come out of what super-blocks hold. With one token that is as much
/// work as the weights of a group themselves, so it is done on the widest vectors there are.
/// </summary>
internal static unsafe class ScaledRows
{
    /// <summary>s · factor.</summary>
    /// <param name="integers">[16] signed bytes s.</param>
    /// <param name="factors">[16].</param>
    /// <param name="target">[16].</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Signed(sbyte* integers, float* factors, float* target)
    {
        if (Avx512F.IsSupported)
        {
            (Vector512.ConvertToSingle(Avx512F.ConvertToVector512Int32(Vector128.Load(integers))) * Vector512.Load(factors)).Store(target);
        }
        else
        {
            SignedPortable(integers, factors, target);
        }
    }

    /// <summary>s · factor, s being a nibble.</summary>
    /// <param name="bytes">[16].</param>
    /// <param name="shift">0 for the low nibbles, 4 for the high ones.</param>
    /// <param name="odd">The nibble stands for 2 s + 1.</param>
    /// <param name="factors">[16].</param>
    /// <param name="target">[16].</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Nibbles(byte* bytes, int shift, bool odd, float* factors, float* target)
    {
        if (Avx512F.IsSupported)
        {
            Vector512<int> field = Avx512F.ConvertToVector512Int32(Vector128.Load(bytes)) >>> shift & Vector512.Create(15);
            (Vector512.ConvertToSingle(odd ? field + field + Vector512<int>.One : field) * Vector512.Load(factors)).Store(target);
        }
        else
        {
            NibblesPortable(bytes, shift, odd, factors, target);
        }
    }

    /// <summary><see cref="Signed"/>, in vectors of any processor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void SignedPortable(sbyte* integers, float* factors, float* target)
    {
        for (int row = 0; row < Panel.Rows; row += 8)
        {
            (Vector256.ConvertToSingle(Widening.SignedToInt32(integers + row)) * Vector256.Load(factors + row)).Store(target + row);
        }
    }

    /// <summary><see cref="Nibbles"/>, in vectors of any processor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void NibblesPortable(byte* bytes, int shift, bool odd, float* factors, float* target)
    {
        for (int row = 0; row < Panel.Rows; row += 8)
        {
            Vector256<int> field = Widening.ToInt32(bytes + row) >>> shift & Vector256.Create(15);
            (Vector256.ConvertToSingle(odd ? field + field + Vector256<int>.One : field) * Vector256.Load(factors + row)).Store(target + row);
        }
    }
}
