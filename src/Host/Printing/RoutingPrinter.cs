using Host.CommandLine;
using Host.Inspection;
using Spectre.Console;

namespace Host.Printing;

/// <summary>
/// The load of experts in a terminal: a heat map with a row per layer and a cell per expert, in colours where there are any, else in shades; then a table and
/// a line about all layers.
/// </summary>
/// <param name="console">Where to.</param>
/// <param name="colours">Colours rather than shades.</param>
internal sealed class RoutingPrinter(IAnsiConsole console, bool colours)
{
    /// <summary>Unused experts that are listed; of the others only how many there are.</summary>
    private const int MostListed = 12;

    // From cold to hot, by load relative to the mean; told apart without red and green too.
    private static readonly (double Below, string Name, char Shade, Color Colour)[] levels =
    [
        (double.Epsilon, "never", '·', Color.Grey15),
        (0.5, "< ½", '░', Color.DeepSkyBlue4),
        (1, "½ – 1", '▒', Color.SkyBlue1),
        (2, "1 – 2", '▓', Color.Khaki1),
        (double.PositiveInfinity, "≥ 2", '█', Color.OrangeRed1),
    ];

    public void Print(RoutingResult result)
    {
        Write($"{Terminal.Visible(result.Path)}: {Terminal.Visible(result.Family)}, {result.Tokens} tokens\n");
        int experts = result.Layers.Max(static layer => layer.Experts), label = $"{result.Layers[^1].Layer}".Length;
        // A cell is two columns wide where there is room; a row that is still too long goes on in the next line.
        int room = Math.Max(16, console.Profile.Width - label - 8);
        int cell = 2 * experts <= room ? 2 : 1;
        foreach (LayerRoutingResult layer in result.Layers)
        {
            PrintRow(layer, label, cell, room / cell);
        }
        Write("load of an expert, mean = 1: ");
        foreach ((_, string name, char shade, Color colour) in levels)
        {
            Cell(shade, colour, 2);
            Write($" {name}   ");
        }
        Write("\n");
        console.Write(Table(result));
        RoutingSummary all = result.Summary;
        Write(
            $"mean entropy {all.EntropyBits:F2} bits, {all.EntropyFraction:P1} of the most possible; busiest: expert {all.Busiest.Expert} of layer "
            + $"{all.BusiestLayer} with {all.Busiest.Share:P1} of its choices; {all.Unused} of {all.Experts} experts never used\n");
    }

    private void PrintRow(LayerRoutingResult layer, int label, int cell, int perLine)
    {
        for (int expert = 0; expert < layer.Experts; expert++)
        {
            if (expert % perLine == 0)
            {
                Write(expert == 0 ? $"layer {$"{layer.Layer}".PadLeft(label)}  " : $"\n{new string(' ', label + 8)}");
            }
            if (layer.RelativeLoad(expert) is { } load)
            {
                (_, _, char shade, Color colour) = levels.First(level => load < level.Below);
                Cell(shade, colour, cell);
            }
            else
            {
                Write(new string(' ', cell)); // Dropped.
            }
        }
        Write("\n");
    }

    private static Table Table(RoutingResult result)
    {
        Table table = new Table().AddColumns("layer", "experts", "per token", "entropy, bits", "of the most", "busiest", "share", "never used");
        foreach (LayerRoutingResult layer in result.Layers)
        {
            table.AddRow(
                $"{layer.Layer}", layer.Slots == layer.Experts ? $"{layer.Experts}" : $"{layer.Experts} in {layer.Slots}", $"{layer.PerToken}",
                $"{layer.EntropyBits:F2}", $"{layer.EntropyFraction:P1}", $"{layer.Busiest.Expert}", $"{layer.Busiest.Share:P1}", Shortened(layer.Unused));
        }
        return table;
    }

    private static string Shortened(IReadOnlyList<int> experts) =>
        string.Join(", ", experts.Take(MostListed)) + (experts.Count > MostListed ? $" and {experts.Count - MostListed} more" : "");

    private void Cell(char shade, Color colour, int width) =>
        console.Write(colours ? new Verbatim(new string(' ', width), new Style(background: colour)) : new Verbatim(new string(shade, width), Style.Plain));

    private void Write(string text) => console.Write(new Verbatim(text, Style.Plain));
}
