using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>A float16 scale per block: d at the start of the file's block.</summary>
internal unsafe struct BlockScales : IFileScales
{
    public static int BlocksPerUnit => 1;
    public static int UnitBytes => Panel.Rows * 2;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => false;

    public static void Pack(byte* block, byte* unit, int row) => ((ushort*)unit)[row] = *(ushort*)block;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride) => HalfFloats.Widen((ushort*)unit, scales);
}

/// <summary>A power of two per block, 2^(e − 127), e at the start of the file's block; unpacked to half of it (<see cref="MXFP4"/>).</summary>
internal unsafe struct BlockPowers : IFileScales, IGroupScales
{
    private const int HalfBias = 128;

    public static int BlocksPerUnit => 1;
    public static int UnitBytes => Panel.Rows;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => false;
    public static int GroupInputs => ActivationLayout.BlockInputs;

    /// <summary>A scale, half of the file's, is a power of two in range.</summary>
    public static bool Holds(float scale) =>
        scale > 0 && MathF.ScaleB(1, MathF.ILogB(scale)) == scale && MathF.ILogB(scale) is >= -HalfBias and < byte.MaxValue - HalfBias;

    public static void Pack(byte* block, byte* unit, int row) => unit[row] = *block;

    public static void Store(byte* unit, int group, int row, float scale, int zero, float factor) => unit[row] = (byte)(MathF.ILogB(scale) + HalfBias);

    /// <summary>e − 1 is the exponent field of 2^(e − 128); below e = 2 the number is subnormal.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        for (int half = 0; half < Panel.Rows; half += 8)
        {
            Vector256<int> e = Widening.ToInt32(unit + half), one = Vector256<int>.One;
            Vector256<int> bits = Vector256.ConditionalSelect(Vector256.LessThan(e, one + one), (e + one) << 21, (e - one) << 23);
            bits.AsSingle().Store(scales + half);
        }
    }
}

/// <summary>A float16 scale and minimum per block: d, m at the start of the file's block.</summary>
internal unsafe struct BlockScalesAndMinima : IFileScales
{
    public static int BlocksPerUnit => 1;
    public static int UnitBytes => Panel.Rows * 4;
    public static bool HasMinimum => true;
    public static bool HalfBlocks => false;

    public static void Pack(byte* block, byte* unit, int row)
    {
        ((ushort*)unit)[row] = ((ushort*)block)[0];
        ((ushort*)unit)[Panel.Rows + row] = ((ushort*)block)[1];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        HalfFloats.Widen((ushort*)unit, scales);
        HalfFloats.Widen((ushort*)unit + Panel.Rows, scales + second);
    }
}

/// <summary>
/// Q4_K and Q5_K: float16 d and dmin per 256 inputs, 6-bit scale s and minimum m per 32: weight = d·s·code − dmin·m. A unit is [16] d, [16] dmin,
/// [8, 16] bytes of the low nibbles (m high, s low) and [4, 16] bytes of the upper bit pairs (s, m of an even block, s, m of the odd one).
/// </summary>
internal unsafe struct SuperBlockScalesAndMinima : IFileScales
{
    /// <summary>Where in a unit the nibbles are, and the pairs of upper bits.</summary>
    public const int Nibbles = 4 * Panel.Rows, Pairs = Nibbles + 8 * Panel.Rows;

    public static int BlocksPerUnit => 8;
    public static int UnitBytes => Pairs + 4 * Panel.Rows;
    public static bool HasMinimum => true;
    public static bool HalfBlocks => false;

    public static void Pack(byte* block, byte* unit, int row)
    {
        ((ushort*)unit)[row] = ((ushort*)block)[0];
        ((ushort*)unit)[Panel.Rows + row] = ((ushort*)block)[1];
        byte* packed = block + 4;
        for (int group = 0; group < 8; group++)
        {
            int scale = group < 4 ? packed[group] & 63 : (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
            int minimum = group < 4 ? packed[group + 4] & 63 : (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
            unit[Nibbles + group * Panel.Rows + row] = (byte)((scale & 15) | (minimum << 4));
            byte* pair = unit + Pairs + group / 2 * Panel.Rows + row;
            int bits = (scale >> 4) | (minimum >> 4 << 2);
            *pair = (byte)(group % 2 == 0 ? bits : *pair | (bits << 4));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        if (Avx512F.IsSupported)
        {
            UnpackAvx512(unit, scales, second, stride);
        }
        else
        {
            UnpackPortable(unit, scales, second, stride);
        }
    }

    /// <summary>The definition, in vectors of any processor.</summary>
    internal static void UnpackPortable(byte* unit, float* scales, int second, int stride)
    {
        for (int half = 0; half < Panel.Rows; half += 8)
        {
            Vector256<float> d = HalfFloats.Widen((ushort*)unit + half), negativeMinimum = -HalfFloats.Widen((ushort*)unit + Panel.Rows + half);
            Vector256<int> low = Vector256.Create(15), high = Vector256.Create(0x30);
            for (int group = 0; group < 8; group++)
            {
                Vector256<int> nibbles = Widening.ToInt32(unit + Nibbles + group * Panel.Rows + half);
                Vector256<int> bits = Widening.ToInt32(unit + Pairs + group / 2 * Panel.Rows + half);
                Vector256<int> even = group % 2 == 0 ? bits << 4 : bits, odd = group % 2 == 0 ? bits << 2 : bits >>> 2;
                Vector256<int> scale = (nibbles & low) | (even & high), minimum = (nibbles >>> 4) | (odd & high);
                (Vector256.ConvertToSingle(scale) * d).Store(scales + group * stride + half);
                (Vector256.ConvertToSingle(minimum) * negativeMinimum).Store(scales + group * stride + second + half);
            }
        }
    }

    /// <summary>The same on 512-bit vectors: with one token unpacking would otherwise take a third of a product's instructions.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void UnpackAvx512(byte* unit, float* scales, int second, int stride)
    {
        Vector512<float> d = HalfFloats.WidenAvx512((ushort*)unit), negativeMinimum = -HalfFloats.WidenAvx512((ushort*)unit + Panel.Rows);
        Vector512<int> low = Vector512.Create(15), high = Vector512.Create(0x30);
        for (int group = 0; group < 8; group++)
        {
            Vector512<int> nibbles = Avx512F.ConvertToVector512Int32(Vector128.Load(unit + Nibbles + group * Panel.Rows));
            Vector512<int> bits = Avx512F.ConvertToVector512Int32(Vector128.Load(unit + Pairs + group / 2 * Panel.Rows));
            Vector512<int> even = group % 2 == 0 ? bits << 4 : bits, odd = group % 2 == 0 ? bits << 2 : bits >>> 2;
            Vector512<int> scale = (nibbles & low) | (even & high), minimum = (nibbles >>> 4) | (odd & high);
            (Vector512.ConvertToSingle(scale) * d).Store(scales + group * stride);
            (Vector512.ConvertToSingle(minimum) * negativeMinimum).Store(scales + group * stride + second);
        }
    }
}

/// <summary>Q6_K: a float16 d per 256 inputs and a signed 8-bit scale per 16. A unit is [16] d and [16, 16] scales.</summary>
internal unsafe struct SuperBlockHalfScales : IFileScales
{
    /// <summary>Where in a unit the scales are.</summary>
    public const int Signed = 2 * Panel.Rows;

    private const int FileScales = 192, FileD = 208;

    public static int BlocksPerUnit => 8;
    public static int UnitBytes => Signed + 16 * Panel.Rows;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => true;

    public static void Pack(byte* block, byte* unit, int row)
    {
        ((ushort*)unit)[row] = *(ushort*)(block + FileD);
        for (int group = 0; group < 16; group++)
        {
            unit[Signed + group * Panel.Rows + row] = block[FileScales + group];
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        Vector512<float> d;
        HalfFloats.Widen((ushort*)unit, (float*)&d);
        for (int group = 0; group < 16; group++)
        {
            ScaledRows.Signed((sbyte*)unit + Signed + group * Panel.Rows, (float*)&d, scales + group / 2 * stride + group % 2 * second);
        }
    }
}
