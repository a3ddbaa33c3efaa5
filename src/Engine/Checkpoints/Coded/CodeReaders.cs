using System.Numerics;

namespace Engine.Checkpoints.Coded;

/// <summary>The ways in which files pack codes.</summary>
internal static class CodeReaders
{
    /// <summary>A byte each, [rows, columns]; signed ones become unsigned by <paramref name="flip"/> 0x80.</summary>
    public static CodeReader Bytes(TensorView codes, byte flip) => (row, destination) =>
    {
        codes.Row(row).CopyTo(destination);
        if (flip != 0)
        {
            for (int i = 0; i < destination.Length; i++)
            {
                destination[i] ^= flip;
            }
        }
    };

    /// <summary>Words of 32 / bits codes, lowest first, [rows, words]: where bits do not divide 32, upper bits of a word are unused.</summary>
    public static CodeReader Words(TensorView codes, int bits) => (row, destination) =>
    {
        long first = row * codes.Columns;
        int perWord = 32 / bits;
        uint mask = (1u << bits) - 1;
        for (int i = 0; i < destination.Length;)
        {
            uint word = codes.Word(first++);
            for (int end = Math.Min(destination.Length, i + perWord); i < end; i++, word >>= bits)
            {
                destination[i] = (byte)(word & mask);
            }
        }
    };

    /// <summary>A stream of bits per row, [rows, words]: codes lie across words.</summary>
    public static CodeReader Stream(TensorView codes, int bits) => (row, destination) =>
    {
        long first = row * codes.Columns;
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = (byte)codes.Field(first, 1, i, bits);
        }
    };

    /// <summary>A stream of bits per output down the inputs, [words, rows] (GPTQ).</summary>
    public static CodeReader Columns(TensorView codes, int bits) => (row, destination) =>
    {
        long stride = codes.Columns;
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = (byte)codes.Field(row, stride, i, bits);
        }
    };

    /// <summary>Two in a byte, the even column low, [rows, columns / 2].</summary>
    public static CodeReader Nibbles(TensorView codes) => (row, destination) =>
    {
        ReadOnlySpan<byte> bytes = codes.Row(row);
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = (byte)(i % 2 == 0 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4);
        }
    };

    /// <summary>Two in a byte, the even element of the flat matrix high (bitsandbytes).</summary>
    public static CodeReader FlatNibbles(TensorView codes, int columns) => (row, destination) =>
    {
        long element = row * columns;
        for (int i = 0; i < destination.Length; i++, element++)
        {
            byte both = codes.Byte(element / 2);
            destination[i] = (byte)(element % 2 == 0 ? both >> 4 : both & 15);
        }
    };

    /// <summary>Kept bytes [rows, columns / 2] at the places that a mask has, a bit per column, lowest first; zero elsewhere.</summary>
    public static CodeReader Masked(TensorView kept, TensorView mask, byte flip, byte zero) => (row, destination) =>
    {
        ReadOnlySpan<byte> values = kept.Row(row), bits = mask.Row(row);
        destination.Fill(zero);
        int next = 0;
        for (int i = 0; i < bits.Length; i++)
        {
            for (uint left = bits[i]; left != 0; left &= left - 1)
            {
                destination[8 * i + BitOperations.TrailingZeroCount(left)] = (byte)(values[next++] ^ flip);
            }
        }
    };
}

/// <summary>The ways in which files store scales.</summary>
internal static class ScaleReaders
{
    /// <summary>
    /// Scales [rows, groups], [rows], [1] or, of blocks of rows, [⌈rows / rowsPerScale⌉, groups]; zero points none.
    /// </summary>
    /// <param name="scales">The tensor.</param>
    /// <param name="rowsPerScale">Rows that share scales; <see cref="long.MaxValue"/> for all.</param>
    /// <param name="perRow">Scales of a row in the tensor.</param>
    /// <param name="groups">Which of them each run has; null for its own number.</param>
    public static ScaleReader Floats(TensorView scales, long rowsPerScale, int perRow, ColumnGroups? groups = null) => (row, destination, _) =>
    {
        long first = row / rowsPerScale * perRow;
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = scales.Float(first + (groups?.ScaleOf(i) ?? i));
        }
    };
}
