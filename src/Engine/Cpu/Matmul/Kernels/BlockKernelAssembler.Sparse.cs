using System.Runtime.InteropServices;
using Engine.Cpu.Matmul.Formats;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Engine.Cpu.Matmul.Kernels;

/// <summary>Blocks of which two codes of every four are kept.</summary>
internal sealed partial class BlockKernelAssembler
{
    /// <summary>
    /// A block of which two codes of every four are kept (<see cref="SparseGroups"/>). With one or two tokens the activations are brought to the codes: a byte
    /// shuffle takes for each row those of 8 inputs that meet its 4 kept codes, and their sum is what the offset of the codes counts, each row having its own.
    /// With more tokens codes are brought to their places instead, once for all tokens, and multiplied as if they were dense.
    /// </summary>
    private Action Sparse()
    {
        AssemblerRegisterZMM places = frame.Vector(), codes = frame.Vector(), shuffle = frame.Vector(), scratch = frame.Vector();
        AssemblerRegisterZMM offset = frame.Vector(), mask = frame.Vector();
        frame.Broadcast(offset, (1u << kernel.OffsetShift) * 0x01010101u);
        frame.Broadcast(mask, 0x0F0F0F0F);
        Action<AssemblerRegisterZMM> lookUp = LookingUp();
        Action<int> multiply = SplitsSums ? Selecting(places, codes, shuffle, scratch, offset) : Expanding(places, codes, shuffle, scratch, offset);
        int halves = kernel.HalfBlocks ? 2 : 1, steps = SparseGroups.Steps / halves;
        return () =>
        {
            LoadCodes(places, 0);
            for (int half = 0; half < halves; half++)
            {
                if (SplitsSums)
                {
                    for (int token = 0; token < tokens; token++)
                    {
                        code.vpxord(sums[0, token], sums[0, token], sums[0, token]);
                        code.vpxord(sums[1, token], sums[1, token], sums[1, token]);
                    }
                }
                else
                {
                    StartSums(half);
                }
                for (int step = half * steps; step < (half + 1) * steps; step++)
                {
                    LoadStep(codes, step, mask);
                    lookUp(codes);
                    multiply(step);
                }
                for (int token = 0; token < tokens && SplitsSums; token++)
                {
                    code.vpsubd(sums[half, token], sums[0, token], sums[1, token]);
                }
                Scale(half, scratch);
            }
        };
    }

    /// <summary>Brings the kept codes of a step to bytes: lines of their own, or nibbles of the line that it shares with the step two further.</summary>
    private void LoadStep(AssemblerRegisterZMM codes, int step, AssemblerRegisterZMM mask)
    {
        if (kernel.Bits == 8)
        {
            LoadCodes(codes, 1 + step);
            return;
        }
        int line = 1 + step % (SparseGroups.Steps / 2);
        if (step < SparseGroups.Steps / 2)
        {
            LoadCodes(codes, line);
        }
        else
        {
            code.vpsrlw(codes, __[Weights + line * Panel.GroupBytes], 4);
        }
        code.vpandd(codes, codes, mask);
    }

    /// <summary>Multiplies the codes of a step with the activations that a shuffle selects; the second sum is the offset times these.</summary>
    private Action<int> Selecting(
        AssemblerRegisterZMM places, AssemblerRegisterZMM codes, AssemblerRegisterZMM shuffle, AssemblerRegisterZMM inputs, AssemblerRegisterZMM offset)
    {
        AssemblerRegisterZMM twoBits = frame.Vector(), secondGroup = frame.Vector();
        AssemblerRegisterZMM[] shifts = frame.Vectors(SparseGroups.Steps);
        frame.Broadcast(twoBits, 0x03030303);
        frame.Broadcast(secondGroup, 0x04040000);
        for (int step = 0; step < SparseGroups.Steps; step++)
        {
            // From which bit of two rows' places each of their 8 shuffle bytes is taken.
            ulong bits = 0;
            for (int i = 0; i < 8; i++)
            {
                bits |= (ulong)(i / 4 * 32 + 8 * step + i % 4 * 2) << (8 * i);
            }
            frame.Broadcast(shifts[step], bits);
        }
        const uint OddLanes = 0xAAAA;
        code.mov(r11d, OddLanes);
        code.kmovw(k1, r11d);
        return step =>
        {
            const byte OrOfAnd = 0xEA; // (a & b) | c
            code.vpmultishiftqb(shuffle, shifts[step], places);
            code.vpternlogd(shuffle, twoBits, secondGroup, OrOfAnd);
            for (int token = 0; token < tokens; token++)
            {
                int even = (2 * step * tokens + token) * ActivationLayout.GroupInputs, odd = even + tokens * ActivationLayout.GroupInputs;
                if (tokens == 1)
                {
                    code.vpbroadcastq(inputs, __qword_ptr[Activations + even]);
                }
                else
                {
                    code.vpbroadcastd(inputs, __dword_ptr[Activations + even]);
                    code.vpbroadcastd(inputs.k1, __dword_ptr[Activations + odd]);
                }
                code.vpshufb(inputs, inputs, shuffle);
                code.vpdpbusd(sums[0, token], codes, inputs);
                code.vpdpbusd(sums[1, token], offset, inputs);
            }
        };
    }

    /// <summary>Brings the codes of a step to their places, over the code of zero, and multiplies its two groups.</summary>
    private Action<int> Expanding(
        AssemblerRegisterZMM places, AssemblerRegisterZMM codes, AssemblerRegisterZMM shuffle, AssemblerRegisterZMM weights, AssemblerRegisterZMM zero)
    {
        AssemblerRegisterZMM table = frame.Vector(), even = frame.Vector(), odd = frame.Vector();
        frame.Fill(table, MemoryMarshal.AsBytes(SparseGroups.Shuffles));
        frame.BroadcastTable(even, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]);
        frame.BroadcastTable(odd, [2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14]);
        return step =>
        {
            code.vpxord(codes, codes, zero); // What a shuffle leaves out is 0, and the code of zero in the end.
            for (int group = 2 * step; group < 2 * step + 2; group++)
            {
                code.vpsrld(shuffle, places, (byte)(4 * group));
                code.vpermd(shuffle, shuffle, table);
                code.vpord(shuffle, shuffle, group % 2 == 0 ? even : odd);
                code.vpshufb(weights, codes, shuffle);
                code.vpxord(weights, weights, zero);
                Dot(0, group, [weights], weights);
            }
        };
    }
}
