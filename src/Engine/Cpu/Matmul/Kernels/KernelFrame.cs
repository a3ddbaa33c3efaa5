using System.Runtime.InteropServices;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>Registers, entry and exit of an assembled kernel under the calling convention of the system. Kernels use rax, rdx, r8 … r11 freely.</summary>
internal sealed class KernelFrame
{
    private static readonly AssemblerRegisterZMM[] zmm =
    [
        zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
        zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15,
    ];

    private static readonly AssemblerRegisterYMM[] ymm =
    [
        ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15,
        ymm16, ymm17, ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28, ymm29, ymm30, ymm31,
    ];

    // Windows wants the low halves of these back; the other systems let a function use all vectors.
    private static readonly AssemblerRegisterXMM[] preserved = [xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
    private const int PrefetchDistance = 8192;
    private int used;

    /// <summary>Where instructions are written.</summary>
    public Assembler Code { get; } = new(64);

    /// <summary>Holds the pointer to the <see cref="KernelArguments"/> at the start.</summary>
    public AssemblerRegister64 Arguments => OperatingSystem.IsWindows() ? rcx : rdi;

    /// <summary>Takes a vector register.</summary>
    public AssemblerRegisterZMM Vector() => zmm[used++];

    /// <summary>Takes several.</summary>
    public AssemblerRegisterZMM[] Vectors(int count)
    {
        var registers = new AssemblerRegisterZMM[count];
        for (int i = 0; i < count; i++)
        {
            registers[i] = Vector();
        }
        return registers;
    }

    /// <summary>The lower half of a register.</summary>
    public static AssemblerRegisterYMM Lower(AssemblerRegisterZMM register) => ymm[register.Value - Register.ZMM0];

    /// <summary>Fills a register with a 32-bit constant, here and now.</summary>
    public void Broadcast(AssemblerRegisterZMM register, uint value)
    {
        Code.mov(r11d, value);
        Code.vpbroadcastd(register, r11d);
    }

    /// <summary>Fills a register with a 64-bit constant, here and now.</summary>
    public void Broadcast(AssemblerRegisterZMM register, ulong value)
    {
        Code.mov(r11, value);
        Code.vpbroadcastq(register, r11);
    }

    /// <summary>Fills a register with 64 bytes, here and now; uses k1.</summary>
    public void Fill(AssemblerRegisterZMM register, ReadOnlySpan<byte> bytes)
    {
        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(bytes);
        for (int i = 0; i < words.Length; i++)
        {
            Code.mov(r11d, 1u << i);
            Code.kmovw(k1, r11d);
            Code.mov(r11d, words[i]);
            Code.vpbroadcastd(register.k1, r11d);
        }
    }

    /// <summary>Fills every 128-bit lane of a register with a table of 16 bytes, here and now; uses k1.</summary>
    public void BroadcastTable(AssemblerRegisterZMM register, ReadOnlySpan<byte> table)
    {
        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(table);
        Broadcast(register, words[0]);
        for (int i = 1; i < 4; i++)
        {
            Code.mov(r11d, 0x1111u << i);
            Code.kmovw(k1, r11d);
            Code.mov(r11d, words[i]);
            Code.vpbroadcastd(register.k1, r11d);
        }
    }

    /// <summary>
    /// Reads one word of a cache line that a vector load reads whole. On Zen 4 a stream that little is done with comes 3 to 4 % faster from memory
    /// when its lines are read twice: where that paid was measured kernel by kernel. Software prefetch, in contrast, costs 15 to 20 %.
    /// </summary>
    public void TouchLine(AssemblerMemoryOperand line) => Code.mov(r11d, line);

    /// <summary>
    /// Asks for a line of a stream long before it is read. Where much is done with each line, the loads in flight are too few to keep memory busy, and
    /// multiplying and waiting take turns: 8 tokens of Q8_0 then take the sum of both times, with this little more than the longer one (up to 30 %
    /// less). The second-level cache is the place to bring it to; distances from 4 to 32 KiB made no difference.
    /// </summary>
    public void PrefetchAhead(AssemblerRegister64 stream, int offset) => Code.prefetcht1(__[stream + (PrefetchDistance + offset)]);

    /// <summary>Saves what the caller wants back.</summary>
    public void Enter()
    {
        if (OperatingSystem.IsWindows())
        {
            Code.sub(rsp, preserved.Length * 16 + 8);
            for (int i = 0; i < preserved.Length; i++)
            {
                Code.vmovups(__[rsp + i * 16], preserved[i]);
            }
        }
    }

    /// <summary>Restores it and returns.</summary>
    public void Leave()
    {
        if (OperatingSystem.IsWindows())
        {
            for (int i = 0; i < preserved.Length; i++)
            {
                Code.vmovups(preserved[i], __[rsp + i * 16]);
            }
            Code.add(rsp, preserved.Length * 16 + 8);
        }
        Code.vzeroupper();
        Code.ret();
    }

    /// <summary>The machine code; it does not depend on where it lies.</summary>
    public byte[] Encode()
    {
        using var stream = new MemoryStream();
        Code.Assemble(new StreamCodeWriter(stream), 0);
        return stream.ToArray();
    }
}
