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
    private readonly BlockKernel kernel;
    private readonly ScaleLayout layout;
    private readonly Assembler code;
    private readonly AssemblerRegister64 address;
    private readonly AssemblerRegisterZMM d;
    private readonly AssemblerRegisterZMM minimumOfUnit;
    private readonly AssemblerRegisterZMM low;
    private readonly AssemblerRegisterZMM high;
    private readonly AssemblerRegisterZMM bits;

    /// <param name="kernel">Says how scales lie.</param>
    /// <param name="frame">Gives registers, and fills constants here and now.</param>
    /// <param name="address">Holds the address of the unit.</param>
    public ScaleUnit(BlockKernel kernel, KernelFrame frame, AssemblerRegister64 address)
    {
        this.kernel = kernel;
        layout = kernel.Scales;
        this.address = address;
        code = frame.Code;
        First = frame.Vector();
        bool second = kernel.HasMinimum || kernel.HalfBlocks;
        Second = second ? frame.Vector() : First;
        bool super = layout is ScaleLayout.SuperBlocks or ScaleLayout.SuperBlockHalves or ScaleLayout.SuperBlocksAndMinima;
        d = super ? frame.Vector() : First;
        bool minima = layout == ScaleLayout.SuperBlocksAndMinima;
        minimumOfUnit = minima ? frame.Vector() : d;
        low = minima ? frame.Vector() : d;
        high = minima ? frame.Vector() : d;
        bits = minima || kernel.HasMinimum ? frame.Vector() : d;
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
    public int Blocks => kernel.UnitBlocks;

    /// <summary>Bytes of a unit.</summary>
    public int Bytes => layout switch
    {
        ScaleLayout.Blocks => BlockScales.UnitBytes,
        ScaleLayout.BlocksAndMinima => BlockScalesAndMinima.UnitBytes,
        ScaleLayout.SuperBlocksAndMinima => SuperBlockScalesAndMinima.UnitBytes,
        ScaleLayout.SuperBlocks => SuperBlockHalfScales.Signed + Blocks * Panel.Rows,
        ScaleLayout.GroupsBFloat16 or ScaleLayout.GroupsFloat16 or ScaleLayout.GroupsFloat32 => GroupBytes + (kernel.HasMinimum ? Panel.Rows : 0),
        _ => SuperBlockHalfScales.UnitBytes,
    };

    private int GroupBytes => Panel.Rows * (layout == ScaleLayout.GroupsFloat32 ? sizeof(float) : sizeof(ushort));

    /// <summary>Loads what all blocks of the unit share.</summary>
    public void Begin()
    {
        switch (layout)
        {
            case ScaleLayout.Blocks or ScaleLayout.BlocksAndMinima:
                return;
            case ScaleLayout.GroupsBFloat16:
                code.vpmovzxwd(First, __ymmword_ptr[address]);
                code.vpslld(First, First, 16);
                break;
            case ScaleLayout.GroupsFloat16:
                code.vcvtph2ps(First, __ymmword_ptr[address]);
                break;
            case ScaleLayout.GroupsFloat32:
                code.vmovups(First, __[address]);
                break;
            default:
                code.vcvtph2ps(d, __ymmword_ptr[address]);
                break;
        }
        if (layout == ScaleLayout.SuperBlocksAndMinima)
        {
            code.vcvtph2ps(bits, __ymmword_ptr[address + Panel.Rows * 2]);
            code.vpxord(minimumOfUnit, minimumOfUnit, minimumOfUnit);
            code.vsubps(minimumOfUnit, minimumOfUnit, bits);
        }
        else if (layout >= ScaleLayout.GroupsBFloat16 && kernel.HasMinimum)
        {
            code.vpmovsxbd(bits, __xmmword_ptr[address + GroupBytes]);
            code.vpxord(Second, Second, Second);
            code.vpsubd(Second, Second, bits);
            code.vcvtdq2ps(Second, Second);
            code.vmulps(Second, Second, First);
        }
    }

    /// <summary>Loads the scales of a block.</summary>
    /// <param name="block">0 … <see cref="Blocks"/> − 1.</param>
    public void Load(int block)
    {
        switch (layout)
        {
            case >= ScaleLayout.GroupsBFloat16:
                break; // All blocks of a group have its scale.
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
                int halves = layout == ScaleLayout.SuperBlocks ? 1 : 2;
                for (int half = 0; half < halves; half++)
                {
                    AssemblerRegisterZMM scale = half == 0 ? First : Second;
                    code.vpmovsxbd(scale, __xmmword_ptr[address + (SuperBlockHalfScales.Signed + (halves * block + half) * Panel.Rows)]);
                    code.vcvtdq2ps(scale, scale);
                    code.vmulps(scale, scale, d);
                }
                break;
        }
    }
}
