using System.Text;
using Engine.Text;
using Xunit;

namespace Engine.Tests.Text;

/// <summary>Streaming gives the text that decoding everything at once gives, and never half a character.</summary>
public sealed class DetokenizerTests
{
    public static TheoryData<string> Kinds => ["byte level", "characters", "sentencepiece", "llama2.c"];

    [Theory]
    [MemberData(nameof(Kinds))]
    public void StreamOfRandomIdsIsTheDecodedText(string kind)
    {
        Tokenizer tokenizer = Load(kind);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 2000; round++)
        {
            int[] ids = [.. Enumerable.Range(0, random.Next(24)).Select(_ => random.Next(tokenizer.VocabularySize))];
            AssertStream(tokenizer, ids, skipSpecial: round % 2 == 0, $"seed {seed}, round {round}");
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void StreamOfBytesIsTheText(string kind)
    {
        Tokenizer tokenizer = Load(kind);
        int firstByte = kind == "byte level" ? 0 : 3;
        const string Text = "é€😀\u0800\uFFFD中\U0010FFFFa z";
        byte[] utf8 = Encoding.UTF8.GetBytes(Text);
        for (int start = 0; start < utf8.Length; start++)
        {
            for (int end = start; end <= utf8.Length; end++)
            {
                int[] ids = [.. utf8[start..end].Select(value => firstByte + value)];
                AssertStream(tokenizer, ids, skipSpecial: false, $"bytes {start} to {end}");
            }
        }
        Assert.Equal(Text, tokenizer.Decode([.. utf8.Select(value => firstByte + value)]));
    }

    [Theory]
    [InlineData("models/tokenizers/llama3.2-unsloth")]
    [InlineData("models/tokenizers/tinyllama-chat")]
    public void StreamOfARealVocabularyIsTheDecodedText(string path)
    {
        Tokenizer tokenizer = Tokenizer.Load(SharedFiles.Require(path));
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int round = 0; round < 300; round++)
        {
            int[] ids = [.. Enumerable.Range(0, random.Next(40)).Select(_ => random.Next(tokenizer.VocabularySize))];
            AssertStream(tokenizer, ids, skipSpecial: false, $"seed {seed}, round {round}");
        }
    }

    [Fact]
    public void TruncatedCharacterIsReplacedAsTheReferencesDo()
    {
        // Three bytes of four: one replacement for the beginning of a character in byte-level decoders, one per byte where tokens are
        // bytes.
        Assert.Equal("\uFFFDa", Load("byte level").Decode([0xF0, 0x9F, 0x98, 'a']));
        Assert.Equal("\uFFFD\uFFFD\uFFFDa", Load("characters").Decode([3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 'a']));
    }

    [Fact]
    public void LeadingSpaceGoesOnlyAtTheBeginningOfAText()
    {
        Tokenizer tokenizer = Load("characters");
        int[] ids = tokenizer.Encode("hello hello", addSpecial: false);
        Assert.Equal("hello hello", Stream(tokenizer.CreateDetokenizer(), ids));
        Assert.Equal(" hello hello", Stream(tokenizer.CreateDetokenizer(continues: true), ids));
        Assert.Equal("<s> hello hello", tokenizer.Decode([1, .. ids]));
        Assert.Equal("hello hello", tokenizer.Decode([1, .. ids], skipSpecial: true));
    }

    [Fact]
    public void StreamingKnownTokensAllocatesNothing()
    {
        Tokenizer tokenizer = Load("byte level");
        int[] ids = tokenizer.Encode(string.Concat(Enumerable.Repeat("hello world, 123 aaaa ", 20)));
        Detokenizer detokenizer = tokenizer.CreateDetokenizer(skipSpecial: true);
        Stream(detokenizer, ids);
        Assert.Equal(0, Allocation.Of(() =>
        {
            foreach (int id in ids)
                detokenizer.Append(id);
        }));
    }

    [Fact]
    public void IdOutsideTheVocabularyIsRefused()
    {
        Tokenizer tokenizer = Load("byte level");
        Assert.Throws<EngineException>(() => tokenizer.Decode([tokenizer.VocabularySize]));
        Assert.Throws<EngineException>(() => tokenizer.CreateDetokenizer().Append(-1));
    }

    private static Tokenizer Load(string kind) => kind switch
    {
        "byte level" => SmallTokenizers.Load(SmallTokenizers.ByteLevel()),
        "characters" => SmallTokenizers.Load(SmallTokenizers.Characters()),
        "sentencepiece" => SmallTokenizers.Load("tokenizer.model", SmallTokenizers.SentencePiece()),
        _ => SmallTokenizers.Load("tokenizer.bin", SmallTokenizers.Llama2c()),
    };

    private static string Stream(Detokenizer detokenizer, int[] ids) => string.Concat(ids.Select(detokenizer.Append)) + detokenizer.Flush();

    private static void AssertStream(Tokenizer tokenizer, int[] ids, bool skipSpecial, string message)
    {
        Detokenizer detokenizer = tokenizer.CreateDetokenizer(skipSpecial);
        var text = new StringBuilder();
        for (int i = 0; i <= ids.Length; i++)
        {
            string piece = i < ids.Length ? detokenizer.Append(ids[i]) : detokenizer.Flush();
            Assert.True(piece.EnumerateRunes().Sum(static rune => rune.Utf16SequenceLength) == piece.Length, message);
            Assert.False(piece.Length > 0 && (char.IsLowSurrogate(piece[0]) || char.IsHighSurrogate(piece[^1])), message);
            text.Append(piece);
        }
        string whole = tokenizer.Decode(ids, skipSpecial);
        Assert.True(whole == text.ToString(), $"{message}: ids {string.Join(' ', ids)}\nwhole  \"{whole}\"\nstream \"{text}\"");
    }
}
