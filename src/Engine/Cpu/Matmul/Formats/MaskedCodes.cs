using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>
/// 8-bit codes without those of zero, 128: a bit for each code and 8 for each that is kept. Behind the masks (<see cref="MaskedGroups"/>) the kept codes of the groups
/// follow one after another.
/// </summary>
internal unsafe struct MaskedCodes8 : ICodes
{
    private const byte Zero = 1 << 7;

    public static int Bits => 8;
    public static int UnpackedBits => 8;
    public static CodeSparsity Sparsity => CodeSparsity.Unstructured;

    public static void Pack(byte* codes, byte* packed)
    {
        byte* kept = packed + MaskedGroups.MaskBytes;
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            kept += MaskedGroups.Pack(codes, group, Zero, out ((ulong*)packed)[group], kept);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        byte* kept = packed + MaskedGroups.MaskBytes;
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            ulong mask = ((ulong*)packed)[group];
            MaskedGroups.Prefetch(kept);
            if (Avx512Vbmi2.IsSupported)
            {
                Avx512Vbmi2.ExpandLoad(kept, MaskedGroups.Bytes(mask), Vector512.Create(Zero)).Store(groups + group * groupStride);
            }
            else
            {
                MaskedGroups.Expand(mask, kept, 0, 0xFF, Zero, groups + group * groupStride);
            }
            kept += BitOperations.PopCount(mask);
        }
    }
}

/// <summary>
/// As <see cref="MaskedCodes8"/>, of 4-bit codes with zero at 8. Groups g and g + 4 share bytes, the kept codes of the first in the low nibbles and those of the
/// second in the high ones: as many bytes as the longer has codes, which a byte for each such pair says behind the masks.
/// </summary>
internal unsafe struct MaskedCodes4 : ICodes
{
    private const byte Zero = 1 << 3, Nibble = 15;

    public static int Bits => 4;
    public static int UnpackedBits => 4;
    public static CodeSparsity Sparsity => CodeSparsity.Unstructured;

    public static void Pack(byte* codes, byte* packed)
    {
        byte* lengths = packed + MaskedGroups.MaskBytes, kept = lengths + MaskedGroups.Pairs;
        byte* low = stackalloc byte[Panel.GroupBytes], high = stackalloc byte[Panel.GroupBytes];
        for (int pair = 0; pair < MaskedGroups.Pairs; pair++)
        {
            int lows = MaskedGroups.Pack(codes, pair, Zero, out ((ulong*)packed)[pair], low);
            int highs = MaskedGroups.Pack(codes, pair + MaskedGroups.Pairs, Zero, out ((ulong*)packed)[pair + MaskedGroups.Pairs], high);
            lengths[pair] = (byte)Math.Max(lows, highs);
            for (int i = 0; i < lengths[pair]; i++)
            {
                *kept++ = (byte)((i < lows ? low[i] : 0) | (i < highs ? high[i] << 4 : 0));
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        ulong* masks = (ulong*)packed;
        byte* lengths = packed + MaskedGroups.MaskBytes, kept = lengths + MaskedGroups.Pairs;
        for (int pair = 0; pair < MaskedGroups.Pairs; pair++)
        {
            byte* low = groups + pair * groupStride, high = low + MaskedGroups.Pairs * groupStride;
            MaskedGroups.Prefetch(kept);
            if (Avx512Vbmi2.IsSupported)
            {
                Vector512<byte> both = Vector512.Load(kept), nibble = Vector512.Create(Nibble), zeros = Vector512.Create(Zero);
                Vector512<byte> top = Vector512.ShiftRightLogical(both.AsUInt16(), 4).AsByte() & nibble;
                Avx512Vbmi2.Expand(zeros, MaskedGroups.Bytes(masks[pair]), both & nibble).Store(low);
                Avx512Vbmi2.Expand(zeros, MaskedGroups.Bytes(masks[pair + MaskedGroups.Pairs]), top).Store(high);
            }
            else
            {
                MaskedGroups.Expand(masks[pair], kept, 0, Nibble, Zero, low);
                MaskedGroups.Expand(masks[pair + MaskedGroups.Pairs], kept, 4, Nibble, Zero, high);
            }
            kept += lengths[pair];
        }
    }
}

/// <summary>
/// Blocks of [16 rows, 32 inputs] without the codes of zero (formats.md §5.6). First come 8 masks of 64 bits, one for each group of [16 rows, 4 inputs], whose bit i says
/// that byte i of the group is another code; then what is kept, in that order. Blocks follow each other without gaps, each as long as it is. Vectors of 4-bit codes
/// are read whole, up to 63 bytes past the last.
/// </summary>
internal static unsafe class MaskedGroups
{
    /// <summary>Bytes of the masks of a block.</summary>
    public const int MaskBytes = ActivationLayout.Groups * sizeof(ulong);

    /// <summary>Pairs of groups of 4-bit codes.</summary>
    public const int Pairs = ActivationLayout.Groups / 2;

    /// <summary>How far ahead of what is expanded memory is asked for.</summary>
    public const int PrefetchDistance = 4096;

    /// <summary>Bytes of a packed block of 4- or 8-bit codes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Bytes(byte* block, int bits)
    {
        int bytes = MaskBytes;
        if (bits == 4)
        {
            for (int pair = 0; pair < Pairs; pair++)
            {
                bytes += 1 + block[MaskBytes + pair];
            }
            return bytes;
        }
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            bytes += BitOperations.PopCount(((ulong*)block)[group]);
        }
        return bytes;
    }

    /// <summary>Bytes that the codes [16, 32] of a block take once they are packed.</summary>
    public static int PackedBytes(byte* codes, int bits, byte zero)
    {
        if (bits != 4)
        {
            var all = new ReadOnlySpan<byte>(codes, Panel.Rows * ActivationLayout.BlockInputs);
            return MaskBytes + all.Length - all.Count(zero);
        }
        int* kept = stackalloc int[ActivationLayout.Groups];
        new Span<int>(kept, ActivationLayout.Groups).Clear();
        for (int i = 0; i < Panel.Rows * ActivationLayout.Groups; i++)
        {
            // Of four codes those that are not zero have their top bit, or carry into it.
            uint four = ((uint*)codes)[i] ^ (zero * 0x01010101u);
            kept[i % ActivationLayout.Groups] += BitOperations.PopCount(((four & 0x7F7F7F7F) + 0x7F7F7F7F | four) & 0x80808080);
        }
        int bytes = MaskBytes + Pairs;
        for (int pair = 0; pair < Pairs; pair++)
        {
            bytes += Math.Max(kept[pair], kept[pair + Pairs]);
        }
        return bytes;
    }

    /// <summary>Writes the codes of a group that are not zero one after another, and says how many.</summary>
    /// <param name="codes">[16, 32].</param>
    /// <param name="group">Which group.</param>
    /// <param name="zero">The code of zero.</param>
    /// <param name="mask">Which they are.</param>
    /// <param name="kept">Receives up to 64.</param>
    public static int Pack(byte* codes, int group, byte zero, out ulong mask, byte* kept)
    {
        int count = 0;
        mask = 0;
        for (int row = 0; row < Panel.Rows; row++)
        {
            byte* four = codes + row * ActivationLayout.BlockInputs + group * ActivationLayout.GroupInputs;
            for (int i = 0; i < ActivationLayout.GroupInputs; i++)
            {
                if (four[i] != zero)
                {
                    mask |= 1ul << (row * ActivationLayout.GroupInputs + i);
                    kept[count++] = four[i];
                }
            }
        }
        return count;
    }

    /// <summary>Writes a group out to 64 bytes, without instructions for it.</summary>
    /// <param name="mask">Which of them are kept.</param>
    /// <param name="kept">The kept codes, in <paramref name="field"/> bits above <paramref name="shift"/>.</param>
    /// <param name="shift">0, or 4 for high nibbles.</param>
    /// <param name="field">The bits of a code.</param>
    /// <param name="zero">What the others are.</param>
    /// <param name="group">[16, 4].</param>
    public static void Expand(ulong mask, byte* kept, int shift, byte field, byte zero, byte* group)
    {
        new Span<byte>(group, Panel.GroupBytes).Fill(zero);
        for (; mask != 0; mask &= mask - 1)
        {
            group[BitOperations.TrailingZeroCount(mask)] = (byte)(*kept++ >> shift & field);
        }
    }

    /// <summary>A mask with a byte for each bit.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<byte> Bytes(ulong mask)
    {
        // Byte i takes the byte of the mask that has its bit, and of that the bit.
        Vector512<byte> places = Vector512.Create(
            0ul, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303, 0x0404040404040404, 0x0505050505050505, 0x0606060606060606, 0x0707070707070707).AsByte();
        Vector512<byte> bit = Vector512.Create(0x8040201008040201ul).AsByte();
        return Vector512.Equals(Avx512BW.Shuffle(Vector512.Create(mask).AsByte(), places) & bit, bit);
    }

    /// <summary>Asks for what will be expanded soon: tiles are unpacked in turn with products, and would wait for memory.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Prefetch(byte* kept)
    {
        if (Sse.IsSupported)
        {
            Sse.Prefetch0(kept + PrefetchDistance);
        }
    }
}
