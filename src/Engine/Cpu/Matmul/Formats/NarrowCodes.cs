using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>1-bit codes.</summary>
internal unsafe struct Codes1 : ICodes
{
    public static int Bits => 1;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NarrowCodes.Pack(codes, packed, 1, 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NarrowCodes.Unpack(packed, groups, groupStride, 1, 0);
}

/// <summary>2-bit codes.</summary>
internal unsafe struct Codes2 : ICodes
{
    public static int Bits => 2;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NarrowCodes.Pack(codes, packed, 2, 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NarrowCodes.Unpack(packed, groups, groupStride, 2, 0);
}

/// <summary>3-bit codes.</summary>
internal unsafe struct Codes3 : ICodes
{
    public static int Bits => 3;
    public static int UnpackedBits => Bits;

    public static void Pack(byte* codes, byte* packed) => NarrowCodes.Pack(codes, packed, 2, 1);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride) => NarrowCodes.Unpack(packed, groups, groupStride, 2, 1);
}

/// <summary>
/// Codes of fewer than 4 bits, as <see cref="NibbleCodes"/> has those of more: a plane per further bit, and as many vectors as there are low bits, whose fields from
/// the lowest up are groups as many apart. So 2-bit fields k of vector j are group j + 2k, and bits k of the vector of 1-bit codes are group k.
/// </summary>
internal static unsafe class NarrowCodes
{
    public static void Pack(byte* codes, byte* packed, int lowBits, int highBits)
    {
        byte* groups = stackalloc byte[ActivationLayout.Groups * Panel.GroupBytes];
        Codes8.Pack(codes, groups);
        new Span<byte>(packed, (lowBits + highBits) * Panel.GroupBytes).Clear();
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            int line = highBits + group % lowBits, shift = group / lowBits * lowBits;
            for (int i = 0; i < Panel.GroupBytes; i++)
            {
                int code = groups[group * Panel.GroupBytes + i];
                packed[line * Panel.GroupBytes + i] |= (byte)((code & (1 << lowBits) - 1) << shift);
                if (highBits > 0)
                {
                    packed[i] |= (byte)((code >> lowBits & 1) << group);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride, int lowBits, int highBits)
    {
        Vector256<byte> low = Vector256.Create((byte)((1 << lowBits) - 1)), high = Vector256.Create((byte)(1 << lowBits));
        for (int part = 0; part < Panel.GroupBytes; part += Vector256<byte>.Count)
        {
            // Bit g of the plane is moved to the bit above the low ones; what shifting carries across bytes is masked away.
            Vector256<ushort> plane = Vector256.Load(packed + part).AsUInt16();
            for (int line = 0; line < lowBits; line++)
            {
                Vector256<ushort> fields = Vector256.Load(packed + (highBits + line) * Panel.GroupBytes + part).AsUInt16();
                for (int group = line; group < ActivationLayout.Groups; group += lowBits)
                {
                    Vector256<byte> code = fields.AsByte() & low;
                    if (highBits > 0)
                    {
                        code |= (group <= lowBits ? plane << lowBits - group : plane >>> group - lowBits).AsByte() & high;
                    }
                    code.Store(groups + group * groupStride + part);
                    fields >>>= lowBits;
                }
            }
        }
    }
}
