using System.Numerics;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Which kernel for 16-bit floats of which zeros are left out. Masks are 32 bits for a pair of inputs of a panel: a bit for each element of that pair in a dense
/// panel, in the order of its bytes. Kernels multiply as <see cref="FloatKernel"/> says, an element that is left out being +0.
/// </summary>
/// <param name="DType">Type of the elements, BF16 or F16.</param>
/// <param name="GroupPanels">Panels whose masks lie side by side, 1 to 4.</param>
/// <param name="Panels">How many of them are multiplied or expanded, 1, 2 or 4.</param>
/// <param name="Tokens">Tokens of the activation tile; 0 of the kernel that expands to a dense group of <paramref name="Panels"/>.</param>
/// <param name="Activations">What the activations are: float32, or pairs of bfloat16 for VDPBF16PS.</param>
internal readonly record struct MaskedFloatKernel(DType DType, int GroupPanels, int Panels, int Tokens, ActivationForms Activations)
{
    /// <summary>Inputs that a mask is for.</summary>
    public const int PairInputs = 2;

    /// <summary>Bytes that a dense panel has of a pair of inputs.</summary>
    public const int PairBytes = Panel.Rows * PairInputs * sizeof(ushort);

    /// <summary>Steps are written out instead of multiplied.</summary>
    public bool Expands => Tokens == 0;
}

/// <summary>Writes masked floats out without the instructions for it.</summary>
internal static unsafe class PortableExpansion<TFormat>
    where TFormat : IFloatFormat
{
    /// <summary>Expands <see cref="KernelArguments.Count"/> pairs of inputs.</summary>
    public static void Run(KernelArguments* arguments)
    {
        int panels = arguments->Kernel.Panels, stepBytes = Panel.Rows * TFormat.StepBytes, pairSteps = MaskedFloatKernel.PairInputs / TFormat.StepInputs;
        int stepElements = stepBytes / sizeof(ushort);
        new Span<byte>(arguments->Accumulators, checked((int)arguments->Count * panels * MaskedFloatKernel.PairBytes)).Clear();
        for (int panel = 0; panel < panels; panel++)
        {
            uint* masks = (uint*)arguments->Weights + panel;
            ushort* kept = (ushort*)arguments->Kept[panel];
            byte* steps = (byte*)arguments->Accumulators + panel * stepBytes;
            for (long pair = 0; pair < arguments->Count; pair++)
            {
                for (uint mask = *masks; mask != 0; mask &= mask - 1)
                {
                    int element = BitOperations.TrailingZeroCount(mask);
                    ((ushort*)(steps + element / stepElements * panels * stepBytes))[element % stepElements] = *kept++;
                }
                masks = (uint*)((byte*)masks + arguments->StepStride);
                steps += pairSteps * panels * stepBytes;
            }
            arguments->Kept[panel] = (byte*)kept;
        }
    }
}
