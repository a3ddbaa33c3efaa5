using System.Runtime.CompilerServices;

namespace Engine.Text.Tokenization.Patterns;

/// <summary>Reads UTF-16 by code points; a lone surrogate is a code point of its own.</summary>
internal static class CodePoints
{
    /// <summary>The code point that begins at a position, and how many UTF-16 units it takes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int At(ReadOnlySpan<char> text, int position, out int length)
    {
        char first = text[position];
        if (char.IsHighSurrogate(first) && position + 1 < text.Length && char.IsLowSurrogate(text[position + 1]))
        {
            length = 2;
            return char.ConvertToUtf32(first, text[position + 1]);
        }
        length = 1;
        return first;
    }

    /// <summary>The position where the code point before <paramref name="position"/> begins.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Before(ReadOnlySpan<char> text, int position) =>
        position >= 2 && char.IsLowSurrogate(text[position - 1]) && char.IsHighSurrogate(text[position - 2]) ? position - 2 : position - 1;
}
