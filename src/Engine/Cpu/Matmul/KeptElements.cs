using System.Numerics;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>Which part of a matrix of 16-bit floats is left where the elements that are zero by value are left out.</summary>
internal sealed unsafe class KeptElements
{
    /// <summary>
    /// The greatest part that is worth leaving others out. Kernels then read 0.61 of the bytes; putting elements to their places costs what three products of a
    /// vector cost, which with a token or two is less than waiting for the other bytes and with 8 is more where float32 is multiplied.
    /// </summary>
    public const double Most = 0.55;

    private KeptElements(int panels) => Panels = new long[panels];

    /// <summary>[panels]: elements that are not zero.</summary>
    public long[] Panels { get; }

    /// <summary>Every four neighbours of all rows have at most two.</summary>
    public bool TwoOfFour { get; private set; }

    /// <summary>Counts the elements of a matrix whose kernels gain by leaving zeros out; null of others, of which a few rows are looked at.</summary>
    /// <param name="source">The matrix, of 16-bit floats.</param>
    /// <param name="rows">Rows that are wanted of it.</param>
    /// <param name="inputs">Columns.</param>
    public static KeptElements? Of(WeightRows source, int rows, int inputs)
    {
        if (source.Transposed || rows == 0 || inputs == 0 || !MatmulInstructionSupport.Best.ExpandsWords())
        {
            return null;
        }
        if (!DensitySample.Allows(rows, inputs, Most, row => Count(source, row, inputs).Kept))
        {
            return null;
        }
        var kept = new KeptElements((rows + Panel.Rows - 1) / Panel.Rows) { TwoOfFour = inputs % SparseGroups.Inputs == 0 };
        for (int row = 0; row < rows; row++)
        {
            (int ofRow, bool twoOfFour) = Count(source, row, inputs);
            kept.Panels[row / Panel.Rows] += ofRow;
            kept.TwoOfFour &= twoOfFour;
        }
        return kept.Panels.Sum() <= Most * rows * inputs ? kept : null;
    }

    private static (int Kept, bool TwoOfFour) Count(WeightRows source, int row, int inputs)
    {
        const int MaskElements = 32;
        int kept = 0;
        bool twoOfFour = true;
        fixed (byte* bytes = source.Tensor.Row(source.Row(row)))
        {
            ushort* elements = (ushort*)bytes;
            for (int input = 0; input < inputs; input += MaskElements)
            {
                uint mask = 0;
                if (input + MaskElements <= inputs)
                {
                    Vector512<ushort> magnitudes = Vector512.Load(elements + input) & Vector512.Create((ushort)0x7FFF);
                    mask = ~(uint)Vector512.Equals(magnitudes, Vector512<ushort>.Zero).ExtractMostSignificantBits();
                }
                else
                {
                    for (int i = input; i < inputs; i++)
                    {
                        mask |= (elements[i] & 0x7FFFu) == 0 ? 0 : 1u << (i - input);
                    }
                }
                kept += BitOperations.PopCount(mask);
                twoOfFour &= !HasThreeOfFour(mask);
            }
        }
        return (kept, twoOfFour);
    }

    /// <summary>Some four bits, from a multiple of four on, have three or more that are set.</summary>
    private static bool HasThreeOfFour(uint mask)
    {
        uint twos = mask - (mask >> 1 & 0x55555555), fours = (twos & 0x33333333) + (twos >> 2 & 0x33333333);
        return (fours + 0x55555555 & 0x88888888) != 0;
    }
}
