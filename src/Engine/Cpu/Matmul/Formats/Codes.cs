using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>8-bit codes: the groups one after another.</summary>
internal unsafe struct Codes8 : ICodes
{
    public static int Bits => 8;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed)
    {
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            for (int row = 0; row < Panel.Rows; row++)
            {
                ((int*)packed)[group * Panel.Rows + row] = ((int*)codes)[row * ActivationLayout.Groups + group];
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            Buffer.MemoryCopy(packed + group * Panel.GroupBytes, groups + group * groupStride, Panel.GroupBytes, Panel.GroupBytes);
        }
    }
}

/// <summary>4-bit codes.</summary>
internal unsafe struct Codes4 : ICodes
{
    public static int Bits => 4;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NibbleCodes.Pack(codes, packed, 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NibbleCodes.Unpack(packed, groups, groupStride, 0);
}

/// <summary>5-bit codes.</summary>
internal unsafe struct Codes5 : ICodes
{
    public static int Bits => 5;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NibbleCodes.Pack(codes, packed, 1);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NibbleCodes.Unpack(packed, groups, groupStride, 1);
}

/// <summary>6-bit codes.</summary>
internal unsafe struct Codes6 : ICodes
{
    public static int Bits => 6;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NibbleCodes.Pack(codes, packed, 2);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NibbleCodes.Unpack(packed, groups, groupStride, 2);
}

/// <summary>4-bit floats, which unpack to integers (<see cref="E2M1Table"/>).</summary>
internal unsafe struct CodesE2M1 : ICodes
{
    public static int Bits => 4;
    public static int UnpackedBits => E2M1Table.Bits;
    public static UInt128 Table { get; } = BitConverter.ToUInt128(E2M1Table.Bytes);

    public static void Pack(byte* codes, byte* packed) => NibbleCodes.Pack(codes, packed, 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        NibbleCodes.Unpack(packed, groups, groupStride, 0);
        CodeLookup.LookUp(Table, groups, groupStride);
    }
}

/// <summary>What E2M1 codes unpack to, unsigned as dot products want it: twice the number (0, 1, 2, 3, 4, 6, 8, 12, and negative) plus 16.</summary>
internal static class E2M1Table
{
    /// <summary>log₂ of what is added.</summary>
    public const int OffsetShift = 4;

    /// <summary>Bits of the largest, 28.</summary>
    public const int Bits = 5;

    /// <summary>The code of 0.</summary>
    public const byte Zero = 0;

    /// <summary>The code of −0.</summary>
    public const byte NegativeZero = 8;

    /// <summary>By code.</summary>
    public static ReadOnlySpan<byte> Bytes => [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];
}

/// <summary>
/// Codes of 4 bits and up to 2 more: a plane per further bit, then four vectors whose low nibbles are groups 0–3 and whose high nibbles are groups
/// 4–7. Taken together, byte b of the planes holds those bits of byte b of group 0, of group 1, and so on, from the lowest bit up. The planes are
/// needed first and lie first: reading strictly forward is what the hardware prefetcher follows.
/// </summary>
internal static unsafe class NibbleCodes
{
    private const int Pairs = ActivationLayout.Groups / 2;

    public static void Pack(byte* codes, byte* packed, int highBits)
    {
        byte* groups = stackalloc byte[ActivationLayout.Groups * Panel.GroupBytes];
        Codes8.Pack(codes, groups);
        new Span<byte>(packed, (Pairs + highBits) * Panel.GroupBytes).Clear();
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            for (int i = 0; i < Panel.GroupBytes; i++)
            {
                int code = groups[group * Panel.GroupBytes + i];
                packed[(highBits + group % Pairs) * Panel.GroupBytes + i] |= (byte)((code & 15) << (group < Pairs ? 0 : 4));
                if (highBits > 0)
                {
                    int bit = group * highBits;
                    packed[bit / 8 * Panel.GroupBytes + i] |= (byte)(code >> 4 << bit % 8);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride, int highBits)
    {
        Vector256<byte> nibble = Vector256.Create((byte)15), high = Vector256.Create((byte)(highBits == 2 ? 0x30 : 0x10));
        for (int part = 0; part < Panel.GroupBytes; part += Vector256<byte>.Count)
        {
            for (int pair = 0; pair < Pairs; pair++)
            {
                Vector256<byte> both = Vector256.Load(packed + (highBits + pair) * Panel.GroupBytes + part);
                Vector256<byte> low = both & nibble, top = Vector256.ShiftRightLogical(both.AsUInt16(), 4).AsByte() & nibble;
                if (highBits > 0)
                {
                    low |= HighBits(packed + part, pair, highBits) & high;
                    top |= HighBits(packed + part, pair + Pairs, highBits) & high;
                }
                low.Store(groups + pair * groupStride + part);
                top.Store(groups + (pair + Pairs) * groupStride + part);
            }
        }
    }

    /// <summary>The plane with the bits of a group moved to bit 4; what shifting carries across bytes is for the caller to mask away.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<byte> HighBits(byte* packed, int group, int highBits)
    {
        int bit = group * highBits, shift = 4 - bit % 8;
        Vector256<ushort> plane = Vector256.Load(packed + bit / 8 * Panel.GroupBytes).AsUInt16();
        return (shift >= 0 ? plane << shift : plane >>> -shift).AsByte();
    }
}
