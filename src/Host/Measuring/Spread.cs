namespace Host.Measuring;

/// <summary>Repeated measurements of one quantity.</summary>
internal sealed record Spread(double Median, double Min, double Max)
{
    /// <summary>The spread of one measurement or more.</summary>
    public static Spread Of(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        double median = sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
        return new Spread(median, sorted[0], sorted[^1]);
    }
}
