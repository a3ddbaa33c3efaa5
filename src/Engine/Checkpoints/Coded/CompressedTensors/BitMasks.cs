using System.Numerics;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>Masks of a bit per column, lowest first, rows padded to whole bytes: which weights of a row are stored (formats.md §4.2).</summary>
internal static unsafe class BitMasks
{
    // Nibbles with two bits.
    private const int TwoBits = 1 << 0b0011 | 1 << 0b0101 | 1 << 0b0110 | 1 << 0b1001 | 1 << 0b1010 | 1 << 0b1100;

    /// <summary>Refuses a mask that does not have two bits in every four.</summary>
    /// <exception cref="EngineException">It has more or fewer somewhere.</exception>
    public static void RequireTwoOfFour(CodedModule module, TensorView mask, int columns)
    {
        if (columns % 4 != 0)
        {
            throw module.Error("shape", $"expected a multiple of 4 columns; found {columns}");
        }
        for (long row = 0; row < mask.Rows; row++)
        {
            ReadOnlySpan<byte> bytes = mask.Row(row);
            for (int group = 0; group < columns / 4; group++)
            {
                int nibble = bytes[group / 2] >> (group % 2 * 4) & 15;
                if ((TwoBits >> nibble & 1) == 0)
                {
                    throw module.Error("bitmask", $"expected two bits in every four; found {BitOperations.PopCount((uint)nibble)} at row {row}, column {4 * group}");
                }
            }
        }
    }

    /// <summary>Where the stored weights of each row begin, and their number last.</summary>
    /// <exception cref="EngineException">There are bits past the last column.</exception>
    public static long[] Offsets(TensorView mask, int columns, CodedModule module)
    {
        var offsets = new long[mask.Rows + 1];
        for (long row = 0; row < mask.Rows; row++)
        {
            long count = 0;
            ReadOnlySpan<byte> bytes = mask.Row(row);
            foreach (byte bits in bytes)
            {
                count += BitOperations.PopCount(bits);
            }
            if (columns % 8 != 0 && bytes[^1] >> (columns % 8) != 0)
            {
                throw module.Error("bitmask", $"there are bits past column {columns - 1} in row {row}");
            }
            offsets[row + 1] = offsets[row] + count;
        }
        return offsets;
    }

    /// <summary>Codes of rows of different lengths; <paramref name="flip"/> is also the code of zero.</summary>
    public static CodeReader Codes(TensorView kept, TensorView mask, long[] offsets, byte flip) => (row, destination) =>
    {
        long next = offsets[row];
        ReadOnlySpan<byte> bits = mask.Row(row);
        for (int column = 0; column < destination.Length; column++)
        {
            destination[column] = (byte)((bits[column / 8] >> (column % 8) & 1) == 0 ? flip : kept.Byte(next++) ^ flip);
        }
    };

    /// <summary>A matrix of floats, written out when it is asked for; packing finds its zeros again.</summary>
    public static CodedWeight Dense(string name, TensorView kept, TensorView mask, long[] offsets, long rows, int columns)
    {
        var known = new WeakReference<TensorView>(null!);
        Lock gate = new();
        return new CodedWeight(() =>
        {
            lock (gate)
            {
                if (!known.TryGetTarget(out TensorView? view))
                {
                    known.SetTarget(view = Expand(name, kept, mask, offsets, rows, columns));
                }
                return view;
            }
        });
    }

    private static TensorView Expand(string name, TensorView kept, TensorView mask, long[] offsets, long rows, int columns)
    {
        int bytes = kept.DType.Info().BlockBytes;
        var buffer = new UnmanagedBuffer(checked(rows * columns * bytes));
        byte* target = (byte*)buffer.Address, source = (byte*)kept.Address;
        for (long row = 0; row < rows; row++)
        {
            byte* next = source + offsets[row] * bytes;
            ReadOnlySpan<byte> bits = mask.Row(row);
            for (int column = 0; column < columns; column++, target += bytes)
            {
                if ((bits[column / 8] >> (column % 8) & 1) != 0)
                {
                    Buffer.MemoryCopy(next, target, bytes, bytes);
                    next += bytes;
                }
            }
        }
        GC.KeepAlive(kept.Owner);
        return new TensorView(name, kept.DType, [rows, columns], buffer.Address, rows * columns * bytes, buffer);
    }
}
