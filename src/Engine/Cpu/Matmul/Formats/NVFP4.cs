using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
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

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(byte* unit, float* scales, int second, int stride)
    {
        for (int group = 0; group < NVFP4Format.Groups; group++)
        {
            byte* codes = unit + group * Panel.Rows;
            float* target = scales + group / 2 * stride + group % 2 * second;
            if (Avx512F.IsSupported)
            {
                Vector512<int> bits = Avx512F.ConvertToVector512Int32(Vector128.Load(codes));
                Vector512<float> halves = ((bits & Vector512.Create(0x7F)) << SmallFloats.E4M3Shift).AsSingle() * Vector512.Create(SmallFloats.E4M3Factor / 2);
                Vector512.AndNot(halves, Vector512.Equals(bits, Vector512.Create((int)NVFP4Format.NaNScale)).AsSingle()).Store(target);
            }
            else
            {
                UnpackPortable(codes, target);
            }
        }
    }

    /// <summary>Halves of the numbers of 16 rows, in vectors of any processor. Exponent and mantissa are moved as <see cref="SmallFloats"/> has it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void UnpackPortable(byte* codes, float* target)
    {
        for (int row = 0; row < Panel.Rows; row += 8)
        {
            Vector256<int> bits = Widening.ToInt32(codes + row);
            Vector256<float> halves = ((bits & Vector256.Create(0x7F)) << SmallFloats.E4M3Shift).AsSingle() * Vector256.Create(SmallFloats.E4M3Factor / 2);
            Vector256.AndNot(halves, Vector256.Equals(bits, Vector256.Create((int)NVFP4Format.NaNScale)).AsSingle()).Store(target + row);
        }
    }
}
