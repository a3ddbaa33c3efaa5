using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>
/// 8-bit codes of which every row keeps two of four neighbours, the others being the code of zero, 128: 10 bits for 2 codes instead of 16. A block is a line of
/// places and four lines of kept codes (<see cref="SparseGroups"/>).
/// </summary>
internal unsafe struct SparseCodes8 : ICodes
{
    public static int Bits => 8;
    public static int UnpackedBits => 8;
    public static CodeSparsity Sparsity => CodeSparsity.TwoOfFour;

    public static void Pack(byte* codes, byte* packed) => SparseGroups.Pack(codes, 1 << 7, (uint*)packed, packed + SparseGroups.PlaceBytes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        for (int step = 0; step < SparseGroups.Steps; step++)
        {
            byte* kept = packed + SparseGroups.PlaceBytes + step * Panel.GroupBytes;
            SparseGroups.Expand((uint*)packed, kept, 0, 0xFF, 1 << 7, groups, groupStride, step);
        }
    }
}

/// <summary>
/// As <see cref="SparseCodes8"/>, of 4-bit codes with zero at 8: 6 bits for 2 codes instead of 8. Of the two lines of kept codes, low nibbles are steps 0 and 1,
/// high ones steps 2 and 3.
/// </summary>
internal unsafe struct SparseCodes4 : ICodes
{
    public static int Bits => 4;
    public static int UnpackedBits => 4;
    public static CodeSparsity Sparsity => CodeSparsity.TwoOfFour;

    public static void Pack(byte* codes, byte* packed)
    {
        const int HalfBytes = SparseGroups.Steps / 2 * Panel.GroupBytes;
        byte* kept = stackalloc byte[2 * HalfBytes];
        SparseGroups.Pack(codes, 1 << 3, (uint*)packed, kept);
        for (int i = 0; i < HalfBytes; i++)
        {
            packed[SparseGroups.PlaceBytes + i] = (byte)(kept[i] | kept[HalfBytes + i] << 4);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        for (int step = 0; step < SparseGroups.Steps; step++)
        {
            byte* kept = packed + SparseGroups.PlaceBytes + step % 2 * Panel.GroupBytes;
            SparseGroups.Expand((uint*)packed, kept, step / 2 * 4, 15, 1 << 3, groups, groupStride, step);
        }
    }
}

/// <summary>4-bit floats as <see cref="SparseCodes4"/>, whose code of zero is that of −0; they unpack to integers (<see cref="E2M1Table"/>).</summary>
internal unsafe struct SparseCodesE2M1 : ICodes
{
    private const int Magnitude = 7;

    public static int Bits => SparseCodes4.Bits;
    public static int UnpackedBits => E2M1Table.Bits;
    public static CodeSparsity Sparsity => CodeSparsity.TwoOfFour;
    public static UInt128 Table => CodesE2M1.Table;

    public static void Pack(byte* codes, byte* packed)
    {
        byte* zeros = stackalloc byte[Panel.Rows * ActivationLayout.BlockInputs];
        for (int i = 0; i < Panel.Rows * ActivationLayout.BlockInputs; i++)
        {
            zeros[i] = (codes[i] & Magnitude) == 0 ? E2M1Table.NegativeZero : codes[i];
        }
        SparseCodes4.Pack(zeros, packed);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* packed, byte* groups, int groupStride)
    {
        SparseCodes4.Unpack(packed, groups, groupStride);
        CodeLookup.LookUp(Table, groups, groupStride);
    }
}

/// <summary>
/// Blocks of [16 rows, 32 inputs] of which each row keeps two of every four inputs. Places come first: per row 32 bits, of which nibble g holds the first place
/// kept of group g in its lower two bits and the second, greater one in its upper two, as the sparse tensor cores of GPUs have it. Kept codes come in steps of
/// two groups: per row the two of the even group, then those of the odd one.
/// </summary>
internal static unsafe class SparseGroups
{
    /// <summary>Inputs of a row that share the rule.</summary>
    public const int Inputs = 4;

    /// <summary>Inputs of them that are kept.</summary>
    public const int Kept = 2;

    /// <summary>Steps of a block, of two groups each.</summary>
    public const int Steps = ActivationLayout.Groups / 2;

    /// <summary>Bytes of the places of a block.</summary>
    public const int PlaceBytes = Panel.Rows * sizeof(uint);

    /// <summary>
    /// By nibble of places: for each of four inputs which of the two kept codes it is, 0 or 1, or 0x80 for neither: what a byte shuffle wants. Nibbles that are no
    /// places are 0.
    /// </summary>
    public static ReadOnlySpan<uint> Shuffles =>
    [
        0, 0, 0, 0, 0x80800100, 0, 0, 0, 0x80018000, 0x80010080, 0, 0, 0x01808000, 0x01800080, 0x01008080, 0,
    ];

    /// <summary>At most two of every four neighbours are other than <paramref name="zero"/>.</summary>
    /// <param name="codes">A row, a multiple of 4 but for its end, which may have fewer.</param>
    /// <param name="zero">The code of zero.</param>
    public static bool Conform(ReadOnlySpan<byte> codes, byte zero)
    {
        for (int i = 0; i < codes.Length; i += Inputs)
        {
            ReadOnlySpan<byte> group = codes.Slice(i, Math.Min(Inputs, codes.Length - i));
            if (group.Length - group.Count(zero) > Kept)
            {
                return false;
            }
        }
        return true;
    }

    /// <summary>
    /// Packs the codes [16, 32] of a block, all of whose rows conform. Where fewer than two are other than zero, zeros are kept to make two.
    /// </summary>
    /// <param name="codes">[16, 32].</param>
    /// <param name="zero">The code of zero.</param>
    /// <param name="places">[16].</param>
    /// <param name="kept">[<see cref="Steps"/>, 16, 4].</param>
    public static void Pack(byte* codes, byte zero, uint* places, byte* kept)
    {
        for (int row = 0; row < Panel.Rows; row++)
        {
            uint all = 0;
            for (int group = 0; group < ActivationLayout.Groups; group++)
            {
                byte* four = codes + row * ActivationLayout.BlockInputs + group * Inputs;
                int first = 0, last = Inputs - 1;
                while (first < Kept && four[first] == zero)
                {
                    first++;
                }
                while (last > first + 1 && four[last] == zero)
                {
                    last--;
                }
                for (int i = first + 1; i < last; i++)
                {
                    if (four[i] != zero)
                    {
                        throw new InvalidOperationException("more than two of four neighbours are not zero");
                    }
                }
                all |= (uint)(first | last << 2) << (4 * group);
                byte* target = kept + (group / 2 * Panel.Rows + row) * 4 + group % 2 * Kept;
                target[0] = four[first];
                target[1] = four[last];
            }
            places[row] = all;
        }
    }

    /// <summary>Writes the two groups of a step out to 64 bytes each.</summary>
    /// <param name="places">[16].</param>
    /// <param name="kept">[16, 4], codes in <paramref name="mask"/> bits above <paramref name="shift"/>.</param>
    /// <param name="shift">0, or 4 for high nibbles.</param>
    /// <param name="mask">The bits of a code.</param>
    /// <param name="zero">The code of zero.</param>
    /// <param name="groups">The block's groups, <paramref name="groupStride"/> bytes apart.</param>
    /// <param name="groupStride">Bytes from a group to the next.</param>
    /// <param name="step">Which.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Expand(uint* places, byte* kept, int shift, byte mask, byte zero, byte* groups, int groupStride, int step)
    {
        byte* even = groups + 2 * step * groupStride, odd = even + groupStride;
        if (Avx512BW.IsSupported)
        {
            Vector512<byte> zeros = Vector512.Create(zero);
            Vector512<byte> codes = (Vector512.ShiftRightLogical(Vector512.Load((ushort*)kept), shift).AsByte() & Vector512.Create(mask)) ^ zeros;
            Vector512<uint> table = Vector512.Create(Shuffles), all = Vector512.Load(places) >> (8 * step);
            Vector256<uint> rows = Vector256.Create(0u, 0x04040404, 0x08080808, 0x0C0C0C0C, 0u, 0x04040404, 0x08080808, 0x0C0C0C0C);
            Vector512<uint> inLane = Vector512.Create(rows, rows);
            Vector512<uint> evens = Avx512F.PermuteVar16x32(table, all) | inLane;
            Vector512<uint> odds = Avx512F.PermuteVar16x32(table, all >> 4) | inLane | Vector512.Create(0x02020202u);
            (Avx512BW.Shuffle(codes, evens.AsByte()) ^ zeros).Store(even);
            (Avx512BW.Shuffle(codes, odds.AsByte()) ^ zeros).Store(odd);
            return;
        }
        uint fill = zero * 0x01010101u;
        for (int row = 0; row < Panel.Rows; row++)
        {
            uint two = places[row] >> (8 * step), four = (*(uint*)(kept + 4 * row) >> shift & mask * 0x01010101u) ^ fill;
            ((uint*)even)[row] = fill ^ (four & 0xFF) << (int)(8 * (two & 3)) ^ (four >> 8 & 0xFF) << (int)(8 * (two >> 2 & 3));
            ((uint*)odd)[row] = fill ^ (four >> 16 & 0xFF) << (int)(8 * (two >> 4 & 3)) ^ (four >> 24) << (int)(8 * (two >> 6 & 3));
        }
    }
}
