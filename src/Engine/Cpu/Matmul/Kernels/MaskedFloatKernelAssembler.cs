using Engine.Checkpoints;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Writes the AVX-512 kernels for 16-bit floats of which zeros are left out: VPEXPANDW puts the next kept elements of a panel to their places, and as many as the
/// mask has bits are passed. A register then has what a dense panel has of a pair of inputs.
/// </summary>
internal sealed class MaskedFloatKernelAssembler
{
    private const int Unroll = 2;
    private static readonly AssemblerRegister64[] kept = [r8, r9, rbx, rcx];

    private readonly MaskedFloatKernel kernel;
    private readonly KernelFrame frame = new();
    private readonly Assembler code;
    private readonly AssemblerRegisterZMM[] accumulators; // [token, panel]
    private readonly AssemblerRegisterZMM elements;
    private readonly AssemblerRegisterZMM first; // The first input of each pair as float32.
    private readonly AssemblerRegisterZMM firstMask;
    private readonly int words; // 32-bit words of activations of a pair.

    private MaskedFloatKernelAssembler(MaskedFloatKernel kernel)
    {
        this.kernel = kernel;
        code = frame.Code;
        accumulators = frame.Vectors(kernel.Tokens * kernel.Panels);
        elements = frame.Vector();
        words = kernel.Activations == ActivationForms.Pairs ? 1 : MaskedFloatKernel.PairInputs;
        first = words == 1 ? elements : frame.Vector();
        firstMask = words == 1 ? elements : frame.Vector();
    }

    private static AssemblerRegister64 Masks => rax;
    private static AssemblerRegister64 Activations => rdx; // Or where steps are written.
    private static AssemblerRegister64 Count => r10;
    private static AssemblerRegister64 Scratch => r11;

    /// <summary>Assembles a kernel: a function of one pointer to <see cref="KernelArguments"/>.</summary>
    public static byte[] Assemble(MaskedFloatKernel kernel) => new MaskedFloatKernelAssembler(kernel).Assemble();

    private byte[] Assemble()
    {
        const int KeptOffset = 152, AccumulatorsOffset = 24;
        frame.Enter();
        code.push(rbx);
        code.push(frame.Arguments);
        frame.Broadcast(firstMask, 0xFFFF0000);
        code.mov(Masks, __[frame.Arguments]);
        code.mov(Activations, __[frame.Arguments + (kernel.Expands ? AccumulatorsOffset : 16)]);
        code.mov(Count, __[frame.Arguments + 32]);
        code.mov(Scratch, __[frame.Arguments + AccumulatorsOffset]);
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(accumulators[i], __[Scratch + i * 64]);
        }
        code.mov(Scratch, __[frame.Arguments + KeptOffset]);
        for (int panel = 0; panel < kernel.Panels; panel++)
        {
            code.mov(kept[panel], __[Scratch + panel * 8]);
        }

        Label loop = code.CreateLabel(), tail = code.CreateLabel(), end = code.CreateLabel();
        code.sub(Count, Unroll);
        code.jl(tail);
        code.Label(ref loop);
        Pairs(Unroll);
        code.sub(Count, Unroll);
        code.jge(loop);
        code.Label(ref tail);
        code.add(Count, Unroll);
        code.jz(end);
        Pairs(1);
        code.Label(ref end);

        code.pop(Activations); // The arguments.
        code.mov(Scratch, __[Activations + KeptOffset]);
        for (int panel = 0; panel < kernel.Panels; panel++)
        {
            code.mov(__[Scratch + panel * 8], kept[panel]);
        }
        code.mov(Scratch, __[Activations + AccumulatorsOffset]);
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(__[Scratch + i * 64], accumulators[i]);
        }
        code.pop(rbx);
        frame.Leave();
        return frame.Encode();
    }

    private void Pairs(int count)
    {
        for (int pair = 0; pair < count; pair++)
        {
            for (int panel = 0; panel < kernel.Panels; panel++)
            {
                Expand(panel, (pair * kernel.GroupPanels + panel) * sizeof(uint));
                if (kernel.Expands)
                {
                    Store(pair, panel);
                }
                else
                {
                    Multiply(pair, panel);
                }
            }
        }
        code.add(Masks, count * kernel.GroupPanels * sizeof(uint));
        code.add(Activations, count * (kernel.Expands ? kernel.Panels * MaskedFloatKernel.PairBytes : words * kernel.Tokens * sizeof(float)));
    }

    private void Expand(int panel, int mask)
    {
        // Expanding straight from memory takes twice as long on Zen 4.
        code.kmovd(k1, __dword_ptr[Masks + mask]);
        code.vmovups(elements, __[kept[panel]]);
        code.vpexpandw(elements.k1.z, elements);
        code.popcnt(r11d, __dword_ptr[Masks + mask]);
        code.lea(kept[panel], __[kept[panel] + Scratch * sizeof(ushort)]);
    }

    private void Store(int pair, int panel)
    {
        const int Half = MaskedFloatKernel.PairBytes / 2;
        if (kernel.DType == DType.BF16)
        {
            code.vmovups(__[Activations + (pair * kernel.Panels + panel) * MaskedFloatKernel.PairBytes], elements);
            return;
        }
        code.vmovdqu32(__[Activations + (2 * pair * kernel.Panels + panel) * Half], KernelFrame.Lower(elements));
        code.vextracti64x4(__[Activations + ((2 * pair + 1) * kernel.Panels + panel) * Half], elements, 1);
    }

    private void Multiply(int pair, int panel)
    {
        if (words == 1)
        {
            for (int token = 0; token < kernel.Tokens; token++)
            {
                code.vdpbf16ps(Sum(token, panel), elements, Input(pair, token));
            }
            return;
        }
        if (kernel.DType == DType.BF16)
        {
            code.vpandd(first, elements, firstMask);
            Multiply(first, 2 * pair, panel);
            code.vpslld(elements, elements, 16);
        }
        else
        {
            code.vcvtph2ps(first, KernelFrame.Lower(elements));
            Multiply(first, 2 * pair, panel);
            code.vextracti64x4(KernelFrame.Lower(elements), elements, 1);
            code.vcvtph2ps(elements, KernelFrame.Lower(elements));
        }
        Multiply(elements, 2 * pair + 1, panel);
    }

    private void Multiply(AssemblerRegisterZMM weights, int word, int panel)
    {
        for (int token = 0; token < kernel.Tokens; token++)
        {
            code.vfmadd231ps(Sum(token, panel), weights, Input(word, token));
        }
    }

    private AssemblerRegisterZMM Sum(int token, int panel) => accumulators[token * kernel.Panels + panel];

    private AssemblerMemoryOperand Input(int word, int token) => __dword_bcst[Activations + (word * kernel.Tokens + token) * sizeof(float)];
}
