using Engine.Generation;
using Spectre.Console;

namespace Host.Printing;

/// <summary>
/// Prompt and text with the recursion depth of every token: as its colour, or as a mark <c>⟨2⟩</c> before it where there are no colours. A token's
/// depth comes with the token after it, so the text is one token behind; the last token was fed to nobody, and has no colour and the mark <c>⟨⟩</c>.
/// </summary>
/// <param name="console">Where to.</param>
/// <param name="colours">Colours rather than marks.</param>
/// <param name="texts">Texts of the sequence's tokens, at its beginning.</param>
/// <param name="promptIds">The prompt.</param>
/// <param name="depths">Recursions of the model.</param>
internal sealed class DepthPrinter(IAnsiConsole console, bool colours, TokenTexts texts, IReadOnlyList<int> promptIds, int depths)
    : ITokenPrinter
{
    // From shallow and cold to deep and hot; told apart without red and green too. Text on them is black.
    private static readonly Color[] palette =
    [
        Color.SkyBlue1, Color.Khaki1, Color.Orange1, Color.Salmon1, Color.Orchid, Color.MediumPurple1, Color.Grey74, Color.White,
    ];

    private readonly List<int> shown = [];
    private string? pending;

    public void Begin()
    {
    }

    public void Add(in GeneratedToken token)
    {
        if (pending is null)
        {
            for (int position = 0; position < promptIds.Count; position++)
            {
                Show(texts.Append(promptIds[position]), token.PromptDepths[position]);
            }
        }
        else
        {
            Show(pending, token.Depth);
        }
        pending = texts.Append(token.Id);
    }

    public void End()
    {
        Write(colours ? $"{pending}{texts.Flush()}" : $"⟨⟩{pending}{texts.Flush()}", Style.Plain);
        Write("\n", Style.Plain);
        foreach (DepthCount count in DepthCount.Of(shown, depths))
        {
            Write(Mark(count.Depth), StyleOf(count.Depth));
            Write($" {count.Tokens} tokens, {count.Share:P1}   ", Style.Plain);
        }
        Write($"mean {shown.Average():F2} of {depths}\n", Style.Plain);
    }

    private void Show(string text, int depth)
    {
        shown.Add(depth);
        Write(colours ? text : $"{Mark(depth)}{text}", StyleOf(depth));
    }

    private string Mark(int depth) => colours ? $" {depth} " : $"⟨{depth}⟩";

    private Style StyleOf(int depth) => colours ? new Style(Color.Black, palette[(depth - 1) % palette.Length]) : Style.Plain;

    private void Write(string text, Style style) => console.Write(new Verbatim(text, style));
}
