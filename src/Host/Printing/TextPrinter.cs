using Engine.Generation;

namespace Host.Printing;

/// <summary>The text, and nothing else.</summary>
/// <param name="output">Where to.</param>
/// <param name="prompt">What it continues, as it was given; or null.</param>
/// <param name="hasText">False where the model has no tokenizer, and there are only ids to show.</param>
internal sealed class TextPrinter(TextWriter output, string? prompt, bool hasText) : ITokenPrinter
{
    private string separator = "";

    public void Begin() => output.Write(prompt);

    public void Add(in GeneratedToken token)
    {
        output.Write(hasText ? token.Text : $"{separator}{token.Id}");
        separator = ",";
    }

    public void End() => output.WriteLine();
}
