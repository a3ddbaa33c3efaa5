using System.Numerics;
using System.Runtime.InteropServices;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// Rows stored without their zeros: the weights that are kept, and for each row a bit per column that says which those are, that of column c being bit c mod 8 of
/// byte c / 8 (formats.md §4.2). <c>sparse-24-bitmask</c> keeps two of every four neighbours; <c>sparse-bitmask</c> any, and says where each row begins. Masks are
/// checked row by row as they are read.
/// </summary>
/// <param name="kept">The kept weights, row by row.</param>
/// <param name="mask">[rows, ⌈columns / 8⌉] of U8.</param>
/// <param name="offsets">[rows] where each row's weights begin; null for two of four.</param>
/// <param name="columns">Columns of the matrix.</param>
internal sealed class BitmaskRows(TensorView kept, TensorView mask, TensorView? offsets, int columns)
{
    // Halves of a byte that have two bits.
    private const int TwoBits = 1 << 0b0011 | 1 << 0b0101 | 1 << 0b0110 | 1 << 0b1001 | 1 << 0b1010 | 1 << 0b1100;

    /// <summary>Codes of a byte each; <paramref name="flip"/> turns a byte into its code, and is the code of zero.</summary>
    public CodeReader Codes(byte flip) => (row, destination) =>
    {
        Expand(row, destination);
        CodeReaders.Flip(destination, flip);
    };

    /// <summary>Writes out all rows, each with its zeros.</summary>
    /// <param name="target">Room for rows × columns weights of the stored type.</param>
    /// <exception cref="EngineException">A mask is malformed.</exception>
    public unsafe void Expand(nint target)
    {
        for (long row = 0; row < mask.Rows; row++)
        {
            long at = row * columns;
            switch (kept.DType.Info().BlockBytes)
            {
                case sizeof(ushort):
                    Expand(row, new Span<ushort>((ushort*)target + at, columns));
                    break;
                default:
                    Expand(row, new Span<uint>((uint*)target + at, columns));
                    break;
            }
        }
    }

    /// <summary>Puts a row's weights into their columns, and zeros elsewhere.</summary>
    private void Expand<T>(long row, Span<T> destination)
        where T : unmanaged
    {
        ReadOnlySpan<byte> bits = mask.Row(row);
        if (columns % 8 != 0 && bits[^1] >> columns % 8 != 0)
        {
            throw Error(row, $"there are bits past column {columns - 1}");
        }
        (long first, int count) = offsets is null ? RequireTwoOfFour(row, bits) : RangeOf(row, bits);
        int bytes = kept.DType.Info().BlockBytes;
        ReadOnlySpan<T> weights = MemoryMarshal.Cast<byte, T>(kept.Slice(first * bytes, count * bytes));
        destination.Clear();
        for (int at = 0, next = 0; at < bits.Length; at++)
        {
            for (uint left = bits[at]; left != 0; left &= left - 1)
            {
                destination[8 * at + BitOperations.TrailingZeroCount(left)] = weights[next++];
            }
        }
    }

    private (long First, int Count) RequireTwoOfFour(long row, ReadOnlySpan<byte> bits)
    {
        for (int group = 0; group < columns / 4; group++)
        {
            int nibble = bits[group / 2] >> group % 2 * 4 & 15;
            if ((TwoBits >> nibble & 1) == 0)
            {
                throw Error(row, $"expected two bits in every four; found {BitOperations.PopCount((uint)nibble)} at column {4 * group}");
            }
        }
        return (row * (columns / 2), columns / 2);
    }

    private (long First, int Count) RangeOf(long row, ReadOnlySpan<byte> bits)
    {
        int count = 0;
        foreach (byte eight in bits)
        {
            count += BitOperations.PopCount(eight);
        }
        long first = offsets!.Integer(row), all = kept.ElementCount, end = row + 1 < mask.Rows ? offsets!.Integer(row + 1) : all;
        return first >= 0 && end <= all && end - first == count && (row > 0 || first == 0)
            ? (first, count)
            : throw Error(row, $"the mask keeps {count}, but those stored are said to be from {first} to {end} of {all}");
    }

    private EngineException Error(long row, string reason) => new($"row {row}: {reason}", mask.File(), mask.Name);
}
