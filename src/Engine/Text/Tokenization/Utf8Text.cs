using System.Buffers;
using System.Text;
using System.Text.Unicode;

namespace Engine.Text.Tokenization;

/// <summary>Decodes the bytes of tokens, which may begin and end inside a character and need not be UTF-8 at all.</summary>
internal static class Utf8Text
{
    /// <summary>How many bytes at the end begin a character that more bytes could complete: 0 to 3.</summary>
    public static int IncompleteTail(ReadOnlySpan<byte> bytes)
    {
        for (int length = 1; length <= Math.Min(3, bytes.Length); length++)
        {
            byte value = bytes[^length];
            if (value < 0x80)
                return 0;
            if (value >= 0xC0)
                return Rune.DecodeFromUtf8(bytes[^length..], out _, out _) == OperationStatus.NeedMoreData ? length : 0;
        }
        return 0;
    }

    /// <summary>Decodes bytes; what is not UTF-8 becomes U+FFFD.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="replaceEachByte">
    /// Each invalid byte becomes U+FFFD, as where tokens stand for single bytes; else each longest beginning of a character does, as the
    /// Unicode standard recommends in section 3.9 and byte-level decoders do.
    /// </param>
    public static string Decode(ReadOnlySpan<byte> bytes, bool replaceEachByte)
    {
        if (!replaceEachByte || Utf8.IsValid(bytes))
            return Encoding.UTF8.GetString(bytes);
        var text = new StringBuilder(bytes.Length);
        Span<char> units = stackalloc char[2];
        while (bytes.Length > 0)
        {
            if (Rune.DecodeFromUtf8(bytes, out Rune rune, out int length) == OperationStatus.Done)
                text.Append(units[..rune.EncodeToUtf16(units)]);
            else
                text.Append('\uFFFD', length);
            bytes = bytes[length..];
        }
        return text.ToString();
    }
}
