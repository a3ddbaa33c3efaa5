using System.Buffers.Binary;
using Engine.Cpu.Matmul.Formats;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Writes the 512-bit VNNI kernels for block formats. .NET has no intrinsic for VPDPBUSD on 512-bit vectors, and generated code can keep every
/// accumulator in a register for each number of tokens, which a loop over locals cannot. One generator serves all formats: they differ in how
/// codes are brought to bytes and in what is done with a block's integer sum. Weights are read straight through.
/// </summary>
internal sealed partial class BlockKernelAssembler
{
    private readonly BlockKernel kernel;
    private readonly KernelFrame frame = new();
    private readonly Assembler code;
    private readonly AssemblerRegisterZMM[,] sums;         // [half, token × panel] int32
    private readonly AssemblerRegisterZMM[] accumulators;  // [token × panel] float32
    private readonly int tokens;
    private readonly int panels;

    private BlockKernelAssembler(BlockKernel kernel)
    {
        this.kernel = kernel;
        code = frame.Code;
        tokens = kernel.Tokens;
        panels = kernel.Panels;
        accumulators = frame.Vectors(tokens * panels);
        int halves = SplitsSums || (kernel.Bits != 8 && kernel.HalfBlocks && kernel.Sparsity == CodeSparsity.None) ? 2 : 1;
        sums = new AssemblerRegisterZMM[2, tokens * panels];
        for (int half = 0; half < halves; half++)
        {
            AssemblerRegisterZMM[] registers = frame.Vectors(tokens * panels);
            for (int i = 0; i < registers.Length; i++)
            {
                sums[half, i] = registers[i];
                sums[1, i] = registers[i]; // Bytes, and steps of kept codes, come in input order: the halves take turns in the same registers.
            }
        }
    }

    /// <summary>For few tokens a block's sum is made of two, or its chain of dependent dot products would be what takes the time.</summary>
    private bool SplitsSums => (kernel.Sparsity != CodeSparsity.None || (kernel.Bits != 8 && !kernel.HalfBlocks)) && tokens <= 2;

    /// <summary>Where enough is done with each line of codes for prefetching to pay: measured, 5 tokens of 8 bits, 7 of 6 bits, none of 4.</summary>
    private bool Prefetches => panels == 1 && tokens * kernel.Bits >= 40;

    private static AssemblerRegister64 Weights => rax;
    private static AssemblerRegister64 Scales => r8;
    private static AssemblerRegister64 Activations => rdx;
    private static AssemblerRegister64 Accumulators => r9;
    private static AssemblerRegister64 Count => r10;

    /// <summary>Assembles a kernel: a function of one pointer to <see cref="KernelArguments"/>.</summary>
    public static byte[] Assemble(BlockKernel kernel) => new BlockKernelAssembler(kernel).Assemble();

    private byte[] Assemble()
    {
        frame.Enter();
        code.mov(Weights, __[frame.Arguments]);
        code.mov(Scales, __[frame.Arguments + 8]);
        code.mov(Activations, __[frame.Arguments + 16]);
        code.mov(Accumulators, __[frame.Arguments + 24]);
        code.mov(Count, __[frame.Arguments + 32]);
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(accumulators[i], __[Accumulators + i * 64]);
        }

        Action block = kernel.Sparsity switch
        {
            CodeSparsity.TwoOfFour => Sparse(),
            CodeSparsity.Unstructured => Masked(),
            _ => kernel.Bits == 8 ? Bytes() : Fields(),
        };
        Label loop = code.CreateLabel();
        code.Label(ref loop);
        block();
        if (kernel.BlockBytes > 0)
        {
            code.add(Weights, kernel.BlockBytes * panels);
        }
        code.add(Scales, kernel.ScaleVectors * panels * 64);
        code.add(Activations, ActivationLayout.BytesPerToken * tokens);
        code.dec(Count);
        code.jnz(loop);

        code.mov(__[frame.Arguments], Weights);
        code.mov(Accumulators, __[frame.Arguments + 24]); // Masked blocks need the register.
        for (int i = 0; i < accumulators.Length; i++)
        {
            code.vmovups(__[Accumulators + i * 64], accumulators[i]);
        }
        frame.Leave();
        return frame.Encode();
    }

    /// <summary>A block whose codes are bytes: a tile, or Q8_0 as packed.</summary>
    private Action Bytes()
    {
        AssemblerRegisterZMM[] weights = frame.Vectors(panels);
        AssemblerRegisterZMM scratch = frame.Vector();
        return () =>
        {
            for (int group = 0; group < ActivationLayout.Groups; group++)
            {
                bool half = kernel.HalfBlocks && group == ActivationLayout.Groups / 2;
                if (half)
                {
                    Scale(0, scratch);
                }
                if (group == 0 || half)
                {
                    StartSums(half ? 1 : 0);
                }
                for (int panel = 0; panel < panels; panel++)
                {
                    LoadCodes(weights[panel], group * panels + panel);
                }
                Dot(0, group, weights, scratch);
            }
            if (tokens == 1 && panels == 1)
            {
                for (int group = 0; group < ActivationLayout.Groups; group++)
                {
                    frame.TouchLine(__[Weights + group * Panel.GroupBytes]);
                }
            }
            Scale(kernel.HalfBlocks ? 1 : 0, scratch);
        };
    }

    /// <summary>
    /// A block of codes of 1, 2 or 4 low bits: in as many vectors, field k of vector j being group j + vectors · k, so nibbles of groups j and j + 4. For 3, 5 and 6
    /// bits the planes with the other bits come first, plane byte b holding those of byte b of each group.
    /// </summary>
    private Action Fields()
    {
        AssemblerRegisterZMM weights = frame.Vector(), packed = frame.Vector(), scratch = frame.Vector(), mask = frame.Vector();
        int lowBits = kernel.Bits switch { >= 4 => 4, >= 2 => 2, _ => 1 }, highBits = kernel.Bits - lowBits;
        AssemblerRegisterZMM[] planes = frame.Vectors(highBits);
        AssemblerRegisterZMM highMask = highBits == 0 ? mask : frame.Vector();
        frame.Broadcast(mask, ((1u << lowBits) - 1) * 0x01010101u);
        Action<AssemblerRegisterZMM> lookUp = LookingUp();
        if (highBits > 0)
        {
            frame.Broadcast(highMask, (((1u << highBits) - 1) << lowBits) * 0x01010101u);
        }

        return () =>
        {
            StartSums(0);
            if (kernel.HalfBlocks)
            {
                StartSums(1);
            }
            for (int token = 0; token < tokens && SplitsSums; token++)
            {
                code.vpxord(sums[1, token], sums[1, token], sums[1, token]);
            }
            for (int plane = 0; plane < highBits; plane++)
            {
                LoadCodes(planes[plane], plane);
            }
            for (int line = 0; line < lowBits; line++)
            {
                LoadCodes(packed, highBits + line);
                for (int group = line; group < ActivationLayout.Groups; group += lowBits)
                {
                    if (group != line)
                    {
                        code.vpsrlw(packed, packed, (byte)lowBits);
                    }
                    code.vpandd(weights, packed, mask);
                    AddHighBits(group);
                    lookUp(weights);
                    int half = group / (ActivationLayout.Groups / 2);
                    Dot(kernel.HalfBlocks || SplitsSums ? half : 0, group, [weights], scratch);
                }
            }
            for (int token = 0; token < tokens && SplitsSums; token++)
            {
                code.vpaddd(sums[0, token], sums[0, token], sums[1, token]);
            }
            Scale(0, scratch);
            if (kernel.HalfBlocks)
            {
                Scale(1, scratch);
            }
        };

        void AddHighBits(int group)
        {
            if (highBits == 0)
            {
                return;
            }
            // Bits group·highBits of the planes taken together go above the low ones; what a 16-bit shift carries across bytes is masked away.
            AssemblerRegisterZMM plane = planes[group * highBits / 8];
            int shift = lowBits - group * highBits % 8;
            if (shift > 0)
            {
                code.vpsllw(scratch, plane, (byte)shift);
            }
            else if (shift < 0)
            {
                code.vpsrlw(scratch, plane, (byte)-shift);
            }
            const byte OrOfAnd = 0xF8; // a | (b & c)
            code.vpternlogd(weights, shift == 0 ? plane : scratch, highMask, OrOfAnd);
        }
    }

    /// <summary>Replaces codes by the bytes of the kernel's table, where it has one.</summary>
    private Action<AssemblerRegisterZMM> LookingUp()
    {
        if (kernel.Table == 0)
        {
            return static _ => { };
        }
        AssemblerRegisterZMM table = frame.Vector();
        Span<byte> bytes = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128LittleEndian(bytes, kernel.Table);
        frame.BroadcastTable(table, bytes);
        return codes => code.vpshufb(codes, table, codes);
    }

    private void LoadCodes(AssemblerRegisterZMM register, int line)
    {
        code.vmovdqa64(register, __[Weights + line * Panel.GroupBytes]);
        if (Prefetches)
        {
            frame.PrefetchAhead(Weights, line * Panel.GroupBytes);
        }
    }

    /// <summary>Σ (code − offset)·x = Σ code·x + offset · (−Σ x): the sum starts at the second term.</summary>
    private void StartSums(int half)
    {
        for (int token = 0; token < tokens; token++)
        {
            AssemblerRegisterZMM first = sums[half, token * panels];
            if (kernel.OffsetShift == 0)
            {
                for (int panel = 0; panel < panels; panel++)
                {
                    AssemblerRegisterZMM sum = sums[half, token * panels + panel];
                    code.vpxord(sum, sum, sum);
                }
                continue;
            }
            int field = kernel.HalfBlocks ? ActivationLayout.NegativeHalfSums + 4 * half : ActivationLayout.NegativeSum;
            code.vpslld(first, __dword_bcst[Activations + Field(field, token)], (byte)kernel.OffsetShift);
            for (int panel = 1; panel < panels; panel++)
            {
                code.vmovdqa64(sums[half, token * panels + panel], first);
            }
        }
    }

    private void Dot(int half, int group, AssemblerRegisterZMM[] weights, AssemblerRegisterZMM scratch)
    {
        for (int token = 0; token < tokens; token++)
        {
            int offset = (group * tokens + token) * ActivationLayout.GroupInputs;
            if (panels == 1)
            {
                code.vpdpbusd(sums[half, token], weights[0], __dword_bcst[Activations + offset]);
                continue;
            }
            code.vpbroadcastd(scratch, __[Activations + offset]);
            for (int panel = 0; panel < panels; panel++)
            {
                code.vpdpbusd(sums[half, token * panels + panel], weights[panel], scratch);
            }
        }
    }

    private void Scale(int half, AssemblerRegisterZMM scratch)
    {
        for (int token = 0; token < tokens; token++)
        {
            for (int panel = 0; panel < panels; panel++)
            {
                int i = token * panels + panel;
                AssemblerRegisterZMM sum = sums[half, i];
                code.vcvtdq2ps(sum, sum);
                code.vmulps(sum, sum, __dword_bcst[Activations + Field(ActivationLayout.Scale, token)]);
                code.vfmadd231ps(accumulators[i], sum, __[Scales + (half * panels + panel) * 64]);
            }
        }
        if (kernel.HasMinimum && kernel.HalfBlocks)
        {
            if (half == 1)
            {
                AddHalfMinima(scratch);
            }
        }
        else if (kernel.HasMinimum)
        {
            for (int panel = 0; panel < panels; panel++)
            {
                code.vmovaps(scratch, __[Scales + (panels + panel) * 64]);
                for (int token = 0; token < tokens; token++)
                {
                    code.vfmadd231ps(
                        accumulators[token * panels + panel], scratch, __dword_bcst[Activations + Field(ActivationLayout.ScaledSum, token)]);
                }
            }
        }
    }

    /// <summary>What the minima of a half are multiplied with is made of its negative sum, so that records need not hold it.</summary>
    private void AddHalfMinima(AssemblerRegisterZMM halfSum)
    {
        for (int token = 0; token < tokens; token++)
        {
            for (int half = 0; half < 2; half++)
            {
                code.vcvtdq2ps(halfSum, __dword_bcst[Activations + Field(ActivationLayout.NegativeHalfSums + 4 * half, token)]);
                code.vmulps(halfSum, halfSum, __dword_bcst[Activations + Field(ActivationLayout.Scale, token)]);
                for (int panel = 0; panel < panels; panel++)
                {
                    code.vfnmadd231ps(accumulators[token * panels + panel], halfSum, __[Scales + ((2 + half) * panels + panel) * 64]);
                }
            }
        }
    }

    private int Field(int field, int token) => field * tokens + token * sizeof(float);
}
