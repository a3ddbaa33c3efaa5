using System.Text;
using System.Text.Json.Nodes;
using Engine.Text;
using Engine.Text.Tokenization;
using Engine.Text.Tokenization.Loading;
using Engine.Text.Tokenization.Unicode;
using Microsoft.ML.Tokenizers;
using Xunit;
using Tokenizer = Engine.Text.Tokenizer;

namespace Engine.Tests.Text;

/// <summary>Encoding, on small vocabularies whose answers are plain, and against independent implementations.</summary>
public sealed class TokenizerEncodeTests
{
    [Fact]
    public void ByteLevelWordsMergeByRank()
    {
        Tokenizer tokenizer = SmallTokenizers.Load(SmallTokenizers.ByteLevel());
        Assert.Equal("hello| he|l|o", Texts(tokenizer, "hello helo"));
        Assert.Equal("aaaa|aa|a", Texts(tokenizer, "aaaaaaa"));
        Assert.Equal("é|<|end|>|<tool>", string.Join('|', tokenizer.Encode("é<|end|><tool>").Select(id => tokenizer.Decode([id]))));
    }

    [Fact]
    public void CharactersFallBackToBytes()
    {
        Tokenizer tokenizer = SmallTokenizers.Load(SmallTokenizers.Characters());
        Assert.Equal([1, 3 + 0xE4, 3 + 0xB8, 3 + 0xAD], tokenizer.Encode("中").Where(id => id != tokenizer.FindToken("▁")).ToArray());
        Assert.Equal([tokenizer.FindToken("▁"), tokenizer.FindToken("hell"), tokenizer.FindToken("▁▁"), tokenizer.FindToken("▁he")],
            tokenizer.Encode("hell   he", addSpecial: false).Select(static id => (int?)id).ToArray());
    }

    [Fact]
    public void AllFormsOfACharacterVocabularyAgree()
    {
        Tokenizer json = SmallTokenizers.Load(SmallTokenizers.Characters());
        Tokenizer model = SmallTokenizers.Load("tokenizer.model", SmallTokenizers.SentencePiece());
        Tokenizer binary = SmallTokenizers.Load("tokenizer.bin", SmallTokenizers.Llama2c());
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 1000; round++)
        {
            string text = RandomText(random, " helo aa123é中x");
            int[] ids = json.Encode(text);
            Assert.True(ids.AsSpan().SequenceEqual(model.Encode(text)), $"seed {seed}, round {round}: \"{text}\"");
            Assert.True(ids.AsSpan().SequenceEqual(binary.Encode(text)), $"seed {seed}, round {round}: \"{text}\"");
            Assert.Equal(text, json.Decode(ids, skipSpecial: true));
        }
    }

    [Fact]
    public void RandomTextAgreesWithMicrosoftsBytePairs()
    {
        JsonObject json = SmallTokenizers.ByteLevel();
        Tokenizer tokenizer = SmallTokenizers.Load(json);
        JsonObject vocabulary = json["model"]!["vocab"]!.AsObject();
        var options = new BpeOptions(vocabulary.Select(static pair => KeyValuePair.Create(pair.Key, (int)pair.Value!)))
        {
            Merges = json["model"]!["merges"]!.AsArray().Select(static merge => (string)merge!),
            ByteLevel = true,
            PreTokenizer = new RegexPreTokenizer(new(PatternFamily.Gpt2), null),
        };
        var oracle = BpeTokenizer.Create(options);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 2000; round++)
        {
            string text = RandomText(random, " helloaaaa123é\n\t'sx");
            Assert.True(
                tokenizer.Encode(text, addSpecial: false, parseSpecial: false).AsSpan().SequenceEqual(oracle.EncodeToIds(text).ToArray()),
                $"seed {seed}, round {round}: \"{text}\"");
        }
    }

    [Fact]
    public void LongWordsMergeAsShortOnesDo()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 300; round++)
        {
            var merges = new MergeTable(40);
            for (int i = 0; i < 40; i++)
                merges.Add(random.Next(8), random.Next(8), random.Next(10), random.Next(8), replace: true);
            int[] word = [.. Enumerable.Range(0, random.Next(1, 300)).Select(_ => random.Next(8))];
            int[] merged = [.. word];
            int count = Merger.Merge(merged, merges);
            Assert.True(Naive(word, merges).AsSpan().SequenceEqual(merged.AsSpan(0, count)), $"seed {seed}, round {round}");
        }
    }

    [Fact]
    public void MegabyteOfOneWordIsEncoded()
    {
        foreach (JsonObject json in (JsonObject[])[SmallTokenizers.ByteLevel(), SmallTokenizers.Characters()])
        {
            Tokenizer tokenizer = SmallTokenizers.Load(json);
            string word = string.Concat(Enumerable.Repeat("helloaaa", 1 << 17));
            Assert.Equal(word, tokenizer.Decode(tokenizer.Encode(word, addSpecial: false)));
        }
    }

    [Fact]
    public void AddedTokensSwallowSpaceAndKeepToWords()
    {
        JsonObject json = SmallTokenizers.ByteLevel();
        JsonArray added = json["added_tokens"]!.AsArray();
        int end = (int)added[0]!["id"]!, tool = (int)added[1]!["id"]!;
        (added[0]!["lstrip"], added[0]!["rstrip"], added[1]!["single_word"]) = (true, true, true);
        Tokenizer tokenizer = SmallTokenizers.Load(json);
        Assert.Equal(['a', end, 'b'], tokenizer.Encode("a \t<|end|>  b"));
        Assert.Equal([tool], tokenizer.Encode("<tool>"));
        Assert.DoesNotContain(tool, tokenizer.Encode("x<tool>"));
        Assert.DoesNotContain(end, tokenizer.Encode("<|end|>", parseSpecial: false));
        Assert.Contains(tool, tokenizer.Encode(" <tool> ", parseSpecial: false));
    }

    [Fact]
    public void PieceThatIsATokenNeedsNoMergesWhereTheyAreIgnored()
    {
        JsonObject json = SmallTokenizers.ByteLevel();
        int id = json["model"]!["vocab"]!.AsObject().Count + 2;
        json["model"]!["vocab"]!["Ã©x"] = id;
        Assert.NotEqual([id], SmallTokenizers.Load(json).Encode("éx"));
        json["model"]!["ignore_merges"] = true;
        Assert.Equal([id], SmallTokenizers.Load(json).Encode("éx"));
    }

    [Fact]
    public void UnigramTakesTheBestWayToWriteAPiece()
    {
        JsonObject json = SmallTokenizers.Characters();
        json["model"] = JsonNode.Parse("""
            {"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["<s>",0],["</s>",0],["▁",-3],["a",-2],["b",-2],["ab",-3.5],
             ["aba",-6],["▁ab",-5]]}
            """);
        Tokenizer tokenizer = SmallTokenizers.Load(json);
        // ▁ab + ab: −8.5; ▁ + aba + b: −11; an unknown character becomes one <unk>, neighbours fuse.
        Assert.Equal([8, 6], tokenizer.Encode("abab", addSpecial: false));
        Assert.Equal([8, 0, 4], tokenizer.Encode("abxya", addSpecial: false));
    }

    [Theory]
    [InlineData("e\u0301", "é")]
    [InlineData("\u1E9B\u0323", "\u1E9B\u0323")]
    [InlineData("q\u0307\u0323", "q\u0323\u0307")]
    [InlineData("\u1112\u1161\u11AB", "한")]
    [InlineData("\u212B", "Å")]
    [InlineData("\u0958", "\u0915\u093C")]
    [InlineData("a\u0305\u0301", "a\u0305\u0301")]
    [InlineData("\u0041\u0328\u0301", "\u0104\u0301")]
    [InlineData("plain ASCII and é", "plain ASCII and é")]
    [InlineData("\U00011099\U000110BA", "\U0001109A")]
    public void TextIsComposedAsAnnex15Says(string text, string composed) => Assert.Equal(composed, CanonicalComposition.Normalize(text));

    private static string Texts(Tokenizer tokenizer, string text) =>
        string.Join('|', tokenizer.Encode(text).Select(id => Encoding.UTF8.GetString(tokenizer.TokenBytes(id))));

    private static string RandomText(Random random, string alphabet) =>
        new([.. Enumerable.Range(0, random.Next(60)).Select(_ => alphabet[random.Next(alphabet.Length)])]);

    private static int[] Naive(int[] word, MergeTable merges)
    {
        var symbols = word.ToList();
        while (true)
        {
            int best = -1;
            for (int i = 0; i + 1 < symbols.Count; i++)
            {
                int rank = merges.Rank(symbols[i], symbols[i + 1]);
                if (rank != MergeTable.NoRank && (best < 0 || rank < merges.Rank(symbols[best], symbols[best + 1])))
                    best = i;
            }
            if (best < 0)
                return [.. symbols];
            symbols[best] = merges.Joined(symbols[best], symbols[best + 1]);
            symbols.RemoveAt(best + 1);
        }
    }
}
