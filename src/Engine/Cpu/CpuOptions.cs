using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;
using Engine.Execution;

namespace Engine.Cpu;

/// <summary>Instruction sets that kernels are compiled for, from the narrowest to the widest.</summary>
public enum InstructionSet
{
    /// <summary>128-bit vectors by whatever means .NET has.</summary>
    Portable,
    /// <summary>ARM: 128-bit vectors.</summary>
    AdvSimd,
    /// <summary>x64: 256-bit vectors and fused multiply-add.</summary>
    Avx2,
    /// <summary>x64: 512-bit vectors.</summary>
    Avx512,
}

/// <summary>How the CPU backend works.</summary>
public sealed record CpuOptions
{
    /// <summary>More threads than this are a mistake.</summary>
    internal const int LargestTeam = 1024;

    /// <summary>Threads that compute, 1 to 1024; null for one per processor.</summary>
    public int? Threads { get; init; }

    /// <summary>The widest instruction set that may be used; null for the best there is.</summary>
    public InstructionSet? Limit { get; init; }

    /// <summary>Precision of activations that are multiplied with weights stored as BF16.</summary>
    public ActivationPrecision ActivationPrecision { get; init; }

    /// <summary>
    /// Bytes that packed experts of mixtures of experts may take; those not used for longest are let go, and read again from the file when a token needs them.
    /// Null keeps all, packed while loading.
    /// </summary>
    public long? ExpertBytes { get; init; }

    /// <summary>Instruction sets of this machine, narrowest first.</summary>
    public static IReadOnlyList<InstructionSet> Available { get; } = [.. Enum.GetValues<InstructionSet>().Where(IsSupported)];

    /// <summary>Starts a backend; the caller disposes it.</summary>
    /// <exception cref="EngineException">An option is out of range.</exception>
    public IBackend CreateBackend() => new CpuBackend(this);

    /// <summary>The widest instruction set that this machine has and <see cref="Limit"/> permits.</summary>
    internal InstructionSet InstructionSet => Available.Last(set => Limit is not { } limit || set <= limit);

    private static bool IsSupported(InstructionSet set) => set switch
    {
        InstructionSet.Portable => true,
        InstructionSet.AdvSimd => AdvSimd.Arm64.IsSupported,
        InstructionSet.Avx2 => Avx2.IsSupported && Fma.IsSupported,
        // Not on processors that lower their clock for wide vectors: there .NET says that 512 bits are not accelerated.
        InstructionSet.Avx512 => Vector512.IsHardwareAccelerated && Avx512BW.IsSupported,
        _ => false,
    };
}
