using Engine.Cpu.Matmul.Formats;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>
/// Writes the instructions by which a kernel brings packed scales to float32 as it comes to them. Unpacking a panel's scales ahead of its codes is a pass during
/// which no codes are asked for, and what it writes is read once: beside one token that was a fifth of the time. Results have the bits of <see cref="IScales"/>'s.
/// </summary>
internal sealed class ScaleUnit
{
    private readonly ScaleLayout layout;
    private readonly Assembler code;
    private readonly AssemblerRegister64 address;
    private readonly AssemblerRegisterZMM d;
    private readonly AssemblerRegisterZMM minimumOfUnit;
    private readonly AssemblerRegisterZMM low;
    private readonly AssemblerRegisterZMM high;
    private readonly AssemblerRegisterZMM bits;

    /// <param name="layout">How scales lie.</param>
    /// <param name="frame">Gives registers, and fills constants here and now.</param>
    /// <param name="address">Holds the address of the unit.</param>
    public ScaleUnit(ScaleLayout layout, KernelFrame frame, AssemblerRegister64 address)
    {
        this.layout = layout;
        this.address = address;
        code = frame.Code;
        First = frame.Vector();
        bool second = layout != ScaleLayout.Blocks;
        Second = second ? frame.Vector() : First;
        bool super = Blocks > 1;
        d = super ? frame.Vector() : First;
        bool minima = layout == ScaleLayout.SuperBlocksAndMinima;
        minimumOfUnit = minima ? frame.Vector() : d;
        low = minima ? frame.Vector() : d;
        high = minima ? frame.Vector() : d;
        bits = minima ? frame.Vector() : d;
        if (minima)
        {
            frame.Broadcast(low, 15);
            frame.Broadcast(high, 0x30);
        }
    }

    /// <summary>Scales of the block that was loaded.</summary>
    public AssemblerRegisterZMM First { get; }

    /// <summary>Its minima, or scales of its second half.</summary>
    public AssemblerRegisterZMM Second { get; }

    /// <summary>Blocks of a unit.</summary>
    public int Blocks => layout is ScaleLayout.SuperBlocksAndMinima or ScaleLayout.SuperBlockHalves ? 8 : 1;

    /// <summary>Bytes of a unit.</summary>
    public int Bytes => layout switch
    {
        ScaleLayout.Blocks => BlockScales.UnitBytes,
        ScaleLayout.BlocksAndMinima => BlockScalesAndMinima.UnitBytes,
        ScaleLayout.SuperBlocksAndMinima => SuperBlockScalesAndMinima.UnitBytes,
        _ => SuperBlockHalfScales.UnitBytes,
    };

    /// <summary>Loads what all blocks of the unit share.</summary>
    public void Begin()
    {
        if (Blocks == 1)
        {
            return;
        }
        code.vcvtph2ps(d, __ymmword_ptr[address]);
        if (layout == ScaleLayout.SuperBlocksAndMinima)
        {
            code.vcvtph2ps(bits, __ymmword_ptr[address + Panel.Rows * 2]);
            code.vpxord(minimumOfUnit, minimumOfUnit, minimumOfUnit);
            code.vsubps(minimumOfUnit, minimumOfUnit, bits);
        }
    }

    /// <summary>Loads the scales of a block.</summary>
    /// <param name="block">0 … <see cref="Blocks"/> − 1.</param>
    public void Load(int block)
    {
        switch (layout)
        {
            case ScaleLayout.Blocks:
                code.vcvtph2ps(First, __ymmword_ptr[address]);
                break;
            case ScaleLayout.BlocksAndMinima:
                code.vcvtph2ps(First, __ymmword_ptr[address]);
                code.vcvtph2ps(Second, __ymmword_ptr[address + Panel.Rows * 2]);
                break;
            case ScaleLayout.SuperBlocksAndMinima:
                const byte OrOfAnd = 0xF8; // a | (b & c)
                code.vpmovzxbd(First, __xmmword_ptr[address + (SuperBlockScalesAndMinima.Nibbles + block * Panel.Rows)]);
                code.vpmovzxbd(bits, __xmmword_ptr[address + (SuperBlockScalesAndMinima.Pairs + block / 2 * Panel.Rows)]);
                code.vpsrld(Second, First, 4);
                code.vpandd(First, First, low);
                if (block % 2 == 0)
                {
                    code.vpslld(bits, bits, 2);
                    code.vpternlogd(Second, bits, high, OrOfAnd);
                    code.vpslld(bits, bits, 2);
                    code.vpternlogd(First, bits, high, OrOfAnd);
                }
                else
                {
                    code.vpternlogd(First, bits, high, OrOfAnd);
                    code.vpsrld(bits, bits, 2);
                    code.vpternlogd(Second, bits, high, OrOfAnd);
                }
                code.vcvtdq2ps(First, First);
                code.vcvtdq2ps(Second, Second);
                code.vmulps(First, First, d);
                code.vmulps(Second, Second, minimumOfUnit);
                break;
            default:
                for (int half = 0; half < 2; half++)
                {
                    AssemblerRegisterZMM scale = half == 0 ? First : Second;
                    code.vpmovsxbd(scale, __xmmword_ptr[address + (SuperBlockHalfScales.Signed + (2 * block + half) * Panel.Rows)]);
                    code.vcvtdq2ps(scale, scale);
                    code.vmulps(scale, scale, d);
                }
                break;
        }
    }
}
