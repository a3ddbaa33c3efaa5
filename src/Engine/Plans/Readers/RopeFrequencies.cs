namespace Engine.Plans.Readers;

/// <summary>
/// Inverse frequencies of rotary embeddings and the published rules that stretch them to longer contexts. Radians per position, one per
/// pair.
/// </summary>
internal static class RopeFrequencies
{
    /// <summary>θ^(−2i/d) (Su et al. 2021, section 3.2.2).</summary>
    public static double[] Plain(double theta, int dimensions)
    {
        double[] frequencies = new double[dimensions / 2];
        for (int pair = 0; pair < frequencies.Length; pair++)
        {
            frequencies[pair] = Math.Pow(theta, -2.0 * pair / dimensions);
        }
        return frequencies;
    }

    /// <summary>Positions divided by a factor (Chen et al. 2023, position interpolation).</summary>
    public static void ScaleLinearly(Span<double> frequencies, double factor)
    {
        foreach (ref double frequency in frequencies)
        {
            frequency /= factor;
        }
    }

    /// <summary>
    /// Llama 3.1: wavelengths above originalContext / lowFrequencyFactor are divided by the factor, those below originalContext /
    /// highFrequencyFactor
    /// are kept, and those between are blended.
    /// </summary>
    public static void ScaleLlama3(
        Span<double> frequencies, double factor, double lowFrequencyFactor, double highFrequencyFactor, double originalContext)
    {
        foreach (ref double frequency in frequencies)
        {
            double turns = originalContext * frequency / (2 * Math.PI); // full rotations over the original context
            if (turns < lowFrequencyFactor)
            {
                frequency /= factor;
            }
            else if (turns <= highFrequencyFactor)
            {
                double kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
                frequency = (1 - kept) * frequency / factor + kept * frequency;
            }
        }
    }

    /// <summary>
    /// YaRN's NTK-by-parts (Peng et al. 2023, section 3.2): pairs that turn more than <paramref name="fastTurns"/> times over the original
    /// context are kept,
    /// those that turn less than <paramref name="slowTurns"/> times are divided by the factor, with a ramp over the pair's index between.
    /// </summary>
    public static void ScaleYarn(
        Span<double> frequencies, double theta, double factor, double fastTurns, double slowTurns, double originalContext, bool wholePairs)
    {
        int dimensions = frequencies.Length * 2;
        double first = PairThatTurns(fastTurns);
        double last = PairThatTurns(slowTurns);
        if (wholePairs)
        {
            (first, last) = (Math.Floor(first), Math.Ceiling(last));
        }
        first = Math.Max(first, 0);
        last = Math.Min(last, dimensions - 1);
        if (first == last)
        {
            last += 0.001; // the reference implementation's guard against a ramp of no width
        }
        for (int pair = 0; pair < frequencies.Length; pair++)
        {
            double interpolated = Math.Clamp((pair - first) / (last - first), 0, 1);
            frequencies[pair] = interpolated * frequencies[pair] / factor + (1 - interpolated) * frequencies[pair];
        }

        double PairThatTurns(double turns) => dimensions * Math.Log(originalContext / (turns * 2 * Math.PI)) / (2 * Math.Log(theta));
    }

    /// <summary>YaRN's factor on attention (Peng et al. 2023, section 3.4): 0.1·m·ln(factor) + 1.</summary>
    public static double YarnMagnitude(double factor, double multiplier = 1) => factor <= 1 ? 1 : 0.1 * multiplier * Math.Log(factor) + 1;
}
