using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>Codes of up to 4 bits that unpack to the numbers they stand for in a format (<see cref="UnsignedValues{TFormat}"/>).</summary>
internal unsafe struct LookedUp<TCodes, TFormat> : ICodes
    where TCodes : ICodes
    where TFormat : IGroupedFormat
{
    public static int Bits => TCodes.Bits;
    public static int UnpackedBits => UnsignedValues<TFormat>.Bits;
    public static UInt128 Table => UnsignedValues<TFormat>.Table;

    public static void Pack(byte* codes, byte* packed) => TCodes.Pack(codes, packed);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        TCodes.Unpack(packed, groups, groupStride);
        CodeLookup.LookUp(Table, groups, groupStride);
    }
}

/// <summary>What the codes of a format stand for, unsigned as dot products want it: an offset is added.</summary>
internal static class UnsignedValues<TFormat>
    where TFormat : IGroupedFormat
{
    /// <summary>log₂ of what is added, the least that leaves nothing negative.</summary>
    public static readonly int OffsetShift = Math.Max(1, BitOperations.Log2(BitOperations.RoundUpToPowerOf2((uint)-Smallest())));

    /// <summary>Bits of the largest number.</summary>
    public static readonly int Bits = BitOperations.Log2((uint)(Largest() + (1 << OffsetShift))) + 1;

    /// <summary>16 bytes by code, the first the lowest.</summary>
    public static readonly UInt128 Table = Pack();

    private static int Smallest()
    {
        int smallest = 0;
        foreach (sbyte value in TFormat.Values)
        {
            smallest = Math.Min(smallest, value);
        }
        return smallest;
    }

    private static int Largest()
    {
        int largest = 0;
        foreach (sbyte value in TFormat.Values)
        {
            largest = Math.Max(largest, value);
        }
        return largest;
    }

    private static UInt128 Pack()
    {
        UInt128 table = 0;
        for (int code = 0; code < TFormat.Values.Length; code++)
        {
            table |= (UInt128)(byte)(TFormat.Values[code] + (1 << OffsetShift)) << (8 * code);
        }
        return table;
    }
}

/// <summary>Looking codes up.</summary>
internal static unsafe class CodeLookup
{
    /// <summary>Replaces the codes of a block by bytes of a table.</summary>
    /// <param name="table">16 bytes by code, the first the lowest.</param>
    /// <param name="groups">8 groups, <paramref name="groupStride"/> bytes apart.</param>
    /// <param name="groupStride">Bytes from a group to the next.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void LookUp(UInt128 table, byte* groups, int groupStride)
    {
        Vector128<byte> bytes = Vector128.Create((ulong)table, (ulong)(table >> 64)).AsByte();
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            byte* codes = groups + group * groupStride;
            for (int part = 0; part < Panel.GroupBytes; part += Vector128<byte>.Count)
            {
                Vector128.Shuffle(bytes, Vector128.Load(codes + part)).Store(codes + part);
            }
        }
    }
}
