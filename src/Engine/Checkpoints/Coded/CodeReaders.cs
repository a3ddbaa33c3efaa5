using System.Buffers.Binary;
using System.Numerics.Tensors;
using System.Runtime.CompilerServices;

namespace Engine.Checkpoints.Coded;

/// <summary>The ways in which files pack codes.</summary>
internal static class CodeReaders
{
    // Codes that are written at once: 4-bit ones of a word.
    private const int AtOnce = 8;

    /// <summary>A byte each, [rows, columns]; signed ones become unsigned by <paramref name="flip"/> 0x80.</summary>
    public static CodeReader Bytes(TensorView codes, byte flip) => (row, destination) =>
    {
        codes.Row(row).CopyTo(destination);
        Flip(destination, flip);
    };

    /// <summary>Words of 32 / bits codes, lowest first, [rows, words]: where bits do not divide 32, upper bits of a word are unused.</summary>
    public static CodeReader Words(TensorView codes, int bits) => (row, destination) =>
    {
        long word = row * codes.Columns;
        for (int i = 0; i < destination.Length; i += 32 / bits)
        {
            Unpack(codes.Word(word++), bits, destination[i..]);
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

    /// <summary>
    /// A stream of bits per output down the inputs, [words, rows] (GPTQ). Sixteen rows that follow each other share their cache lines, one for each word of a row.
    /// </summary>
    public static CodeReader Columns(TensorView codes, int bits) => (row, destination) =>
    {
        long stride = codes.Columns, word = row;
        if (32 % bits == 0)
        {
            for (int i = 0; i < destination.Length; i += 32 / bits, word += stride)
            {
                Unpack(codes.Word(word), bits, destination[i..]);
            }
            return;
        }
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = (byte)codes.Field(row, stride, i, bits);
        }
    };

    /// <summary>Two in a byte, the even column low, [rows, columns / 2].</summary>
    public static CodeReader Nibbles(TensorView codes) => (row, destination) =>
    {
        ReadOnlySpan<byte> bytes = codes.Row(row);
        int i = 0;
        for (; i <= destination.Length - AtOnce; i += AtOnce)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(destination[i..], Spread(BinaryPrimitives.ReadUInt32LittleEndian(bytes[(i / 2)..])));
        }
        for (; i < destination.Length; i++)
        {
            destination[i] = (byte)(i % 2 == 0 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4);
        }
    };

    /// <summary>Two in a byte, the even element of the flat matrix high (bitsandbytes).</summary>
    public static CodeReader FlatNibbles(TensorView codes, int columns) => (row, destination) =>
    {
        const uint low = 0x0F0F0F0F;
        long element = row * columns;
        int i = 0;
        if (element % 2 != 0)
        {
            destination[i++] = (byte)(codes.Byte(element / 2) & 15);
        }
        for (; i <= destination.Length - AtOnce; i += AtOnce)
        {
            uint both = Unsafe.ReadUnaligned<uint>(in codes.Slice((element + i) / 2, sizeof(uint))[0]);
            BinaryPrimitives.WriteUInt64LittleEndian(destination[i..], Spread((both & low) << 4 | both >> 4 & low));
        }
        for (; i < destination.Length; i++)
        {
            byte both = codes.Byte((element + i) / 2);
            destination[i] = (byte)((element + i) % 2 == 0 ? both >> 4 : both & 15);
        }
    };

    /// <summary>Turns signed bytes into unsigned codes by 0x80, or leaves them as they are by 0.</summary>
    public static void Flip(Span<byte> codes, byte flip)
    {
        if (flip != 0)
        {
            TensorPrimitives.Xor(codes, flip, codes);
        }
    }

    /// <summary>The codes of a word, lowest first, as many as there is room for.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Unpack(uint word, int bits, Span<byte> destination)
    {
        if (bits == 4 && destination.Length >= AtOnce)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(destination, Spread(word));
            return;
        }
        uint mask = (1u << bits) - 1;
        int count = Math.Min(32 / bits, destination.Length);
        for (int i = 0; i < count; i++, word >>= bits)
        {
            destination[i] = (byte)(word & mask);
        }
    }

    /// <summary>Eight nibbles as bytes, lowest first.</summary>
    private static ulong Spread(uint nibbles)
    {
        ulong spread = nibbles;
        spread = (spread | spread << 16) & 0x0000_FFFF_0000_FFFF;
        spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF;
        return (spread | spread << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    }
}
