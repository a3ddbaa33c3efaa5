using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Engine.Text.Tokenization;

/// <summary>The tokens of a model: id ↔ text as the vocabulary writes it, and id → bytes as decoding gives them.</summary>
internal sealed class TokenVocabulary
{
    /// <summary>Ids above this come from a damaged file; the largest published vocabularies have a few hundred thousand tokens.</summary>
    public const int MaxId = (1 << 22) - 1;

    private readonly Dictionary<string, int> ids;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> idsBySpan;
    private readonly string file;
    private string?[] texts;
    private byte[] bytes = [];
    private int[] offsets = [0];

    /// <summary>Creates an empty vocabulary.</summary>
    /// <param name="file">The file that it is read from, for messages.</param>
    /// <param name="capacity">The expected number of tokens.</param>
    public TokenVocabulary(string file, int capacity = 0)
    {
        this.file = file;
        capacity = Math.Clamp(capacity, 0, MaxId + 1);
        ids = new Dictionary<string, int>(capacity, StringComparer.Ordinal);
        idsBySpan = ids.GetAlternateLookup<ReadOnlySpan<char>>();
        texts = new string?[Math.Max(capacity, 16)];
    }

    /// <summary>One more than the largest id.</summary>
    public int Size { get; private set; }

    /// <summary>Adds a token.</summary>
    /// <exception cref="EngineException">The id is out of range or taken, or the text is in the vocabulary under another id.</exception>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Add(long id, string text)
    {
        if (id is < 0 or > MaxId)
            throw new EngineException($"the id is {id}, expected 0 to {MaxId}", file, Describe(text));
        if (id < Size && texts[id] is { } other)
        {
            throw other == text
                ? new EngineException("the token is listed twice", file, Describe(text))
                : new EngineException($"the id {id} is already that of {Describe(other)}", file, Describe(text));
        }
        if (!ids.TryAdd(text, (int)id))
            throw new EngineException($"the token has two ids, {ids[text]} and {id}", file, Describe(text));
        if (id >= texts.Length)
            Array.Resize(ref texts, (int)Math.Min(MaxId + 1, Math.Max(id + 1, 2L * texts.Length)));
        texts[id] = text;
        Size = Math.Max(Size, (int)id + 1);
    }

    public bool TryGetId(ReadOnlySpan<char> text, out int id) => idsBySpan.TryGetValue(text, out id);

    /// <summary>The text of a token as the vocabulary writes it; null for an id that no token has.</summary>
    public string? TextOf(int id) => (uint)id < (uint)Size ? texts[id] : null;

    /// <summary>The bytes that a token decodes to; none for an id below <see cref="Size"/> that no token has.</summary>
    public ReadOnlySpan<byte> BytesOf(int id) => bytes.AsSpan(offsets[id]..offsets[id + 1]);

    /// <summary>Fixes the bytes of all tokens; nothing is added afterwards.</summary>
    /// <param name="spell">The bytes of a token.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Spell(Func<int, string, byte[]> spell)
    {
        offsets = new int[Size + 1];
        var all = new MemoryStream(8 * Size);
        for (int id = 0; id < Size; id++)
        {
            if (texts[id] is { } text)
                all.Write(spell(id, text));
            offsets[id + 1] = checked((int)all.Length);
        }
        bytes = all.ToArray();
    }

    /// <summary>A token's text for a message.</summary>
    [return: NotNull]
    public static string Describe(string text) => $"token \"{(text.Length > 40 ? text[..40] + "…" : text)}\"";
}
