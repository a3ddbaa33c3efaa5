using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>A kernel that can be called: machine code or a method.</summary>
internal readonly unsafe struct KernelPointer
{
    private static readonly ConcurrentDictionary<object, nint> assembled = new();
    private readonly nint address;
    private readonly bool machineCode;

    private KernelPointer(nint address, bool machineCode)
    {
        this.address = address;
        this.machineCode = machineCode;
    }

    /// <summary>The kernel of an instruction set; assembled on first use and kept.</summary>
    public static KernelPointer For(BlockKernel kernel, MatmulInstructions instructions) => instructions switch
    {
        MatmulInstructions.Avx512Vnni or MatmulInstructions.Avx512Bf16 when MatmulInstructionSupport.Assembles(kernel.Sparsity) =>
            new(Assembled(kernel with { CodeBits = kernel.Bits }), true),
        >= MatmulInstructions.Avx512 => Managed(&IntrinsicBlockKernel<Avx512Lanes, Vector512<byte>>.Run),
        MatmulInstructions.AvxVnni => Managed(&IntrinsicBlockKernel<AvxVnniLanes, Vector256<byte>>.Run),
        MatmulInstructions.Avx2 => Managed(&IntrinsicBlockKernel<Avx2Lanes, Vector256<byte>>.Run),
        MatmulInstructions.ArmDot => Managed(&IntrinsicBlockKernel<ArmDotLanes, Vector128<byte>>.Run),
        _ => Managed(&IntrinsicBlockKernel<PortableLanes, Vector128<byte>>.Run),
    };

    /// <summary>The kernel of an instruction set for a float format.</summary>
    public static KernelPointer For<TFormat>(FloatKernel kernel, MatmulInstructions instructions)
        where TFormat : IFloatFormat =>
        instructions is MatmulInstructions.Avx512Vnni or MatmulInstructions.Avx512Bf16
            ? Assembled(kernel)
            : Managed(&IntrinsicFloatKernel<TFormat>.Run);

    /// <summary>The kernel with scales for a float format, where the instruction set has one.</summary>
    public static KernelPointer? Scaled(FloatKernel kernel, MatmulInstructions instructions) =>
        instructions is MatmulInstructions.Avx512Vnni or MatmulInstructions.Avx512Bf16 ? Assembled(kernel) : null;

    /// <summary>The kernel of an instruction set for masked floats; without the instructions it can be assembled of, only that which expands them.</summary>
    public static KernelPointer For<TFormat>(MaskedFloatKernel kernel, MatmulInstructions instructions)
        where TFormat : IFloatFormat =>
        instructions.ExpandsWords()
            ? new(assembled.GetOrAdd(kernel, static key => ExecutableMemory.Place(MaskedFloatKernelAssembler.Assemble((MaskedFloatKernel)key))), true)
            : kernel.Expands ? Managed(&PortableExpansion<TFormat>.Run)
            : throw new ArgumentException("masked floats are not multiplied in these instructions", nameof(instructions));

    /// <summary>Calls the kernel.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Run(KernelArguments* arguments)
    {
        if (machineCode)
        {
            // A call lasts microseconds, so it need not tell the collector that it left managed code.
            ((delegate* unmanaged[SuppressGCTransition]<KernelArguments*, void>)address)(arguments);
        }
        else
        {
            ((delegate*<KernelArguments*, void>)address)(arguments);
        }
    }

    private static KernelPointer Assembled(FloatKernel kernel) =>
        new(assembled.GetOrAdd(kernel, static key => ExecutableMemory.Place(FloatKernelAssembler.Assemble((FloatKernel)key))), true);

    private static nint Assembled(BlockKernel kernel) =>
        assembled.GetOrAdd(kernel, static key => ExecutableMemory.Place(BlockKernelAssembler.Assemble((BlockKernel)key)));

    private static KernelPointer Managed(delegate*<KernelArguments*, void> method) => new((nint)method, false);
}
