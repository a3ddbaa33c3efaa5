using System.Diagnostics;
using Engine;

namespace Host.Measuring;

/// <summary>Tokens of one depth.</summary>
/// <param name="Depth">Recursions they went through.</param>
/// <param name="Tokens">How many there were.</param>
/// <param name="Milliseconds">Time of one.</param>
internal sealed record DepthPoint(int Depth, int Tokens, Spread Milliseconds);

/// <summary>
/// Time of a decoded token against its depth, one sequence, one token at a time: what a token costs that leaves early.
/// </summary>
/// <param name="Points">By depth.</param>
/// <param name="MillisecondsPerDepth">Slope of the least-squares line through the medians.</param>
/// <param name="MillisecondsOutside">Its value at depth 0: the layers outside the recursion, and the head.</param>
/// <param name="RSquared">How much of the spread between the medians the line explains; 1 where they lie on it.</param>
internal sealed record DepthCurve(IReadOnlyList<DepthPoint> Points, double MillisecondsPerDepth, double MillisecondsOutside, double RSquared)
{
    private const int TokensPerSequence = 64;

    /// <summary>Feeds random tokens and sorts the times by the depths that the model chose.</summary>
    public static DepthCurve Measure(LanguageModel model, int tokens, int seed, CancellationToken cancellationToken)
    {
        if (model.Plan.Layers.Recursion?.Router is null)
        {
            throw new EngineException("the model does not route tokens to depths: all take the same way", model.Path, "recursion");
        }
        Random random = new(seed);
        SortedDictionary<int, List<double>> times = [];
        int perSequence = Math.Min(TokensPerSequence, model.ContextLength);
        // The first sequence is not counted.
        for (int fed = -perSequence; fed < tokens;)
        {
            using LogitsSession session = model.CreateLogitsSession();
            for (int i = 0; i < perSequence && fed < tokens; i++, fed++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int token = random.Next(model.Plan.VocabularySize);
                long start = Stopwatch.GetTimestamp();
                session.Feed(token);
                double elapsed = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
                int depth = session.Depths[^1];
                if (fed >= 0)
                {
                    (times.TryGetValue(depth, out List<double>? of) ? of : times[depth] = []).Add(elapsed);
                }
            }
        }
        return Of([.. times.Select(static pair => new DepthPoint(pair.Key, pair.Value.Count, Spread.Of(pair.Value)))]);
    }

    /// <summary>Fits the line through the median of each depth.</summary>
    public static DepthCurve Of(IReadOnlyList<DepthPoint> points)
    {
        double meanX = points.Average(static point => point.Depth), meanY = points.Average(static point => point.Milliseconds.Median);
        double xx = points.Sum(point => Math.Pow(point.Depth - meanX, 2));
        double xy = points.Sum(point => (point.Depth - meanX) * (point.Milliseconds.Median - meanY));
        double yy = points.Sum(point => Math.Pow(point.Milliseconds.Median - meanY, 2));
        double slope = xx == 0 ? 0 : xy / xx;
        return new DepthCurve(points, slope, meanY - slope * meanX, xx * yy == 0 ? 1 : xy * xy / (xx * yy));
    }
}
