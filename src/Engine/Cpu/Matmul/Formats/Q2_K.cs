using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>d · s · code − dmin · m, 256 inputs.</summary>
internal unsafe struct Q2_K : IBlockFormat
{
    public static DType DType => DType.Q2_K;
    public static int OffsetShift => 0;

    public static void ReadCodes(byte* block, byte* codes)
    {
        for (int i = 0; i < 256; i++)
        {
            codes[i] = (byte)(block[Q2_KFormat.CodesOffset + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3);
        }
    }
}

/// <summary>
/// Q2_K: float16 d and dmin per 256 inputs, 4-bit scale s and minimum m per 16. A unit is [16] d, [16] dmin and [16, 16] bytes (s the low nibble, m the high one).
/// </summary>
internal unsafe struct SuperBlockHalfScalesAndMinima : IFileScales
{
    private const int Nibbles = 4 * Panel.Rows;

    public static int BlocksPerUnit => 8;
    public static int UnitBytes => Nibbles + 16 * Panel.Rows;
    public static bool HasMinimum => true;
    public static bool HalfBlocks => true;

    public static void Pack(byte* block, byte* unit, int row)
    {
        ((ushort*)unit)[row] = *(ushort*)(block + Q2_KFormat.ScaleOffset);
        ((ushort*)unit)[Panel.Rows + row] = *(ushort*)(block + Q2_KFormat.MinimumOffset);
        for (int group = 0; group < 16; group++)
        {
            unit[Nibbles + group * Panel.Rows + row] = block[group];
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        Vector512<float> d, negativeMinimum;
        HalfFloats.Widen((ushort*)unit, (float*)&d);
        HalfFloats.Widen((ushort*)unit + Panel.Rows, (float*)&negativeMinimum);
        negativeMinimum = -negativeMinimum;
        for (int group = 0; group < 16; group++)
        {
            byte* nibbles = unit + Nibbles + group * Panel.Rows;
            float* target = scales + group / 2 * stride + group % 2 * second;
            ScaledRows.Nibbles(nibbles, 0, false, (float*)&d, target);
            ScaledRows.Nibbles(nibbles, 4, false, (float*)&negativeMinimum, target + 2 * second);
        }
    }
}
