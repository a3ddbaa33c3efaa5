using Engine.Checkpoints;

namespace Engine.Transforms.Pruning;

/// <summary>Finds neurons of gated feed-forwards, h = act(gate·x) ⊙ (up·x), y = down·h, that contribute nothing whatever x is.</summary>
internal static class ZeroNeurons
{
    private const int Samples = 4;

    /// <summary>
    /// Some neuron of a feed-forward has a column of down that is zero in four rows of it: of one that was not pruned so many zeros do not meet.
    /// </summary>
    public static bool Suspects(StoredFeedForward feedForward)
    {
        bool[] zero = NewMask(feedForward);
        int left = zero.Length;
        foreach (long row in Spread(feedForward.Down.Rows))
        {
            left = Narrow(zero, feedForward.Down, row);
        }
        return left > 0;
    }

    /// <summary>Up to four of a number of things, the first and the last among them.</summary>
    public static IEnumerable<long> Spread(long count) =>
        Enumerable.Range(0, Samples).Select(sample => sample * (count - 1) / (Samples - 1)).Distinct();

    /// <summary>
    /// The neurons that contribute nothing, true: those whose column of down is zero; and where the activation of 0 is 0 and is multiplied with up as it is, also
    /// those of which the row of gate or that of up is zero. −0 counts as 0.
    /// </summary>
    /// <param name="feedForward">The feed-forward.</param>
    /// <param name="vanishes">act(0) ⊙ u = 0 and act(g) ⊙ 0 = 0; there are no biases of gate and up.</param>
    public static bool[] Find(StoredFeedForward feedForward, bool vanishes)
    {
        bool[] zero = NewMask(feedForward);
        int left = zero.Length;
        for (long row = 0; row < feedForward.Down.Rows && left > 0; row++)
        {
            left = Narrow(zero, feedForward.Down, row);
        }
        foreach (TensorView rows in vanishes ? new[] { feedForward.Gate, feedForward.Up } : [])
        {
            var values = new float[rows.Columns];
            for (int neuron = 0; neuron < zero.Length; neuron++)
            {
                if (!zero[neuron])
                {
                    rows.DecodeRow(neuron, values);
                    zero[neuron] = !values.AsSpan().ContainsAnyExcept(0f);
                }
            }
        }
        feedForward.Gate.Evict();
        feedForward.Up.Evict();
        feedForward.Down.Evict();
        return zero;
    }

    private static bool[] NewMask(StoredFeedForward feedForward)
    {
        var mask = new bool[feedForward.Width];
        Array.Fill(mask, true);
        return mask;
    }

    /// <summary>Forgets columns that are not zero in a row, and counts the others.</summary>
    private static int Narrow(bool[] zero, TensorView down, long row)
    {
        var values = new float[zero.Length];
        down.DecodeRow(row, values);
        int left = 0;
        for (int i = 0; i < zero.Length; i++)
        {
            zero[i] &= values[i] == 0;
            left += zero[i] ? 1 : 0;
        }
        return left;
    }
}
