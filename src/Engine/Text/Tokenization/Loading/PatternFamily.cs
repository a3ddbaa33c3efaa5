using Engine.Text.Tokenization.Patterns;

namespace Engine.Text.Tokenization.Loading;

/// <summary>
/// What GGUF's <c>tokenizer.ggml.pre</c> stands for: the expressions that cut text one after the other before byte-level merging.
/// Source: the published <c>tokenizer.json</c> of the model that each family is named after; the names are llama.cpp's.
/// </summary>
internal sealed record PatternFamily(IReadOnlyList<string> Names, IReadOnlyList<string> Patterns)
{
    /// <summary>GPT-2's expression, which <c>ByteLevel</c> applies where <c>use_regex</c> is set.</summary>
    public const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    private const string Contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    private const string Llama3 =
        Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Qwen2 =
        Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string UpperThenLower = @"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+";
    private const string UpperOnly = @"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*";
    private const string Rest = @" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Cased =
        @"A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBE"
        + @"ῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-"
        + @"𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";
    private const string EastAsian = @"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";

    /// <summary>A piece that is a token is that token, whatever the merges would make of it.</summary>
    public bool IgnoreMerges { get; init; }

    /// <summary>A beginning-of-sequence token is added unless the metadata says otherwise.</summary>
    public bool AddsBeginOfSequence { get; init; }

    /// <summary>The text is brought into Normalization Form C.</summary>
    public bool Composes { get; init; }

    /// <summary>Every family that is known.</summary>
    public static IReadOnlyList<PatternFamily> All { get; } =
    [
        new(
            ["gpt-2", "phi-2", "gigachat", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "roberta-bpe",
                "mpt", "olmo", "jais", "granite-docling"],
            [Gpt2]),
        new(["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], [Llama3])
        {
            IgnoreMerges = true,
            AddsBeginOfSequence = true,
        },
        new(["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], [Llama3]),
        new(["qwen2", "deepseek-r1-qwen", "megrez"], [Qwen2]) { Composes = true },
        new(["stablelm2"], [Qwen2]),
        new(
            ["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
            [@"\p{N}", Gpt2]),
        new(["falcon"], [@"[\p{P}\$\+<=>\^~\|`]+", Gpt2, "[0-9][0-9][0-9]"]),
        new(["deepseek-llm"], ["[\r\n]", @"\s?[" + Cased + "]+", @"\s?[!-/:-~！-／：-～‘-‟　-。]+", @"\s+$", EastAsian, @"\p{N}+"]),
        new(["deepseek-coder"], ["[\r\n]", @"\s?\p{L}+", @"\s?\p{P}+", EastAsian, @"\p{N}"]),
        new(
            ["deepseek-v3", "hunyuan-dense"],
            [
                @"\p{N}{1,3}",
                @"[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
                @"[!""#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                    + @"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ]),
        new(["tekken"], [UpperThenLower + "|" + UpperOnly + @"|\p{N}|" + Rest]) { IgnoreMerges = true, AddsBeginOfSequence = true },
        new(
            ["gpt-4o", "llama4"],
            [UpperThenLower + Contractions + "?|" + UpperOnly + Contractions + @"?|\p{N}{1,3}|" + Rest]),
        new(["bloom", "poro-chat", "gpt3-finnish"], [@" ?[^(\s|.,!?…。，、।۔،)]+"]),
        new(["viking"], [@" ?[^(\s|.,!?…。，、।۔،)]+", @"\p{N}"]),

        // What llama.cpp does for a file that was converted before the key existed.
        new(
            ["default"],
            [@"[\p{P}\$\+<=>\^~\|]+", @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)", @"\p{N}+",
                "[0-9][0-9][0-9]"]),
    ];

    /// <summary>Finds a family by a name in <c>tokenizer.ggml.pre</c>.</summary>
    /// <exception cref="EngineException">The name is not known.</exception>
    public static PatternFamily Find(string name, string file) =>
        All.FirstOrDefault(family => family.Names.Contains(name))
        ?? throw new EngineException(
            $"the pre-tokenizer \"{name}\" is not known; known are {string.Join(", ", All.SelectMany(static family => family.Names))}",
            file,
            GgufVocabularyReader.PreKey);

    /// <summary>The splitters of the family.</summary>
    public IReadOnlyList<Splitter> CreateSplitters() =>
        [.. Patterns.Select(static pattern => new PatternSplitter(Pattern.Compile(pattern)))];
}
