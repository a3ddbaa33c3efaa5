using Engine.Cpu.Matmul.Formats;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>Blocks without the codes of zero.</summary>
internal sealed partial class BlockKernelAssembler
{
    /// <summary>
    /// A block without the codes of zero (<see cref="MaskedGroups"/>): the kept codes of a group are expanded over a vector of zeros, and multiplied as if they had
    /// been dense. Merging is what makes it cheap: on Zen 4 the form that clears the other bytes takes five cycles instead of one or two.
    /// </summary>
    private Action Masked()
    {
        AssemblerRegister64 codes = r9;
        AssemblerRegisterZMM weights = frame.Vector(), zero = frame.Vector(), scratch = frame.Vector();
        frame.Broadcast(zero, (1u << kernel.OffsetShift) * 0x01010101u);
        Action expand = kernel.Bits == 4 ? MaskedNibbles(codes, weights, zero, scratch) : MaskedBytes(codes, weights, zero, scratch);
        return () =>
        {
            StartSums(0);
            for (int token = 0; token < tokens && SplitsSums; token++)
            {
                code.vpxord(sums[1, token], sums[1, token], sums[1, token]);
            }
            expand();
            code.mov(Weights, codes);
            for (int token = 0; token < tokens && SplitsSums; token++)
            {
                code.vpaddd(sums[0, token], sums[0, token], sums[1, token]);
            }
            Scale(0, scratch);
        };
    }

    /// <summary>A load that expands reads no byte that is not kept, so that it may stand at the very end of the memory.</summary>
    private Action MaskedBytes(AssemblerRegister64 codes, AssemblerRegisterZMM weights, AssemblerRegisterZMM zero, AssemblerRegisterZMM scratch) => () =>
    {
        code.lea(codes, __[Weights + MaskedGroups.MaskBytes]);
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            int mask = group * sizeof(ulong);
            if (group % 2 == 0)
            {
                code.prefetcht0(__[codes + MaskedGroups.PrefetchDistance]); // A group has less than half a line.
            }
            code.kmovq(k1, __qword_ptr[Weights + mask]);
            code.vmovdqa64(weights, zero);
            code.vpexpandb(weights.k1, __zmmword_ptr[codes]);
            code.popcnt(r11, __qword_ptr[Weights + mask]);
            code.add(codes, r11);
            Dot(SplitsSums ? group % 2 : 0, group, [weights], scratch);
        }
    };

    private Action MaskedNibbles(AssemblerRegister64 codes, AssemblerRegisterZMM weights, AssemblerRegisterZMM zero, AssemblerRegisterZMM scratch)
    {
        AssemblerRegisterZMM packed = frame.Vector(), kept = frame.Vector(), nibble = frame.Vector();
        frame.Broadcast(nibble, 0x0F0F0F0F);
        return () =>
        {
            code.lea(codes, __[Weights + (MaskedGroups.MaskBytes + MaskedGroups.Pairs)]);
            for (int pair = 0; pair < MaskedGroups.Pairs; pair++)
            {
                code.prefetcht0(__[codes + MaskedGroups.PrefetchDistance]);
                code.vmovdqu64(packed, __zmmword_ptr[codes]);
                code.vpandd(kept, packed, nibble);
                Expand(pair, 0);
                code.vpsrlw(packed, packed, 4);
                code.vpandd(kept, packed, nibble);
                Expand(pair + MaskedGroups.Pairs, 1);
                code.movzx(r11d, __byte_ptr[Weights + (MaskedGroups.MaskBytes + pair)]);
                code.add(codes, r11);
            }
        };

        void Expand(int group, int half)
        {
            code.kmovq(k1, __qword_ptr[Weights + group * sizeof(ulong)]);
            code.vmovdqa64(weights, zero);
            code.vpexpandb(weights.k1, kept);
            Dot(SplitsSums ? half : 0, group, [weights], scratch);
        }
    }
}
