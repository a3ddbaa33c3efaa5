using System.Runtime.CompilerServices;

namespace Engine.Text.Tokenization;

/// <summary>
/// The alphabet in which byte-level vocabularies write raw bytes: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and
/// up. Source: GPT-2's bytes_to_unicode.
/// </summary>
internal static class ByteAlphabet
{
    private const int Letters = 256 + 68;

    private static readonly char[] LetterOfByte = new char[256];
    private static readonly short[] ByteOfLetter = new short[Letters];

    static ByteAlphabet()
    {
        Array.Fill(ByteOfLetter, (short)-1);
        int next = 256;
        for (int value = 0; value < 256; value++)
        {
            bool printable = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            LetterOfByte[value] = (char)(printable ? value : next++);
            ByteOfLetter[LetterOfByte[value]] = (short)value;
        }
    }

    public static char Letter(byte value) => LetterOfByte[value];

    /// <summary>The byte that a letter stands for, or -1.</summary>
    public static int Byte(char letter) => letter < Letters ? ByteOfLetter[letter] : -1;

    /// <summary>Writes a token's text as bytes; false where it has a character that is not of the alphabet.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static bool TryDecode(ReadOnlySpan<char> text, Span<byte> bytes)
    {
        for (int i = 0; i < text.Length; i++)
        {
            int value = Byte(text[i]);
            if (value < 0)
                return false;
            bytes[i] = (byte)value;
        }
        return true;
    }
}
