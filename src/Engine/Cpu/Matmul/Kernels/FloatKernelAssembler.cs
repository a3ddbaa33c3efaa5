using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Writes the AVX-512 kernels for float formats: weights are widened in registers as they are read, or multiplied in pairs by VDPBF16PS, for which
/// .NET has no intrinsic on 512-bit vectors; every accumulator stays in a register.
/// </summary>
internal sealed class FloatKernelAssembler
{
    private const int Unroll = 4;
    private const int MaxTokensWaitingForMemory = 4;
    private const int MinTokensPrefetching = 6;

    private readonly FloatKernel kernel;
    private readonly KernelFrame frame = new();
    private readonly Assembler code;
    private readonly AssemblerRegisterZMM[] accumulators; // [token, panel]
    private readonly AssemblerRegisterZMM[] weights;
    private readonly AssemblerRegisterZMM input;
    private readonly AssemblerRegisterZMM constant; // The mask of the first input of each pair, that of 8-bit floats, or the table of nibbles.
    private readonly bool dotsPairs;
    private readonly int inputsPerWord; // 32-bit words of activations are one input, or two.

    private FloatKernelAssembler(FloatKernel kernel)
    {
        this.kernel = kernel;
        code = frame.Code;
        accumulators = frame.Vectors(kernel.Tokens * kernel.Panels);
        weights = frame.Vectors(kernel.Panels);
        input = frame.Vector();
        dotsPairs = kernel.Activations == ActivationForms.Pairs;
        inputsPerWord = dotsPairs ? 2 : 1;
        constant = WidensPairs || kernel.PanelBytes == Panel.Rows ? frame.Vector() : input;
    }

    /// <summary>Few tokens wait for memory, and a vector is a whole line.</summary>
    private bool ReadsLinesOnce => kernel.Tokens <= MaxTokensWaitingForMemory && kernel.PanelBytes == 64 && !WidensPairs;

    /// <summary>8-bit floats take so many instructions a line that too few loads are in flight. Nibbles take more still, and do not gain.</summary>
    private bool PrefetchesBytes => kernel.DType is DType.F8_E4M3 or DType.F8_E5M2;

    private bool WidensPairs => kernel.DType == DType.BF16 && !dotsPairs;

    private static AssemblerRegister64 Weights => rax;
    private static AssemblerRegister64 Table => r8;
    private static AssemblerRegister64 Activations => rdx;
    private static AssemblerRegister64 Count => r10;
    private static AssemblerRegister64 Accumulators => r9;
    private static AssemblerRegister64 ScalePointer => r11;

    /// <summary>Assembles a kernel: a function of one pointer to <see cref="KernelArguments"/>.</summary>
    public static byte[] Assemble(FloatKernel kernel) => new FloatKernelAssembler(kernel).Assemble();

    private byte[] Assemble()
    {
        frame.Enter();
        code.mov(Weights, __[frame.Arguments]);
        code.mov(Activations, __[frame.Arguments + 16]);
        code.mov(Accumulators, __[frame.Arguments + 24]);
        LoadConstant();
        if (kernel.Scaled)
        {
            Groups();
        }
        else
        {
            for (int i = 0; i < accumulators.Length; i++)
            {
                code.vmovups(accumulators[i], __[Accumulators + i * 64]);
            }
            AllSteps();
            for (int i = 0; i < accumulators.Length; i++)
            {
                code.vmovups(__[Accumulators + i * 64], accumulators[i]);
            }
        }
        frame.Leave();
        return frame.Encode();
    }

    /// <summary>Group by group: its sum, and that times the scales to what is in memory.</summary>
    private void Groups()
    {
        code.mov(ScalePointer, __[frame.Arguments + 136]);
        Label group = code.CreateLabel();
        code.Label(ref group);
        foreach (AssemblerRegisterZMM accumulator in accumulators)
        {
            code.vxorps(accumulator, accumulator, accumulator);
        }
        AllSteps();
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(input, __[Accumulators + i * 64]);
            code.vfmadd231ps(input, accumulators[i], __[ScalePointer + i % kernel.Panels * 64]);
            code.vmovups(__[Accumulators + i * 64], input);
        }
        code.add(Weights, kernel.GroupPanels * 64);
        code.add(ScalePointer, __[frame.Arguments + 144]);
        code.dec(__qword_ptr[frame.Arguments + 128]);
        code.jnz(group);
    }

    private void AllSteps()
    {
        code.mov(Count, __[frame.Arguments + 32]);
        Label loop = code.CreateLabel(), tail = code.CreateLabel(), single = code.CreateLabel(), end = code.CreateLabel();
        code.sub(Count, Unroll);
        code.jl(tail);
        code.Label(ref loop);
        Steps(Unroll);
        code.sub(Count, Unroll);
        code.jge(loop);
        code.Label(ref tail);
        code.add(Count, Unroll);
        code.jz(end);
        code.Label(ref single);
        Steps(1);
        code.dec(Count);
        code.jnz(single);
        code.Label(ref end);
    }

    private void Steps(int count)
    {
        int tokens = kernel.Tokens, panels = kernel.Panels, words = kernel.StepInputs / inputsPerWord;
        for (int word = 0; word < count * words; word++)
        {
            for (int panel = 0; panel < panels; panel++)
            {
                int offset = word / words * kernel.StepBytes + panel * kernel.PanelBytes;
                if (ReadsLinesOnce)
                {
                    frame.TouchLine(__[Weights + offset]);
                }
                if (PrefetchesBytes && word % words == 0 && offset % 64 == 0)
                {
                    frame.PrefetchAhead(Weights, offset);
                }
                Load(weights[panel], __[Weights + offset], word % words);
                if (dotsPairs && tokens >= MinTokensPrefetching)
                {
                    frame.PrefetchAhead(Weights, offset);
                }
            }
            for (int token = 0; token < tokens; token++)
            {
                code.vbroadcastss(input, __[Activations + (word * tokens + token) * sizeof(float)]);
                for (int panel = 0; panel < panels; panel++)
                {
                    if (dotsPairs)
                    {
                        code.vdpbf16ps(accumulators[token * panels + panel], weights[panel], input);
                    }
                    else
                    {
                        code.vfmadd231ps(accumulators[token * panels + panel], weights[panel], input);
                    }
                }
            }
        }
        code.add(Weights, count * kernel.StepBytes);
        code.add(Activations, count * words * tokens * sizeof(float));
    }

    private void LoadConstant()
    {
        switch (kernel.DType)
        {
            case DType.BF16 when WidensPairs:
                frame.Broadcast(constant, 0xFFFF0000);
                break;
            case DType.F8_E4M3:
                frame.Broadcast(constant, SmallFloats.E4M3Mask);
                code.mov(Table, __[frame.Arguments + 8]);
                break;
            case DType.F8_E5M2:
                frame.Broadcast(constant, SmallFloats.E5M2Mask);
                code.mov(Table, __[frame.Arguments + 8]);
                break;
            case DType.Coded:
                code.mov(Table, __[frame.Arguments + 8]);
                code.vmovups(constant, __[Table]);
                break;
        }
    }

    private void Load(AssemblerRegisterZMM register, AssemblerMemoryOperand source, int input)
    {
        switch (kernel.DType)
        {
            case DType.F16:
                code.vcvtph2ps(register, source);
                break;
            case DType.BF16 when WidensPairs && input == 0:
                code.vpandd(register, constant, source);
                break;
            case DType.BF16 when WidensPairs:
                code.vpslld(register, source, 16);
                break;
            case DType.F8_E4M3 or DType.F8_E5M2:
                code.vpmovsxbd(register, source);
                code.vpslld(register, register, (byte)(kernel.DType == DType.F8_E4M3 ? SmallFloats.E4M3Shift : SmallFloats.E5M2Shift));
                code.vpandd(register, register, constant);
                code.vmulps(register, register, __dword_bcst[Table]);
                break;
            case DType.Coded:
                code.vpmovzxbd(register, source);
                if (input == 1)
                {
                    code.vpsrld(register, register, 4);
                }
                code.vpermps(register, register, constant); // Looks at the lowest 4 bits.
                break;
            default:
                code.vmovups(register, source);
                break;
        }
    }
}
