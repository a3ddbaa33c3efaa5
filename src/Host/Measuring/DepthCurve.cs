using System.Diagnostics;
using Engine;

namespace Host.Measuring;

/// <summary>
/// Time per token against depth: random tokens are fed one at a time, and each is timed by how deep it went. If a token that leaves early costs nothing behind its exit,
/// the times lie on a straight line.
/// </summary>
internal static class DepthCurve
{
    /// <summary>Measures a model that routes tokens to depths.</summary>
    /// <exception cref="EngineException">The model has no recursion with a router, or all tokens went to one depth.</exception>
    public static DepthCurveResult Measure(LanguageModel model, int tokens, CancellationToken cancellationToken)
    {
        if (model.Plan.Layers.Recursion?.Router is null)
        {
            throw new EngineException("the model does not route tokens to depths", model.Path, "--depth-curve");
        }
        var random = new Random(1);
        var times = new SortedDictionary<int, List<double>>();
        using LogitsSession session = model.CreateLogitsSession();
        for (int i = 0; i < tokens; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long start = Stopwatch.GetTimestamp();
            session.Feed(random.Next(model.Plan.VocabularySize));
            double milliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            int depth = session.Depths[^1];
            if (!times.TryGetValue(depth, out List<double>? list))
            {
                times[depth] = list = [];
            }
            list.Add(milliseconds);
        }
        DepthTime[] points = [.. times.Select(static pair => new DepthTime(pair.Key, pair.Value.Count, Spread.Of(pair.Value)))];
        return points.Length > 1
            ? Fit(points)
            : throw new EngineException($"all {tokens} tokens went to depth {points[0].Depth}, which makes no line", model.Path, "--depth-curve");
    }

    /// <summary>The least-squares line through the medians, weighted by the tokens behind each.</summary>
    internal static DepthCurveResult Fit(IReadOnlyList<DepthTime> points)
    {
        double n = points.Sum(static p => (double)p.Tokens);
        double x = points.Sum(static p => p.Tokens * (double)p.Depth) / n, y = points.Sum(static p => p.Tokens * p.Milliseconds.Median) / n;
        double xx = points.Sum(p => p.Tokens * (p.Depth - x) * (p.Depth - x));
        double xy = points.Sum(p => p.Tokens * (p.Depth - x) * (p.Milliseconds.Median - y));
        double yy = points.Sum(p => p.Tokens * (p.Milliseconds.Median - y) * (p.Milliseconds.Median - y));
        return new DepthCurveResult(points, y - xy / xx * x, xy / xx, yy == 0 ? 1 : xy * xy / (xx * yy));
    }
}

/// <summary>Tokens of one depth.</summary>
/// <param name="Depth">Recursions.</param>
/// <param name="Tokens">How many went so deep.</param>
/// <param name="Milliseconds">Their times.</param>
internal sealed record DepthTime(int Depth, int Tokens, Spread Milliseconds);

/// <summary>Times by depth and the line through them.</summary>
/// <param name="Depths">By depth.</param>
/// <param name="BaseMilliseconds">The line at depth 0: what every token costs.</param>
/// <param name="MillisecondsPerDepth">Its slope.</param>
/// <param name="RSquared">The part of the variance that the line explains.</param>
internal sealed record DepthCurveResult(
    IReadOnlyList<DepthTime> Depths, double BaseMilliseconds, double MillisecondsPerDepth, double RSquared);
