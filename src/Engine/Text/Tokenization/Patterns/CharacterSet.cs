using System.Globalization;
using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;

namespace Engine.Text.Tokenization.Patterns;

/// <summary>
/// A set of Unicode code points, one bit each. .NET's own classes see the halves of a surrogate pair, so that a mathematical letter would
/// not be
/// <c>\p{L}</c>; tokenizers mean code points. A set is filled by its creator and never changes once it is part of a pattern.
/// </summary>
internal sealed class CharacterSet
{
    /// <summary>One more than the last code point.</summary>
    public const int CodePoints = 0x110000;

    private static readonly Lazy<byte[]> AllCategories = new(static () =>
    {
        var categories = new byte[CodePoints];
        for (int codePoint = 0; codePoint < CodePoints; codePoint++)
            categories[codePoint] = (byte)CharUnicodeInfo.GetUnicodeCategory(codePoint);
        return categories;
    });

    private readonly ulong[] bits = new ulong[CodePoints / 64];

    public bool Contains(int codePoint) => (bits[codePoint >> 6] >> (codePoint & 63) & 1) != 0;

    /// <summary>The code points whose general category is in a bit mask over <see cref="UnicodeCategory"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static CharacterSet OfCategories(uint mask)
    {
        var set = new CharacterSet();
        byte[] categories = AllCategories.Value;
        for (int word = 0; word < set.bits.Length; word++)
        {
            ulong members = 0;
            for (int bit = 0; bit < 64; bit++)
                members |= (ulong)(mask >> categories[word * 64 + bit] & 1) << bit;
            set.bits[word] = members;
        }
        return set;
    }

    public void Add(int codePoint) => bits[codePoint >> 6] |= 1UL << (codePoint & 63);

    /// <summary>Adds the code points from <paramref name="first"/> to <paramref name="last"/>, both included.</summary>
    public void AddRange(int first, int last)
    {
        for (int codePoint = first; codePoint <= last; codePoint++)
            Add(codePoint);
    }

    public void UnionWith(CharacterSet other)
    {
        for (int i = 0; i < bits.Length; i++)
            bits[i] |= other.bits[i];
    }

    public void IntersectWith(CharacterSet other)
    {
        for (int i = 0; i < bits.Length; i++)
            bits[i] &= other.bits[i];
    }

    public CharacterSet Complement()
    {
        var result = new CharacterSet();
        for (int i = 0; i < bits.Length; i++)
            result.bits[i] = ~bits[i];
        return result;
    }

    /// <summary>The members and their other case.</summary>
    public CharacterSet IgnoreCase()
    {
        var result = new CharacterSet();
        for (int word = 0; word < bits.Length; word++)
        {
            for (ulong members = bits[word]; members != 0; members &= members - 1)
            {
                int codePoint = word * 64 + BitOperations.TrailingZeroCount(members);
                result.Add(codePoint);
                if (!Rune.TryCreate(codePoint, out Rune rune))
                    continue;
                result.Add(Rune.ToLowerInvariant(rune).Value);
                result.Add(Rune.ToUpperInvariant(rune).Value);
            }
        }
        // The two letters beyond ASCII that fold into it: long s and the Kelvin sign.
        if (result.Contains('s'))
            result.Add(0x17F);
        if (result.Contains('k'))
            result.Add(0x212A);
        return result;
    }
}
