using System.Text.Json;
using System.Text.Unicode;

namespace Engine.Checkpoints;

/// <summary>
/// Checks JSON once before it is parsed. The parser looks into strings and names only when they are asked for, and one that is no text would
/// surface wherever that is, as an exception that names no file.
/// </summary>
internal static class JsonText
{
    /// <summary>Checks that every string and name is Unicode text: valid UTF-8, and no escape that is half of a surrogate pair.</summary>
    /// <exception cref="JsonException">It is no JSON, or holds a string that is no text.</exception>
    public static void RequireUnicode(ReadOnlySpan<byte> json, JsonReaderOptions options = default)
    {
        if (!Utf8.IsValid(json))
            throw new JsonException("it is not valid UTF-8");
        var reader = new Utf8JsonReader(json, options);
        while (reader.Read())
        {
            if (!reader.ValueIsEscaped)
                continue;
            try
            {
                _ = reader.GetString();
            }
            catch (InvalidOperationException exception)
            {
                throw new JsonException($"the string that begins at byte {reader.TokenStartIndex} is not Unicode text", exception);
            }
        }
    }
}
