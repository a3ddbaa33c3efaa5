using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Which kernel for float formats. Whatever the variant, a row and token see <c>acc = fma(weight, x, acc)</c> per input, in order; VDPBF16PS takes
/// two such steps at once, with the same bits unless a number is subnormal, which it takes for zero.
/// </summary>
/// <param name="DType">Type of the packed weights.</param>
/// <param name="GroupPanels">Panels that are packed side by side, 1 to 4.</param>
/// <param name="Panels">How many of them are multiplied, 1, 2 or 4.</param>
/// <param name="Tokens">Tokens of the activation tile.</param>
/// <param name="Activations">What the activations are: float32, or pairs of bfloat16 for VDPBF16PS.</param>
/// <param name="Scaled">Every so many steps are a group, summed by itself and multiplied by the scales that follow it. Only assembled kernels do that.</param>
internal readonly record struct FloatKernel(DType DType, int GroupPanels, int Panels, int Tokens, ActivationForms Activations, bool Scaled = false)
{
    /// <summary>The most tokens of a tile: beside 2 panels they leave 4 of 32 vector registers for operands.</summary>
    public const int MaxTokens = 14;

    /// <summary>The most tokens beside 4 panels, which take 4 registers for their weights alone.</summary>
    private const int MaxTokensOfFour = 6;

    /// <summary>Panels to take at once: one token alone needs several, because a sum waits four cycles for the addition before.</summary>
    public static int PanelsFor(int tokens) => tokens <= MaxTokensOfFour ? 4 : 2;

    /// <summary>Inputs of a step.</summary>
    public int StepInputs => DType is DType.BF16 or DType.Coded ? 2 : 1;

    /// <summary>Bytes of one step of a panel.</summary>
    public int PanelBytes => Panel.Rows * DType switch
    {
        DType.F8_E4M3 or DType.F8_E5M2 or DType.Coded => 1,
        DType.F16 => 2,
        _ => 4,
    };

    /// <summary>Bytes of one step of a group of panels.</summary>
    public int StepBytes => GroupPanels * PanelBytes;
}

/// <summary>The kernel for float formats in portable vectors, with any number of tokens and panels.</summary>
internal static unsafe class IntrinsicFloatKernel<TFormat>
    where TFormat : IFloatFormat
{
    /// <summary>Runs over <see cref="KernelArguments.Count"/> steps.</summary>
    public static void Run(KernelArguments* arguments)
    {
        int panels = arguments->Kernel.Panels, tokens = arguments->Kernel.Tokens;
        for (int panel = 0; panel < panels; panel++)
        {
            for (int half = 0; half < Panel.Rows; half += 8)
            {
                byte* weights = arguments->Weights + (panel * Panel.Rows + half) * TFormat.StepBytes;
                float* sums = arguments->Accumulators + panel * Panel.Rows + half;
                int token = 0;
                for (; token + 4 <= tokens; token += 4)
                {
                    Four(arguments, weights, token, sums + token * panels * Panel.Rows);
                }
                for (; token < tokens; token++)
                {
                    One(arguments, weights, token, sums + token * panels * Panel.Rows);
                }
            }
        }
    }

    private static void One(KernelArguments* arguments, byte* weights, int token, float* sums)
    {
        float* inputs = (float*)arguments->Activations + token;
        int tokens = arguments->Kernel.Tokens;
        Vector256<float> sum = Vector256.Load(sums);
        for (long i = 0; i < arguments->Count; i++, weights += arguments->StepStride)
        {
            for (int input = 0; input < TFormat.StepInputs; input++, inputs += tokens)
            {
                sum = Vector256.FusedMultiplyAdd(TFormat.Widen(weights, input, arguments->Scales), Vector256.Create(*inputs), sum);
            }
        }
        sum.Store(sums);
    }

    private static void Four(KernelArguments* arguments, byte* weights, int token, float* sums)
    {
        float* inputs = (float*)arguments->Activations + token;
        int tokens = arguments->Kernel.Tokens, stride = arguments->Kernel.Panels * Panel.Rows;
        Vector256<float> a = Vector256.Load(sums), b = Vector256.Load(sums + stride);
        Vector256<float> c = Vector256.Load(sums + 2 * stride), d = Vector256.Load(sums + 3 * stride);
        for (long i = 0; i < arguments->Count; i++, weights += arguments->StepStride)
        {
            for (int input = 0; input < TFormat.StepInputs; input++, inputs += tokens)
            {
                Vector256<float> weight = TFormat.Widen(weights, input, arguments->Scales);
                a = Vector256.FusedMultiplyAdd(weight, Vector256.Create(inputs[0]), a);
                b = Vector256.FusedMultiplyAdd(weight, Vector256.Create(inputs[1]), b);
                c = Vector256.FusedMultiplyAdd(weight, Vector256.Create(inputs[2]), c);
                d = Vector256.FusedMultiplyAdd(weight, Vector256.Create(inputs[3]), d);
            }
        }
        a.Store(sums);
        b.Store(sums + stride);
        c.Store(sums + 2 * stride);
        d.Store(sums + 3 * stride);
    }
}
