using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Integer dot products of an instruction set: each 32-bit lane of <typeparamref name="TVector"/> adds the exact products of its 4 unsigned codes
/// with 4 signed inputs. Only the sums leave a kernel, so all sets give the same bits.
/// </summary>
internal unsafe interface IDotLanes<TVector>
    where TVector : struct
{
    /// <summary>Bytes of a vector.</summary>
    static abstract int Bytes { get; }

    /// <summary>
    /// Sums over the groups of a half or whole block: <c>start + Σ codes · inputs</c> per lane, stored to <paramref name="sums"/>.
    /// </summary>
    /// <param name="codes">A vector of each group, <see cref="Panel.GroupBytes"/> apart.</param>
    /// <param name="inputs">4 signed inputs of each group, <paramref name="stride"/> words apart.</param>
    /// <param name="stride">Words between groups of <paramref name="inputs"/>.</param>
    /// <param name="groups">4 or 8.</param>
    /// <param name="bits">Bits of a code, 1 to 8.</param>
    /// <param name="start">Where the sums start.</param>
    /// <param name="sums">Receives a vector of int32.</param>
    static abstract void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums);
}

/// <summary>
/// 8-bit products added in pairs to 16 bits (VPMADDUBSW), those in pairs to 32 (VPMADDWD). Pair sums of narrow codes fit 16 bits several times
/// over: 2 · 127 · (2^bits − 1) · n &lt; 2¹⁵ allows n = 8, 4, 2, 1 for 4, 5, 6, 7 bits. 8-bit codes are taken apart at bit 7, each part fitting once.
/// </summary>
internal unsafe struct Avx512Lanes : IDotLanes<Vector512<byte>>
{
    public static int Bytes => 64;

    public static void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums)
    {
        Vector512<int> sum = Vector512.Create(start);
        Vector512<short> ones = Vector512.Create((short)1);
        if (bits == 8)
        {
            for (int group = 0; group < groups; group++)
            {
                Vector512<byte> code = Vector512.Load(codes + group * Panel.GroupBytes);
                Vector512<sbyte> input = Vector512.Create(inputs[group * stride]).AsSByte();
                Vector512<short> low = Avx512BW.MultiplyAddAdjacent(code & Vector512.Create((byte)127), input);
                Vector512<short> top = Avx512BW.MultiplyAddAdjacent(code & Vector512.Create((byte)128), input);
                sum += Avx512BW.MultiplyAddAdjacent(low, ones) + Avx512BW.MultiplyAddAdjacent(top, ones);
            }
        }
        else
        {
            int run = Math.Min(groups, 1 << (7 - bits));
            for (int group = 0; group < groups; group += run)
            {
                Vector512<short> pairs = default;
                for (int i = group; i < group + run; i++)
                {
                    pairs += Avx512BW.MultiplyAddAdjacent(
                        Vector512.Load(codes + i * Panel.GroupBytes), Vector512.Create(inputs[i * stride]).AsSByte());
                }
                sum += Avx512BW.MultiplyAddAdjacent(pairs, ones);
            }
        }
        sum.Store(sums);
    }
}

/// <summary>As <see cref="Avx512Lanes"/> on 256 bits.</summary>
internal unsafe struct Avx2Lanes : IDotLanes<Vector256<byte>>
{
    public static int Bytes => 32;

    public static void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums)
    {
        Vector256<int> sum = Vector256.Create(start);
        Vector256<short> ones = Vector256.Create((short)1);
        if (bits == 8)
        {
            for (int group = 0; group < groups; group++)
            {
                Vector256<byte> code = Vector256.Load(codes + group * Panel.GroupBytes);
                Vector256<sbyte> input = Vector256.Create(inputs[group * stride]).AsSByte();
                Vector256<short> low = Avx2.MultiplyAddAdjacent(code & Vector256.Create((byte)127), input);
                Vector256<short> top = Avx2.MultiplyAddAdjacent(code & Vector256.Create((byte)128), input);
                sum += Avx2.MultiplyAddAdjacent(low, ones) + Avx2.MultiplyAddAdjacent(top, ones);
            }
        }
        else
        {
            int run = Math.Min(groups, 1 << (7 - bits));
            for (int group = 0; group < groups; group += run)
            {
                Vector256<short> pairs = default;
                for (int i = group; i < group + run; i++)
                {
                    pairs += Avx2.MultiplyAddAdjacent(
                        Vector256.Load(codes + i * Panel.GroupBytes), Vector256.Create(inputs[i * stride]).AsSByte());
                }
                sum += Avx2.MultiplyAddAdjacent(pairs, ones);
            }
        }
        sum.Store(sums);
    }
}

/// <summary>256-bit VPDPBUSD.</summary>
internal unsafe struct AvxVnniLanes : IDotLanes<Vector256<byte>>
{
    public static int Bytes => 32;

    public static void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums)
    {
        Vector256<int> sum = Vector256.Create(start);
        for (int group = 0; group < groups; group++)
        {
            sum = AvxVnni.MultiplyWideningAndAdd(
                sum, Vector256.Load(codes + group * Panel.GroupBytes), Vector256.Create(inputs[group * stride]).AsSByte());
        }
        sum.Store(sums);
    }
}

/// <summary>SDOT is signed: bit 7 of a code counts −128 there, and once more 256 brings it to +128.</summary>
internal unsafe struct ArmDotLanes : IDotLanes<Vector128<byte>>
{
    public static int Bytes => 16;

    public static void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums)
    {
        Vector128<int> sum = Vector128.Create(start), top = default;
        for (int group = 0; group < groups; group++)
        {
            Vector128<byte> code = Vector128.Load(codes + group * Panel.GroupBytes);
            Vector128<sbyte> input = Vector128.Create(inputs[group * stride]).AsSByte();
            sum = Dp.DotProduct(sum, code.AsSByte(), input);
            if (bits == 8)
            {
                top = Dp.DotProduct(top, (code >>> 7).AsSByte(), input);
            }
        }
        (sum + (top << 8)).Store(sums);
    }
}

/// <summary>Products and sums by widening, on any processor.</summary>
internal unsafe struct PortableLanes : IDotLanes<Vector128<byte>>
{
    public static int Bytes => 16;

    public static void Sum(byte* codes, int* inputs, int stride, int groups, int bits, int start, int* sums)
    {
        Vector128<int> sum = Vector128.Create(start);
        for (int group = 0; group < groups; group++)
        {
            Vector128<byte> code = Vector128.Load(codes + group * Panel.GroupBytes);
            Vector128<sbyte> input = Vector128.Create(inputs[group * stride]).AsSByte();
            Vector128<long> lower = Quads(Vector128.WidenLower(code).AsInt16() * Vector128.WidenLower(input));
            Vector128<long> upper = Quads(Vector128.WidenUpper(code).AsInt16() * Vector128.WidenUpper(input));
            sum += Vector128.Narrow(lower, upper);
        }
        sum.Store(sums);
    }

    /// <summary>Sums of 4 neighbours; a product is at most 255 · 127 and fits 16 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<long> Quads(Vector128<short> products)
    {
        Vector128<int> pairs = ((products.AsInt32() << 16) >> 16) + (products.AsInt32() >> 16);
        return ((pairs.AsInt64() << 32) >> 32) + (pairs.AsInt64() >> 32);
    }
}
