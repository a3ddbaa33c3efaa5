using System.Text;
using Engine.Checkpoints.Writing;
using Host.CommandLine;
using Host.Inspection;
using ScottPlot;
using ScottPlot.Plottables;

namespace Host.Printing;

/// <summary>The load of experts as a picture: a heat map, layers upwards, experts to the right.</summary>
internal static class RoutingPlot
{
    private const string Svg = ".svg", Png = ".png";

    /// <summary>Refuses a file whose ending names no format of pictures, and one that could not be written.</summary>
    /// <exception cref="UsageException">The ending is neither .svg nor .png.</exception>
    /// <exception cref="Engine.EngineException">The file could not be written.</exception>
    public static void Check(string path, string option)
    {
        if (Path.GetExtension(path).ToLowerInvariant() is not (Svg or Png))
        {
            throw new UsageException($"{option}: expected a file that ends in {Svg} or {Png}, found '{path}'");
        }
        AtomicFile.Check(path);
    }

    /// <summary>Writes the picture completely or not at all.</summary>
    public static void Write(string path, RoutingResult result, CancellationToken cancellationToken)
    {
        int experts = result.Layers.Max(static layer => layer.Experts);
        using Plot plot = Draw(result, experts);
        int width = Math.Clamp(14 * experts, 480, 2400) + 220, height = Math.Clamp(14 * result.Layers.Count, 200, 1600) + 120;
        byte[] picture = Path.GetExtension(path).Equals(Svg, StringComparison.OrdinalIgnoreCase)
            ? Encoding.UTF8.GetBytes(plot.GetSvgXml(width, height))
            : plot.GetImageBytes(width, height, ImageFormat.Png);
        AtomicFile.Write(path, stream => stream.Write(picture), cancellationToken);
    }

    private static Plot Draw(RoutingResult result, int experts)
    {
        double[,] load = new double[result.Layers.Count, experts];
        for (int row = 0; row < result.Layers.Count; row++)
        {
            for (int expert = 0; expert < experts; expert++)
            {
                LayerRoutingResult layer = result.Layers[row];
                // What is not a number is left blank: dropped experts, and those that only other layers have.
                load[row, expert] = expert < layer.Experts ? layer.RelativeLoad(expert) ?? double.NaN : double.NaN;
            }
        }
        Plot plot = new();
        Heatmap map = plot.Add.Heatmap(load);
        map.FlipVertically = true;
        map.Colormap = new ScottPlot.Colormaps.Viridis();
        plot.Add.ColorBar(map).Label = "load, mean = 1";
        plot.Axes.Margins(0, 0);
        plot.XLabel("expert");
        plot.YLabel("layer");
        plot.Title($"{Path.GetFileName(Path.TrimEndingDirectorySeparator(result.Path))}, {result.Tokens} tokens");
        int step = (result.Layers.Count + 31) / 32;
        double[] positions = [.. Enumerable.Range(0, result.Layers.Count).Where(row => row % step == 0).Select(static row => (double)row)];
        plot.Axes.Left.SetTicks(positions, [.. positions.Select(row => $"{result.Layers[(int)row].Layer}")]);
        return plot;
    }
}
