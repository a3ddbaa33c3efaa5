using Spectre.Console;
using Spectre.Console.Rendering;

namespace Host.Printing;

/// <summary>Text as it is: the console's own would break lines at its width, each piece by itself.</summary>
internal sealed class Verbatim(string text, Style style) : IRenderable
{
    public Measurement Measure(RenderOptions options, int maxWidth) => new(0, maxWidth);

    public IEnumerable<Segment> Render(RenderOptions options, int maxWidth) => [new Segment(text, style)];
}
