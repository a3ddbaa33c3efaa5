namespace Engine.Text.Tokenization;

/// <summary>Turns pieces of text into tokens. Safe for any number of threads.</summary>
internal abstract class SubwordModel
{
    /// <summary>Appends the ids of a piece, which is not empty.</summary>
    public abstract void Encode(ReadOnlySpan<char> piece, List<int> ids);
}
