using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Instruction sets that there are kernels for, from the least to the most able. All give bit-equal results, but that VDPBF16PS takes subnormal
/// numbers for zero.
/// </summary>
internal enum MatmulInstructions
{
    /// <summary>128-bit vectors of any processor.</summary>
    Portable,
    /// <summary>ARM AdvSimd with the dot product extension.</summary>
    ArmDot,
    /// <summary>256-bit integer vectors.</summary>
    Avx2,
    /// <summary>256-bit VPDPBUSD.</summary>
    AvxVnni,
    /// <summary>512-bit integer vectors (AVX-512 F and BW).</summary>
    Avx512,
    /// <summary>512-bit VPDPBUSD, assembled at start-up.</summary>
    Avx512Vnni,
    /// <summary>The same, with 512-bit VDPBF16PS for activations rounded to bfloat16.</summary>
    Avx512Bf16,
}

/// <summary>What this processor and system support.</summary>
internal static class MatmulInstructionSupport
{
    private static readonly bool avx512Vnni = DetectAvx512Vnni();

    /// <summary>The best supported.</summary>
    public static MatmulInstructions Best { get; } = Enum.GetValues<MatmulInstructions>().Last(static set => set.IsSupported());

    /// <summary>Whether kernels of a set can run here.</summary>
    public static bool IsSupported(this MatmulInstructions set) => set switch
    {
        MatmulInstructions.Portable => true,
        MatmulInstructions.ArmDot => Dp.IsSupported,
        MatmulInstructions.Avx2 => Avx2.IsSupported && Fma.IsSupported,
        MatmulInstructions.AvxVnni => AvxVnni.IsSupported,
        MatmulInstructions.Avx512 => Avx512BW.IsSupported,
        MatmulInstructions.Avx512Vnni => avx512Vnni,
        MatmulInstructions.Avx512Bf16 => avx512Vnni && HasBf16(),
        _ => throw new ArgumentOutOfRangeException(nameof(set)),
    };

    /// <summary>
    /// Kernels without zeros can be assembled, where 512-bit VPDPBUSD is there: those of 2:4 need VPMULTISHIFTQB (AVX-512 VBMI), others VPEXPANDB (AVX-512 VBMI2).
    /// </summary>
    public static bool Assembles(CodeSparsity sparsity) => sparsity switch
    {
        CodeSparsity.TwoOfFour => Avx512Vbmi.IsSupported,
        CodeSparsity.Unstructured => Avx512Vbmi2.IsSupported,
        _ => true,
    };

    /// <summary>512-bit VPEXPANDW (AVX-512 VBMI2) in assembled kernels, which puts masked floats to their places.</summary>
    public static bool ExpandsWords(this MatmulInstructions set) =>
        set is MatmulInstructions.Avx512Vnni or MatmulInstructions.Avx512Bf16 && Avx512Vbmi2.IsSupported;

    /// <summary>AVX512_BF16 is CPUID leaf 7, subleaf 1, EAX bit 5; subleaf 0 says in EAX which subleaves there are.</summary>
    private static bool HasBf16() => X86Base.CpuId(7, 0).Eax >= 1 && (X86Base.CpuId(7, 1).Eax & (1 << 5)) != 0;

    private static bool DetectAvx512Vnni()
    {
        // Avx512F.IsSupported also says that the system saves the registers; VNNI itself is CPUID leaf 7, ECX bit 11.
        if (RuntimeInformation.ProcessArchitecture != Architecture.X64 || !Avx512BW.IsSupported || X86Base.CpuId(0, 0).Eax < 7
            || (X86Base.CpuId(7, 0).Ecx & (1 << 11)) == 0)
        {
            return false;
        }
        try
        {
            const byte Return = 0xC3;
            ExecutableMemory.Place([Return]);
            return true;
        }
        catch (Win32Exception)
        {
            return false; // A hardened process may not make code; the intrinsics serve.
        }
    }
}
