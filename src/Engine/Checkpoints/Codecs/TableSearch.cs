namespace Engine.Checkpoints.Codecs;

/// <summary>The search of <see cref="SymmetricSearch"/> for codes that stand for the numbers of a table.</summary>
internal static class TableSearch
{
    private const int Candidates = 7;

    /// <summary>Finds the scale such that x ≈ scale·K[q]; negative where that fits better.</summary>
    /// <param name="x">Weights.</param>
    /// <param name="table">K, ascending, the first of largest magnitude.</param>
    public static float Fit(ReadOnlySpan<float> x, ReadOnlySpan<sbyte> table)
    {
        float extreme = 0f;
        foreach (float value in x)
        {
            if (MathF.Abs(value) > MathF.Abs(extreme))
                extreme = value;
        }
        if (MathF.Abs(extreme) < SymmetricSearch.Smallest)
            return 0f;

        float bestScale = 0f, bestGain = 0f;
        for (int candidate = -Candidates; candidate <= Candidates; candidate++)
        {
            Try(x, extreme, table[0] + candidate, table, ref bestScale, ref bestGain);
            Try(x, extreme, table[^1] + candidate, table, ref bestScale, ref bestGain);
        }
        return bestScale * extreme;
    }

    /// <summary>The index of the nearest number of the table, the lower of two.</summary>
    public static int Nearest(float value, ReadOnlySpan<sbyte> table)
    {
        int low = 0, high = table.Length - 1;
        while (high - low > 1)
        {
            int middle = (low + high) / 2;
            if (value < table[middle])
                high = middle;
            else
                low = middle;
        }
        return value - table[low] <= table[high] - value ? low : high;
    }

    /// <summary>Solves for the scale under which the extreme weight is coded as some number, weights counting by their squares.</summary>
    private static void Try(ReadOnlySpan<float> x, float extreme, float number, ReadOnlySpan<sbyte> table, ref float bestScale, ref float bestGain)
    {
        float sumQX = 0f, sumQQ = 0f, unit = 1f / extreme;
        foreach (float raw in x)
        {
            float value = raw * unit, weight = value * value, code = table[Nearest(value * number, table)];
            sumQX += weight * value * code;
            sumQQ += weight * code * code;
        }
        if (sumQQ > 0 && sumQX * sumQX / sumQQ > bestGain)
            (bestScale, bestGain) = (sumQX / sumQQ, sumQX * sumQX / sumQQ);
    }
}
