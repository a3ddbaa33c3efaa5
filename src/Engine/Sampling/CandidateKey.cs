namespace Engine.Sampling;

/// <summary>
/// A number and an index in 64 bits that sort ascending as (number descending, index ascending): one integer comparison orders
/// candidates and breaks ties by the lowest id, and the runtime's sort of <c>ulong</c> needs no comparer.
/// </summary>
internal static class CandidateKey
{
    private const uint SignBit = 0x8000_0000;

    /// <summary>Packs a number (not NaN) and a non-negative index.</summary>
    public static ulong Pack(float value, int index)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value + 0f); // −0 becomes +0: they are ties
        // IEEE bits of positive numbers grow with the number and of negative ones shrink, so this is descending in both.
        uint descending = (bits & SignBit) != 0 ? bits : ~(bits | SignBit);
        return ((ulong)descending << 32) | (uint)index;
    }

    /// <summary>The number of a key.</summary>
    public static float Value(ulong key)
    {
        uint descending = (uint)(key >> 32);
        return BitConverter.UInt32BitsToSingle((descending & SignBit) != 0 ? descending : ~(descending | SignBit));
    }

    /// <summary>The index of a key.</summary>
    public static int Index(ulong key) => (int)(uint)key;

    /// <summary>
    /// Extends the sorted front of <paramref name="keys"/> from <paramref name="sorted"/> to <paramref name="count"/> keys; what
    /// follows is larger, in no order.
    /// </summary>
    public static void SortFront(Span<ulong> keys, int sorted, int count)
    {
        Select(keys[sorted..], count - sorted);
        keys[sorted..count].Sort();
    }

    /// <summary>Rearranges keys so that the smallest <paramref name="count"/> come first, in no order: quickselect, O(n).</summary>
    public static void Select(Span<ulong> keys, int count)
    {
        // Bad pivots are bounded as in introsort: past this budget the rest is sorted.
        int budget = 2 * (int)(uint.Log2((uint)keys.Length | 1) + 1);
        while (count > 0 && count < keys.Length)
        {
            if (budget-- == 0)
            {
                keys.Sort();
                return;
            }
            int boundary = Partition(keys);
            if (boundary >= count)
            {
                keys = keys[..boundary];
            }
            else
            {
                keys = keys[boundary..];
                count -= boundary;
            }
        }
    }

    /// <summary>
    /// Hoare's partition around a median of three: no key of the left exceeds one of the right. Keys are distinct and at least two, so the
    /// median is never the maximum and both sides are non-empty.
    /// </summary>
    private static int Partition(Span<ulong> keys)
    {
        ulong first = keys[0], middle = keys[(keys.Length - 1) / 2], last = keys[^1];
        ulong pivot = Math.Max(Math.Min(first, middle), Math.Min(Math.Max(first, middle), last));
        int left = -1, right = keys.Length;
        while (true)
        {
            while (keys[++left] < pivot)
            {
            }
            while (keys[--right] > pivot)
            {
            }
            if (left >= right)
            {
                return right + 1;
            }
            (keys[left], keys[right]) = (keys[right], keys[left]);
        }
    }
}
