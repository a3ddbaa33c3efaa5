using System.Text.RegularExpressions;
using Engine.Text.Tokenization.Loading;
using Engine.Text.Tokenization.Patterns;
using Xunit;

namespace Engine.Tests.Text;

/// <summary>The regular expressions of tokenizers.</summary>
public sealed class PatternTests
{
    [Fact]
    public void RandomTextIsCutAsDotNetCutsIt()
    {
        string[] patterns =
        [
            .. PatternFamily.All.SelectMany(static family => family.Patterns)
                .Where(static pattern => !pattern.Contains('\uD801', StringComparison.Ordinal)),
            "a*?b|(?:ab|a)+?c", "(?>a+)b|a", "[^a-c]{2,3}", "(?i:ABC)d?", @"\bx\b|^a|b$", "x{0,2}y", @"(?=ab)a|\[b", @"(?:a|b)*c",
        ];
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        const string Alphabet = " aabbcdxyABZ'sStlLre1239\n\r\t.,!_$+—é中ー가½ \u00A0\u3000";
        foreach (string pattern in patterns)
        {
            var ours = Pattern.Compile(pattern);
            // .NET's $ is the end or before a final line break; the dialect's is the end of any line.
            var regex = new Regex(pattern, RegexOptions.CultureInvariant | RegexOptions.Multiline);
            for (int round = 0; round < 200; round++)
            {
                string text = new([.. Enumerable.Range(0, random.Next(30)).Select(_ => Alphabet[random.Next(Alphabet.Length)])]);
                string expected = string.Join(' ', regex.Matches(text)
                    .Select(static match => $"{match.Index}-{match.Index + match.Length}"));
                string found = Matches(ours, text);
                Assert.True(expected == found, $"seed {seed}, {pattern} on \"{text}\"\nexpected {expected}\nfound    {found}");
            }
        }
    }

    [Theory]
    [InlineData(@"\p{L}+", "𝒜𝓁a𐍈1", "0-7")]
    [InlineData(@"[𐐀-𐑏]+|.", "a𐐀𐑏", "0-1 1-5")]
    [InlineData(@"[\p{L}&&[^\p{Han}]]+", "ab中文c", "0-2 4-5")]
    [InlineData(@"\p{Han}+", "a中文𠀀b", "1-5")]
    [InlineData("a++a|b", "aaab", "3-4")]
    [InlineData("a?+a", "aa", "0-2")]
    [InlineData(@"\x41\u0042\x{43}", "ABC", "0-3")]
    [InlineData(@"\s+$", "  a  \n b ", "3-5 8-9")]
    [InlineData(@"(?=\d)", "a1b2", "1-1 3-3")]
    public void DialectGoesBeyondDotNets(string pattern, string text, string expected) =>
        Assert.Equal(expected, Matches(Pattern.Compile(pattern), text));

    [Fact]
    public void LoneSurrogateIsACharacterThatIsNoLetter() => Assert.Equal("1-2", Matches(Pattern.Compile(@"\P{L}"), "a\uD800b"));

    [Theory]
    [InlineData("(")]
    [InlineData(")")]
    [InlineData("[a")]
    [InlineData("[b-a]")]
    [InlineData("*a")]
    [InlineData("\\")]
    [InlineData("a{2,1}")]
    [InlineData("a{9999}")]
    [InlineData("(?<=a)b")]
    [InlineData(@"\p{Nonsense}")]
    [InlineData(@"\p{L")]
    [InlineData(@"(a)\1")]
    [InlineData(@"\x{110000}")]
    [InlineData("((((((((((a{500}){500}){500}){500}){500}){500}){500}){500}){500}){500})")]
    public void UnusablePatternIsRefused(string pattern) => Assert.Throws<EngineException>(() => Pattern.Compile(pattern));

    [Fact]
    public void NestingAndSizeAreBounded()
    {
        Assert.Throws<EngineException>(() => Pattern.Compile(new string('(', 5000) + new string(')', 5000)));
        Assert.Throws<EngineException>(() => Pattern.Compile("a" + new string('+', 5000)));
        Assert.Throws<EngineException>(() => Pattern.Compile(string.Concat(Enumerable.Repeat("[ab]", 1000))));
        Assert.Throws<EngineException>(() => Pattern.Compile(new string('a', 20_000)));
    }

    [Fact]
    public void CatastrophicBacktrackingEndsInAnError()
    {
        string text = new('a', 100);
        Assert.Throws<EngineException>(() => Matches(Pattern.Compile("(?:a+)+b"), text));
        Assert.Throws<EngineException>(() => Matches(Pattern.Compile("(?:a*)*b"), text));
    }

    [Fact]
    public void RunThatCannotEndInAMatchIsScannedOnce()
    {
        string text = new string(' ', 1 << 20) + "x";
        Assert.Equal("", Matches(Pattern.Compile(@"\s+$"), text));
    }

    private static string Matches(Pattern pattern, string text)
    {
        var found = new List<string>();
        Pattern.Scan scan = pattern.Over(text);
        while (scan.MoveNext(out int start, out int end))
            found.Add($"{start}-{end}");
        return string.Join(' ', found);
    }
}
