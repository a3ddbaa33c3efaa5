using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// The kernel for block formats in intrinsics: for processors without 512-bit VNNI, and the oracle of the assembled one. Any number of tokens and
/// panels; the instruction set is a type parameter.
/// </summary>
internal static unsafe class IntrinsicBlockKernel<TLanes, TVector>
    where TLanes : IDotLanes<TVector>
    where TVector : struct
{
    /// <summary>Runs over <see cref="KernelArguments.Count"/> blocks.</summary>
    public static void Run(KernelArguments* arguments)
    {
        BlockKernel kernel = arguments->Kernel;
        int tokens = kernel.Tokens, panels = kernel.Panels;
        byte* weights = arguments->Weights, activations = arguments->Activations;
        float* scales = arguments->Scales;
        byte* unpacked = stackalloc byte[ActivationLayout.Groups * Panel.GroupBytes];
        int* sums = stackalloc int[2 * Panel.Rows];
        for (long block = 0; block < arguments->Count; block++)
        {
            for (int panel = 0; panel < panels; panel++)
            {
                Gather(kernel, weights, panel, unpacked);
                for (int token = 0; token < tokens; token++)
                {
                    Sum(kernel, unpacked, activations, token, sums);
                    float* accumulator = arguments->Accumulators + (token * panels + panel) * Panel.Rows;
                    Scale(kernel, sums, scales + panel * Panel.Rows, activations, token, accumulator);
                }
            }
            weights += BlockKernel.CodeBytes(kernel.Bits, kernel.Sparsity, weights) * panels;
            scales += kernel.ScaleVectors * panels * Panel.Rows;
            activations += ActivationLayout.BytesPerToken * tokens;
        }
        arguments->Weights = weights;
    }

    private static void Gather(BlockKernel kernel, byte* weights, int panel, byte* unpacked)
    {
        switch (kernel.Bits)
        {
            case 4 when kernel.Sparsity == CodeSparsity.TwoOfFour:
                SparseCodes4.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 8 when kernel.Sparsity == CodeSparsity.TwoOfFour:
                SparseCodes8.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 4 when kernel.Sparsity == CodeSparsity.Unstructured:
                MaskedCodes4.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 8 when kernel.Sparsity == CodeSparsity.Unstructured:
                MaskedCodes8.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 1:
                Codes1.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 2:
                Codes2.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 3:
                Codes3.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 4:
                Codes4.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 5:
                Codes5.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            case 6:
                Codes6.Unpack(weights, unpacked, Panel.GroupBytes);
                break;
            default:
                for (int group = 0; group < ActivationLayout.Groups; group++)
                {
                    byte* source = weights + (group * kernel.Panels + panel) * Panel.GroupBytes;
                    Unsafe.CopyBlockUnaligned(unpacked + group * Panel.GroupBytes, source, Panel.GroupBytes);
                }
                break;
        }
        if (kernel.Table != 0)
        {
            CodeLookup.LookUp(kernel.Table, unpacked, Panel.GroupBytes);
        }
    }

    private static void Sum(BlockKernel kernel, byte* codes, byte* activations, int token, int* sums)
    {
        int tokens = kernel.Tokens, shift = kernel.OffsetShift;
        int* inputs = (int*)activations + token;
        int parts = kernel.HalfBlocks ? 2 : 1, groups = ActivationLayout.Groups / parts;
        for (int part = 0; part < parts; part++)
        {
            int field = kernel.HalfBlocks ? ActivationLayout.NegativeHalfSums / 4 + part : ActivationLayout.NegativeSum / 4;
            int start = shift == 0 ? 0 : inputs[field * tokens] << shift;
            byte* partCodes = codes + part * groups * Panel.GroupBytes;
            int* partInputs = inputs + part * groups * tokens;
            for (int lane = 0; lane < Panel.GroupBytes; lane += TLanes.Bytes)
            {
                TLanes.Sum(partCodes + lane, partInputs, tokens, groups, kernel.CodeBits, start, sums + part * Panel.Rows + lane / 4);
            }
        }
    }

    private static void Scale(BlockKernel kernel, int* sums, float* scales, byte* activations, int token, float* accumulator)
    {
        int tokens = kernel.Tokens, second = kernel.Panels * Panel.Rows;
        float* fields = (float*)activations + token;
        Vector256<float> step = Vector256.Create(fields[ActivationLayout.Scale / 4 * tokens]);
        Vector256<float> scaledSum = Vector256.Create(fields[ActivationLayout.ScaledSum / 4 * tokens]);
        int* negativeHalfSums = (int*)fields + ActivationLayout.NegativeHalfSums / 4 * tokens;
        for (int row = 0; row < Panel.Rows; row += Vector256<float>.Count)
        {
            Vector256<float> total = Vector256.Load(accumulator + row);
            total = Vector256.FusedMultiplyAdd(Vector256.ConvertToSingle(Vector256.Load(sums + row)) * step, Vector256.Load(scales + row), total);
            if (kernel.HalfBlocks)
            {
                Vector256<float> sum = Vector256.ConvertToSingle(Vector256.Load(sums + Panel.Rows + row));
                total = Vector256.FusedMultiplyAdd(sum * step, Vector256.Load(scales + second + row), total);
            }
            if (kernel.HasMinimum && kernel.HalfBlocks)
            {
                for (int half = 0; half < 2; half++)
                {
                    Vector256<float> halfSum = step * Vector256.Create(-(float)negativeHalfSums[half * tokens]);
                    total = Vector256.FusedMultiplyAdd(Vector256.Load(scales + (2 + half) * second + row), halfSum, total);
                }
            }
            else if (kernel.HasMinimum)
            {
                total = Vector256.FusedMultiplyAdd(Vector256.Load(scales + second + row), scaledSum, total);
            }
            total.Store(accumulator + row);
        }
    }
}
