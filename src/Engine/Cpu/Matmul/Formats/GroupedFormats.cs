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
        DTypeInfo info = TFormat.DType.Info();
        TFormat.ReadCodes(new ReadOnlySpan<byte>(block, info.BlockBytes), new Span<byte>(codes, info.BlockElements));
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

    public static int BlocksPerUnit => TFormat.DType.Info().BlockElements / ActivationLayout.BlockInputs;
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
        int parts = HalfBlocks ? 2 : 1;
        for (int half = 0; half < Panel.Rows; half += 8)
        {
            Vector256<float> d = HalfFloats.Widen((ushort*)unit + half) * Vector256.Create(TFormat.Factor);
            for (int group = 0; group < BlocksPerUnit * parts; group++)
            {
                Vector256<float> scale = TFormat.Groups == 1 ? d : Vector256.ConvertToSingle(Integers(unit, group, half)) * d;
                scale.Store(scales + group / parts * stride + group % parts * second + half);
            }
        }
    }

    /// <summary>s of 8 rows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Integers(byte* unit, int group, int firstRow)
    {
        if (!TFormat.ScalesAreOdd)
        {
            return Widening.SignedToInt32((sbyte*)unit + Signed + group * Panel.Rows + firstRow);
        }
        Vector256<int> pair = Widening.ToInt32(unit + Signed + group / 2 * Panel.Rows + firstRow);
        return ((group % 2 == 0 ? pair & Vector256.Create(15) : pair >>> 4) << 1) | Vector256<int>.One;
    }
}
