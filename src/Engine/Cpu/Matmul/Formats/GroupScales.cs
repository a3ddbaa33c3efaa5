using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>Scales that are read apart from codes, one per row and group of inputs.</summary>
internal unsafe interface IGroupScales : IScales
{
    /// <summary>Inputs that share a scale.</summary>
    static abstract int GroupInputs { get; }

    /// <summary>Stores the scale of one row.</summary>
    /// <param name="unit">The unit that the group is in.</param>
    /// <param name="group">Which group of the unit.</param>
    /// <param name="row">Which row of the panel.</param>
    /// <param name="scale">The scale of a packed code.</param>
    /// <param name="zero">What the codes of the group exceed the kernels' offset by where they stand for zero, −128 … 127; 0 where there are no minima.</param>
    /// <param name="factor">What <see cref="SmallFloatScales"/> multiply with.</param>
    static abstract void Store(byte* unit, int group, int row, float scale, int zero, float factor);
}

/// <summary>Blocks of 32 inputs that share a scale.</summary>
internal interface IGroupBlocks
{
    /// <summary>How many.</summary>
    static abstract int Count { get; }
}

/// <summary>Groups of 32 inputs.</summary>
internal struct OneBlock : IGroupBlocks
{
    public static int Count => 1;
}

/// <summary>Groups of 64 inputs.</summary>
internal struct TwoBlocks : IGroupBlocks
{
    public static int Count => 2;
}

/// <summary>Groups of 128 inputs, and wider ones whose scale is repeated.</summary>
internal struct FourBlocks : IGroupBlocks
{
    public static int Count => 4;
}

/// <summary>A scale per group of one or more blocks. A unit is a group: [16] scales.</summary>
internal unsafe struct GroupScales<TValue, TBlocks> : IGroupScales
    where TValue : IScaleValue
    where TBlocks : IGroupBlocks
{
    public static int BlocksPerUnit => TBlocks.Count;
    public static int UnitBytes => Panel.Rows * TValue.Bytes;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => false;
    public static int GroupInputs => TBlocks.Count * ActivationLayout.BlockInputs;

    public static void Store(byte* unit, int group, int row, float scale, int zero, float factor) => TValue.Store(scale, unit + row * TValue.Bytes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        TValue.Widen(unit, scales);
        GroupRows.Repeat(scales, TBlocks.Count, stride);
    }
}

/// <summary>The same with zero points: a unit is [16] scales and [16] signed bytes z, and the minimum of a block is −z · scale.</summary>
internal unsafe struct GroupScalesAndZeros<TValue, TBlocks> : IGroupScales
    where TValue : IScaleValue
    where TBlocks : IGroupBlocks
{
    public static int BlocksPerUnit => TBlocks.Count;
    public static int UnitBytes => Panel.Rows * (TValue.Bytes + 1);
    public static bool HasMinimum => true;
    public static bool HalfBlocks => false;
    public static int GroupInputs => TBlocks.Count * ActivationLayout.BlockInputs;

    public static void Store(byte* unit, int group, int row, float scale, int zero, float factor)
    {
        TValue.Store(scale, unit + row * TValue.Bytes);
        ((sbyte*)unit)[Panel.Rows * TValue.Bytes + row] = (sbyte)zero;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        TValue.Widen(unit, scales);
        float* minima = scales + second;
        for (int row = 0; row < Panel.Rows; row += 8)
        {
            Vector256<int> zeros = Widening.SignedToInt32((sbyte*)unit + Panel.Rows * TValue.Bytes + row);
            (Vector256.ConvertToSingle(-zeros) * Vector256.Load(scales + row)).Store(minima + row);
        }
        GroupRows.Repeat(scales, TBlocks.Count, stride);
        GroupRows.Repeat(minima, TBlocks.Count, stride);
    }
}

/// <summary>A scale per 16 inputs. A unit is a block: [2, 16] scales.</summary>
internal unsafe struct HalfBlockScales<TValue> : IGroupScales
    where TValue : IScaleValue
{
    public static int BlocksPerUnit => 1;
    public static int UnitBytes => 2 * Panel.Rows * TValue.Bytes;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => true;
    public static int GroupInputs => ActivationLayout.BlockInputs / 2;

    public static void Store(byte* unit, int group, int row, float scale, int zero, float factor) =>
        TValue.Store(scale, unit + (group * Panel.Rows + row) * TValue.Bytes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        TValue.Widen(unit, scales);
        TValue.Widen(unit + Panel.Rows * TValue.Bytes, scales + second);
    }
}

/// <summary>
/// A scale per 16 inputs that is an 8-bit float S.EEEE.MMM times a factor of the matrix, as NVFP4 has them. A unit is 8 blocks: the factor, then [16, 16] bytes.
/// </summary>
internal unsafe struct SmallFloatScales : IGroupScales
{
    private const int Groups = 16;

    public static int BlocksPerUnit => 8;
    public static int UnitBytes => sizeof(float) + Groups * Panel.Rows;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => true;
    public static int GroupInputs => ActivationLayout.BlockInputs / 2;

    public static void Store(byte* unit, int group, int row, float scale, int zero, float factor)
    {
        *(float*)unit = factor;
        unit[sizeof(float) + group * Panel.Rows + row] = SmallFloats.Nearest(scale / factor);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        float factor = *(float*)unit;
        for (int group = 0; group < Groups; group++)
        {
            byte* codes = unit + sizeof(float) + group * Panel.Rows;
            float* target = scales + group / 2 * stride + group % 2 * second;
            if (Avx512F.IsSupported)
            {
                (SmallFloats.WidenE4M3Avx512(codes) * factor).Store(target);
                continue;
            }
            (SmallFloats.WidenE4M3(codes) * factor).Store(target);
            (SmallFloats.WidenE4M3(codes + 8) * factor).Store(target + 8);
        }
    }
}

/// <summary>Rows of scales.</summary>
internal static unsafe class GroupRows
{
    /// <summary>
    /// Copies the scales of a group's first block to its others. They were written just now as vectors of 256 bits, and are read as such: a wider load would wait
    /// until both are in the cache.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Repeat(float* scales, int blocks, int stride)
    {
        Vector256<float> first = Vector256.Load(scales), second = Vector256.Load(scales + Vector256<float>.Count);
        for (int block = 1; block < blocks; block++)
        {
            first.Store(scales + block * stride);
            second.Store(scales + block * stride + Vector256<float>.Count);
        }
    }
}
