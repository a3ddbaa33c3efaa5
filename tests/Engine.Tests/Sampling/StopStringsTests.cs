using System.Text;
using Engine.Sampling;
using Xunit;

namespace Engine.Tests.Sampling;

public sealed class StopStringsTests
{
    [Fact]
    public void AnySplitGivesWhatANaiveSearchGives()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        for (int round = 0; round < 5000; round++)
        {
            // Two letters make overlaps and self-overlaps frequent.
            string text = Letters(random, random.Next(0, 40));
            string[] stops = [.. Enumerable.Range(0, random.Next(0, 4)).Select(_ => Letters(random, random.Next(1, 6)))];
            (string before, string? match) = Naive(text, stops);

            StopStrings matcher = new(stops);
            StringBuilder found = new();
            for (int start = 0; start < text.Length && matcher.Match is null;)
            {
                int length = random.Next(0, Math.Min(6, text.Length - start) + 1);
                found.Append(matcher.Append(text.Substring(start, length), out _));
                start += length;
                string context = $"seed {seed}, round {round}, '{text}', stops {string.Join(',', stops)}, fed {start}: '{found}'";
                Assert.True(before.StartsWith(found.ToString(), StringComparison.Ordinal), context);
                if (matcher.Match is null)
                {
                    Assert.True(start - found.Length == LongestBeginning(text[..start], stops),
                        $"{context} holds back too much or too little");
                }
            }
            Assert.Equal(match, matcher.Match);
            found.Append(matcher.Flush());
            Assert.True(before == found.ToString(),
                $"seed {seed}, round {round}, '{text}', stops {string.Join(',', stops)}: '{found}' for '{before}'");
        }
    }

    [Fact]
    public void TextAfterAMatchIsIgnored()
    {
        StopStrings matcher = new(["\n\n", "END"]);
        Assert.Equal("one\ntwo", matcher.Append("one\ntwo\n", out _));
        Assert.Equal("\n", matcher.Append("E", out _));
        Assert.Equal("Ex", matcher.Append("x\n", out _));
        Assert.Equal("", matcher.Append("\nmore", out bool matched));
        Assert.True(matched);
        Assert.Equal("\n\n", matcher.Match);
        Assert.Equal("", matcher.Append("more", out _) + matcher.Flush());
    }

    [Fact]
    public void TheLongestOfThoseThatEndTogetherIsReported()
    {
        StopStrings matcher = new(["b", "ab", "abc"]);
        Assert.Equal("x", matcher.Append("xabc", out _));
        Assert.Equal("ab", matcher.Match);
    }

    [Fact]
    public void WithoutStopStringsPiecesPassUntouched()
    {
        string piece = new('x', 3);
        Assert.Same(piece, new StopStrings([]).Append(piece, out _));
        Assert.Same(piece, new StopStrings(["y"]).Append(piece, out _));
    }

    [Fact]
    public void AnEmptyStopStringIsRefused() =>
        Assert.Contains("stop string 1", Assert.Throws<EngineException>(() => new StopStrings(["a", ""])).Message);

    private static (string Before, string? Match) Naive(string text, string[] stops)
    {
        for (int end = 1; end <= text.Length; end++)
        {
            string? match = stops.Where(stop => text[..end].EndsWith(stop, StringComparison.Ordinal)).MaxBy(stop => stop.Length);
            if (match is not null)
            {
                return (text[..(end - match.Length)], match);
            }
        }
        return (text, null);
    }

    private static int LongestBeginning(string text, string[] stops)
    {
        int start = 0;
        while (start < text.Length && !stops.Any(stop => stop.StartsWith(text[start..], StringComparison.Ordinal)))
        {
            start++;
        }
        return text.Length - start;
    }

    private static string Letters(Random random, int count) => new([.. Enumerable.Range(0, count).Select(_ => "ab"[random.Next(2)])]);
}
