using Engine.Checkpoints;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>Writes the AVX-512 kernels for float formats: weights are widened in registers as they are read, every accumulator stays in one.</summary>
internal sealed class FloatKernelAssembler
{
    private const int Unroll = 4;

    private readonly FloatKernel kernel;
    private readonly KernelFrame frame = new();
    private readonly Assembler code;
    private readonly AssemblerRegisterZMM[] accumulators; // [token, panel]
    private readonly AssemblerRegisterZMM[] weights;
    private readonly AssemblerRegisterZMM input;

    private FloatKernelAssembler(FloatKernel kernel)
    {
        this.kernel = kernel;
        code = frame.Code;
        accumulators = frame.Vectors(kernel.Tokens * kernel.Panels);
        weights = frame.Vectors(kernel.Panels);
        input = frame.Vector();
    }

    private static AssemblerRegister64 Weights => rax;
    private static AssemblerRegister64 Activations => rdx;
    private static AssemblerRegister64 Count => r10;
    private static AssemblerRegister64 Accumulators => r9;

    /// <summary>Assembles a kernel: a function of one pointer to <see cref="KernelArguments"/>.</summary>
    public static byte[] Assemble(FloatKernel kernel) => new FloatKernelAssembler(kernel).Assemble();

    private byte[] Assemble()
    {
        frame.Enter();
        code.mov(Weights, __[frame.Arguments]);
        code.mov(Activations, __[frame.Arguments + 16]);
        code.mov(Accumulators, __[frame.Arguments + 24]);
        code.mov(Count, __[frame.Arguments + 32]);
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(accumulators[i], __[Accumulators + i * 64]);
        }

        Label loop = code.CreateLabel(), tail = code.CreateLabel(), single = code.CreateLabel(), end = code.CreateLabel();
        code.sub(Count, Unroll);
        code.jl(tail);
        code.Label(ref loop);
        Inputs(Unroll);
        code.sub(Count, Unroll);
        code.jge(loop);
        code.Label(ref tail);
        code.add(Count, Unroll);
        code.jz(end);
        code.Label(ref single);
        Inputs(1);
        code.dec(Count);
        code.jnz(single);
        code.Label(ref end);

        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(__[Accumulators + i * 64], accumulators[i]);
        }
        frame.Leave();
        return frame.Encode();
    }

    private void Inputs(int count)
    {
        int tokens = kernel.Tokens, panels = kernel.Panels;
        for (int i = 0; i < count; i++)
        {
            for (int panel = 0; panel < panels; panel++)
            {
                Load(weights[panel], __[Weights + i * kernel.InputBytes + panel * kernel.PanelBytes]);
            }
            for (int token = 0; token < tokens; token++)
            {
                code.vbroadcastss(input, __[Activations + (i * tokens + token) * sizeof(float)]);
                for (int panel = 0; panel < panels; panel++)
                {
                    code.vfmadd231ps(accumulators[token * panels + panel], weights[panel], input);
                }
            }
        }
        code.add(Weights, count * kernel.InputBytes);
        code.add(Activations, count * tokens * sizeof(float));
    }

    private void Load(AssemblerRegisterZMM register, AssemblerMemoryOperand source)
    {
        switch (kernel.DType)
        {
            case DType.F32:
                code.vmovups(register, source);
                break;
            case DType.F16:
                code.vcvtph2ps(register, source);
                break;
            default:
                code.vpmovzxwd(register, source);
                code.vpslld(register, register, 16);
                break;
        }
    }
}
