using Engine.Text;

namespace Host.Printing;

/// <summary>
/// What each token of a sequence adds to its text, special tokens spelled out; of a model without a tokenizer, its id. A character of several
/// tokens belongs to the last of them.
/// </summary>
/// <param name="tokenizer">The model's tokenizer, or null.</param>
internal sealed class TokenTexts(Tokenizer? tokenizer)
{
    private const string Unknown = "\uFFFD";

    private readonly Detokenizer? detokenizer = tokenizer?.CreateDetokenizer();
    private bool isFirst = true;

    /// <summary>Takes the next token.</summary>
    public string Append(int id)
    {
        string separator = isFirst ? "" : " ";
        isFirst = false;
        if (tokenizer is null)
        {
            return $"{separator}{id}";
        }
        // Models have more rows than their vocabulary has tokens.
        return id < tokenizer.VocabularySize ? detokenizer!.Append(id) : Unknown;
    }

    /// <summary>The end of the sequence: what stands for a character that was never completed.</summary>
    public string Flush() => detokenizer?.Flush() ?? "";
}
