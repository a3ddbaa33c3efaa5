using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>As <see cref="MXFP4"/>, 64 inputs.</summary>
internal unsafe struct NVFP4 : IBlockFormat
{
    public static DType DType => DType.NVFP4;
    public static int OffsetShift => E2M1Table.OffsetShift;

    public static void ReadCodes(byte* block, byte* codes) => NVFP4Format.ReadCodes(
        new ReadOnlySpan<byte>(block, NVFP4Format.BlockBytes), new Span<byte>(codes, NVFP4Format.BlockElements));
}

/// <summary>NVFP4: an 8-bit float per 16 inputs, unpacked to half of it. A unit is [4, 16].</summary>
internal unsafe struct HalfBlockSmallFloats : IFileScales
{
    public static int BlocksPerUnit => NVFP4Format.BlockElements / ActivationLayout.BlockInputs;
    public static int UnitBytes => NVFP4Format.Groups * Panel.Rows;
    public static bool HasMinimum => false;
    public static bool HalfBlocks => true;

    public static void Pack(byte* block, byte* unit, int row)
    {
        for (int group = 0; group < NVFP4Format.Groups; group++)
        {
            unit[group * Panel.Rows + row] = block[group];
        }
    }

    /// <summary>Exponent and mantissa are moved to those of float32, and a product with 2^(127 − 7 − 1) corrects the bias; it is exact, also for subnormals.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        for (int half = 0; half < Panel.Rows; half += 8)
        {
            for (int group = 0; group < NVFP4Format.Groups; group++)
            {
                Vector256<int> bits = Widening.ToInt32(unit + group * Panel.Rows + half);
                Vector256<float> scale = ((bits & Vector256.Create(0x7F)) << 20).AsSingle() * Vector256.Create(BitConverter.UInt32BitsToSingle(0x7B000000u));
                scale = Vector256.AndNot(scale, Vector256.Equals(bits, Vector256.Create((int)NVFP4Format.NaNScale)).AsSingle());
                scale.Store(scales + group / 2 * stride + group % 2 * second + half);
            }
        }
    }
}
