using System.Numerics;

namespace Engine.Sampling;

/// <summary>The likeliest token; the lowest id of several.</summary>
internal static class Greedy
{
    /// <summary>The first index of a value that is known to be there. −0 and +0 are equal.</summary>
    public static int FirstIndexOf(ReadOnlySpan<float> logits, float maximum)
    {
        int start = 0;
        Vector<float> wanted = new(maximum);
        while (start + Vector<float>.Count <= logits.Length && !Vector.EqualsAny(new Vector<float>(logits[start..]), wanted))
        {
            start += Vector<float>.Count;
        }
        while (logits[start] != maximum)
        {
            start++;
        }
        return start;
    }
}
