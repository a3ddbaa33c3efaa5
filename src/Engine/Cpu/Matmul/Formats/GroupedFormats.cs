using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>The codes of a grouped format, whose offset is that of <see cref="UnsignedValues{TFormat}"/>.</summary>
internal unsafe struct GroupedBlocks<TFormat> : IBlockFormat
    where TFormat : IGroupedFormat
{
    public static DType DType => TFormat.DType;
    public static int OffsetShift => UnsignedValues<TFormat>.OffsetShift;

    public static void ReadCodes(byte* block, byte* codes)
    {
        TFormat.ReadCodes(new ReadOnlySpan<byte>(block, TFormat.DType.Info().BlockBytes), new Span<byte>(codes, TFormat.Elements));
    }
}

/// <summary>
/// The scales of a grouped format: a float16 d per block of the file and an integer s per group, where a block has several: scale = d · factor · s. A unit is [16] d
/// and [groups, 16] s as signed bytes; odd ones as [groups / 2, 16] bytes of (s − 1) / 2, that of an even group the low nibble.
/// </summary>
internal unsafe struct GroupedScales<TFormat> : IFileScales
    where TFormat : IGroupedFormat
{
    private const int Signed = SuperBlockHalfScales.Signed;

    public static int BlocksPerUnit => TFormat.Elements / ActivationLayout.BlockInputs;
    public static int UnitBytes => Signed + (TFormat.Groups == 1 ? 0 : TFormat.ScalesAreOdd ? TFormat.Groups / 2 * Panel.Rows : TFormat.Groups * Panel.Rows);
    public static bool HasMinimum => false;
    public static bool HalfBlocks => TFormat.Groups > BlocksPerUnit;

    public static void Pack(byte* block, byte* unit, int row)
    {
        var source = new ReadOnlySpan<byte>(block, TFormat.DType.Info().BlockBytes);
        ((ushort*)unit)[row] = TFormat.ReadScale(source);
        if (TFormat.Groups > 1)
        {
            Span<sbyte> scales = stackalloc sbyte[TFormat.Groups];
            TFormat.ReadScales(source, scales);
            for (int group = 0; group < scales.Length; group++)
            {
                if (TFormat.ScalesAreOdd)
                {
                    byte* pair = unit + Signed + group / 2 * Panel.Rows + row;
                    *pair = (byte)(group % 2 == 0 ? scales[group] >> 1 : *pair | scales[group] >> 1 << 4);
                }
                else
                {
                    unit[Signed + group * Panel.Rows + row] = (byte)scales[group];
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        Vector512<float> factors;
        float* d = TFormat.Groups == 1 ? scales : (float*)&factors;
        HalfFloats.Widen((ushort*)unit, d);
        if (TFormat.Factor != 1)
        {
            (Vector512.Load(d) * TFormat.Factor).Store(d);
        }
        if (TFormat.Groups == 1)
        {
            GroupRows.Repeat(scales, BlocksPerUnit, stride);
            return;
        }
        for (int group = 0; group < TFormat.Groups; group++)
        {
            float* target = HalfBlocks ? scales + group / 2 * stride + group % 2 * second : scales + group * stride;
            if (TFormat.ScalesAreOdd)
            {
                ScaledRows.Nibbles(unit + Signed + group / 2 * Panel.Rows, group % 2 * 4, true, d, target);
            }
            else
            {
                ScaledRows.Signed((sbyte*)unit + Signed + group * Panel.Rows, d, target);
            }
        }
    }
}
