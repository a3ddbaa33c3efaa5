using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Engine.Text.Tokenization;

/// <summary>How the text of a token in a vocabulary stands for the bytes that it decodes to.</summary>
internal sealed record TokenSpelling
{
    /// <summary>The token is written in the <see cref="ByteAlphabet"/>.</summary>
    public bool ByteLevel { get; init; }

    /// <summary>Tokens like <c>&lt;0x0A&gt;</c> stand for one byte.</summary>
    public bool ByteTokens { get; init; }

    /// <summary>Strings that stand for others, such as SentencePiece's word marker for a space.</summary>
    public IReadOnlyList<(string From, string To)> Replacements { get; init; } = [];

    /// <summary>Decoded text loses one leading space: the one that the encoder put there.</summary>
    public bool StripLeadingSpace { get; init; }

    /// <summary>The bytes of an ordinary token.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public byte[] Bytes(string text)
    {
        if (ByteLevel)
        {
            var bytes = new byte[text.Length];
            // As the reference does, a token with a foreign character stands for itself.
            return ByteAlphabet.TryDecode(text, bytes) ? bytes : Encoding.UTF8.GetBytes(text);
        }
        if (ByteTokens && TryByte(text, out byte value))
            return [value];
        foreach ((string from, string to) in Replacements)
            text = text.Replace(from, to, StringComparison.Ordinal);
        return Encoding.UTF8.GetBytes(text);
    }

    /// <summary>Recognises <c>&lt;0xNN&gt;</c>.</summary>
    public static bool TryByte(string text, out byte value)
    {
        value = 0;
        return text.Length == 6 && text.StartsWith("<0x", StringComparison.Ordinal) && text[5] == '>'
            && byte.TryParse(text.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
    }

    /// <summary>The name of the token that stands for a byte.</summary>
    public static string ByteToken(int value) => $"<0x{value:X2}>";
}
