using System.Text;
using System.Text.Json.Nodes;
using Engine.Text;
using Engine.Text.Tokenization;

namespace Engine.Tests.Text;

/// <summary>Tokenizers that are small enough to be read, for tests that need no model.</summary>
internal static class SmallTokenizers
{
    /// <summary>The tokens of merges that both small vocabularies have, each made of two earlier ones.</summary>
    private static readonly (string Left, string Right)[] Merges =
        [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("o", "r"), ("a", "a"), ("aa", "aa"), ("1", "2"), ("12", "3")];

    /// <summary>Byte-level, as GPT-2: ids 0 to 255 are the bytes, then the merges, then one special and one ordinary added token.</summary>
    public static JsonObject ByteLevel()
    {
        var vocabulary = new JsonObject();
        for (int value = 0; value < 256; value++)
            vocabulary.Add($"{ByteAlphabet.Letter((byte)value)}", value);
        JsonArray merges = AddMerges(vocabulary, [.. Merges, ("Ġ", "he"), ("Ã", "©")]);
        return new JsonObject
        {
            ["added_tokens"] = Added(vocabulary.Count, ("<|end|>", true), ("<tool>", false)),
            ["pre_tokenizer"] = new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["use_regex"] = true },
            ["decoder"] = new JsonObject { ["type"] = "ByteLevel" },
            ["model"] = new JsonObject { ["type"] = "BPE", ["vocab"] = vocabulary, ["merges"] = merges },
        };
    }

    /// <summary>
    /// Characters with byte fallback, as Llama 2 converted from SentencePiece: <c>&lt;unk&gt;</c>, <c>&lt;s&gt;</c>, <c>&lt;/s&gt;</c>,
    /// the bytes, then characters and merges.
    /// </summary>
    public static JsonObject Characters()
    {
        var vocabulary = new JsonObject { ["<unk>"] = 0, ["<s>"] = 1, ["</s>"] = 2 };
        for (int value = 0; value < 256; value++)
            vocabulary.Add(TokenSpelling.ByteToken(value), vocabulary.Count);
        foreach (char character in "▁abcdefghijklmnopqrstuvwxyz0123é")
            vocabulary.Add($"{character}", vocabulary.Count);
        JsonArray merges = AddMerges(vocabulary, [.. Merges, ("▁", "he"), ("▁", "▁")]);
        JsonObject Word(string type) => new() { ["type"] = type };
        return new JsonObject
        {
            ["added_tokens"] = new JsonArray(Token(0, "<unk>", true), Token(1, "<s>", true), Token(2, "</s>", true)),
            ["normalizer"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["normalizers"] = new JsonArray(
                    new JsonObject { ["type"] = "Prepend", ["prepend"] = "▁" },
                    new JsonObject { ["type"] = "Replace", ["pattern"] = new JsonObject { ["String"] = " " }, ["content"] = "▁" }),
            },
            ["post_processor"] = new JsonObject
            {
                ["type"] = "TemplateProcessing",
                ["single"] = new JsonArray(
                    new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = "<s>" } },
                    new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "A" } }),
                ["special_tokens"] = new JsonObject { ["<s>"] = new JsonObject { ["ids"] = new JsonArray(1) } },
            },
            ["decoder"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["decoders"] = new JsonArray(
                    new JsonObject { ["type"] = "Replace", ["pattern"] = new JsonObject { ["String"] = "▁" }, ["content"] = " " },
                    Word("ByteFallback"),
                    Word("Fuse"),
                    new JsonObject { ["type"] = "Strip", ["content"] = " ", ["start"] = 1, ["stop"] = 0 }),
            },
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["unk_token"] = "<unk>",
                ["fuse_unk"] = true,
                ["byte_fallback"] = true,
                ["vocab"] = vocabulary,
                ["merges"] = merges,
            },
        };
    }

    /// <summary>The vocabulary of <see cref="Characters"/> as a SentencePiece model.</summary>
    public static byte[] SentencePiece()
    {
        var file = new MemoryStream();
        int id = 0;
        foreach (string text in Characters()["model"]!["vocab"]!.AsObject().Select(static pair => pair.Key))
        {
            byte[] name = Encoding.UTF8.GetBytes(text);
            int type = id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1;
            file.Write([0x0A, (byte)(name.Length + 9), 0x0A, (byte)name.Length, .. name]);
            file.Write([0x15, .. BitConverter.GetBytes(-(float)id), 0x18, (byte)type]);
            id++;
        }
        file.Write([0x12, 2, 0x18, 2, 0x1A, 4, 0x18, 1, 0x20, 0]);
        return file.ToArray();
    }

    /// <summary>The vocabulary of <see cref="Characters"/> as llama2.c writes it.</summary>
    public static byte[] Llama2c()
    {
        var file = new MemoryStream();
        file.Write(BitConverter.GetBytes(8));
        int id = 0;
        foreach (string text in Characters()["model"]!["vocab"]!.AsObject().Select(static pair => pair.Key))
        {
            byte[] name = Encoding.UTF8.GetBytes(text.Replace('▁', ' '));
            file.Write([.. BitConverter.GetBytes(-(float)id++), .. BitConverter.GetBytes(name.Length), .. name]);
        }
        return file.ToArray();
    }

    /// <summary>Loads a tokenizer from the text of its <c>tokenizer.json</c>.</summary>
    public static Tokenizer Load(JsonObject json) => Load("tokenizer.json", Encoding.UTF8.GetBytes(json.ToJsonString()));

    /// <summary>Loads a tokenizer from the content of a file.</summary>
    public static Tokenizer Load(string name, byte[] content)
    {
        using var folder = new TemporaryFolder();
        return Tokenizer.Load(folder.Write(name, content));
    }

    private static JsonArray AddMerges(JsonObject vocabulary, IEnumerable<(string Left, string Right)> pairs)
    {
        var merges = new JsonArray();
        foreach ((string left, string right) in pairs)
        {
            merges.Add($"{left} {right}");
            vocabulary.Add(left + right, vocabulary.Count);
        }
        return merges;
    }

    private static JsonArray Added(int first, params (string Text, bool Special)[] tokens) =>
        new([.. tokens.Select((token, index) => Token(first + index, token.Text, token.Special))]);

    private static JsonObject Token(int id, string text, bool special) => new()
    {
        ["id"] = id,
        ["content"] = text,
        ["single_word"] = false,
        ["lstrip"] = false,
        ["rstrip"] = false,
        ["normalized"] = false,
        ["special"] = special,
    };
}
