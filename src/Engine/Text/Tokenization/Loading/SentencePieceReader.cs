using System.Buffers.Binary;
using System.Text;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Reads SentencePiece's <c>tokenizer.model</c>. Source: sentencepiece_model.proto of the SentencePiece repository.</summary>
internal static class SentencePieceReader
{
    public const string FileName = "tokenizer.model";

    private const string WordMarker = "\u2581";
    private const int Unigram = 1, BytePair = 2;

    private enum PieceType
    {
        Normal = 1,
        Unknown = 2,
        Control = 3,
        UserDefined = 4,
        Unused = 5,
        Byte = 6,
    }

    /// <summary>Reads a model.</summary>
    /// <param name="content">The file.</param>
    /// <param name="file">For messages.</param>
    /// <param name="more">Tokens that the files beside it add.</param>
    /// <exception cref="EngineException">It is malformed, or not a byte-pair or unigram model.</exception>
    public static TokenizerParts Read(byte[] content, string file, IReadOnlyList<AddedToken> more)
    {
        Model model = ParseModel(content, file);
        if (model.Pieces.Count == 0)
            throw new EngineException("the model has no pieces", file);
        if (model.Kind is not (Unigram or BytePair))
        {
            throw new EngineException(
                $"the model type {model.Kind} is not supported, expected 1 (unigram) or 2 (byte pairs)", file, "trainer_spec.model_type");
        }
        if (model.HasCharacterMap)
        {
            throw new EngineException(
                "a compiled character map is not supported, expected identity normalization", file, "normalizer_spec.precompiled_charsmap");
        }
        var vocabulary = new TokenVocabulary(file, model.Pieces.Count);
        for (int id = 0; id < model.Pieces.Count; id++)
            vocabulary.Add(id, model.Pieces[id].Text);
        List<AddedToken> added = AddedTokens(model, more, vocabulary);
        bool TakesPart(int id) => id < model.Pieces.Count
            && model.Pieces[id].Type is PieceType.Normal or PieceType.UserDefined or PieceType.Unused;

        var scores = new float[vocabulary.Size];
        for (int id = 0; id < model.Pieces.Count; id++)
            scores[id] = model.Pieces[id].Score;
        int first = model.Pieces.FindIndex(static piece => piece.Type == PieceType.Unknown);
        int? unknown = first < 0 ? null : first;
        var prefixes = new List<Normalizer>();
        if (model.RemovesExtraSpaces)
            prefixes.Add(new ExtraSpaceNormalizer());
        if (model.AddsPrefix)
            prefixes.Add(new PrefixNormalizer(" ", unlessPresent: false, onlyAtStart: false));
        prefixes.Add(new ReplaceNormalizer(" ", WordMarker));
        int beginning = model.Pieces.FindIndex(static piece => piece is { Type: PieceType.Control, Text: "<s>" });
        return new TokenizerParts
        {
            Vocabulary = vocabulary,
            Model = model.Kind == BytePair
                ? ScoredMerges.Build(vocabulary, scores, TakesPart, unknown, file)
                : new UnigramModel(vocabulary, [.. scores.Take(model.Pieces.Count)], TakesPart, unknown, byteFallback: true),
            Spelling = new TokenSpelling { ByteTokens = true, Replacements = [(WordMarker, " ")], StripLeadingSpace = model.AddsPrefix },
            AddedTokens = added,
            Prefixes = prefixes,
            Splitters = model.Kind == BytePair ? WordStarts.Splitters(vocabulary, TakesPart, WordMarker[0]) : [],
            Before = beginning < 0 ? [] : [beginning],
        };
    }

    private static List<AddedToken> AddedTokens(Model model, IReadOnlyList<AddedToken> more, TokenVocabulary vocabulary)
    {
        var added = more.ToDictionary(static token => token.Id);
        foreach (AddedToken token in more)
        {
            if (vocabulary.TextOf(token.Id) != token.Content)
                vocabulary.Add(token.Id, token.Content);
        }
        for (int id = 0; id < model.Pieces.Count; id++)
        {
            (string text, _, PieceType type) = model.Pieces[id];
            if (type is PieceType.Control or PieceType.Unknown or PieceType.UserDefined)
                added.TryAdd(id, new AddedToken(id, text) { Special = type != PieceType.UserDefined });
        }
        return [.. added.Values];
    }

    private static Model ParseModel(byte[] content, string file)
    {
        var model = new Model();
        var reader = new ProtobufReader(content, file);
        while (reader.Next(out int field))
        {
            switch (field)
            {
                case 1:
                    model.Pieces.Add(ParsePiece(reader.Bytes(), file));
                    break;
                case 2:
                    ParseTrainer(reader.Bytes(), model, file);
                    break;
                case 3:
                    ParseNormalizer(reader.Bytes(), model, file);
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
        return model;
    }

    private static (string Text, float Score, PieceType Type) ParsePiece(ReadOnlySpan<byte> content, string file)
    {
        (string text, float score, PieceType type) = ("", 0f, PieceType.Normal);
        var reader = new ProtobufReader(content, file);
        while (reader.Next(out int field))
        {
            switch (field)
            {
                case 1:
                    text = Encoding.UTF8.GetString(reader.Bytes());
                    break;
                case 2:
                    score = reader.Single();
                    break;
                case 3:
                    type = (PieceType)reader.Varint();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
        return Enum.IsDefined(type)
            ? (text, score, type)
            : throw new EngineException($"the type is {(int)type}, expected 1 to 6", file, $"piece \"{text}\"");
    }

    private static void ParseTrainer(ReadOnlySpan<byte> content, Model model, string file)
    {
        var reader = new ProtobufReader(content, file);
        while (reader.Next(out int field))
        {
            if (field == 3)
                model.Kind = (int)reader.Varint();
            else
                reader.Skip();
        }
    }

    private static void ParseNormalizer(ReadOnlySpan<byte> content, Model model, string file)
    {
        var reader = new ProtobufReader(content, file);
        while (reader.Next(out int field))
        {
            switch (field)
            {
                case 2:
                    model.HasCharacterMap = reader.Bytes().Length > 0;
                    break;
                case 3:
                    model.AddsPrefix = reader.Varint() != 0;
                    break;
                case 4:
                    model.RemovesExtraSpaces = reader.Varint() != 0;
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
    }

    /// <summary>What the file says; the initial values are the defaults of the proto.</summary>
    private sealed class Model
    {
        public List<(string Text, float Score, PieceType Type)> Pieces { get; } = [];

        public int Kind { get; set; } = Unigram;

        public bool HasCharacterMap { get; set; }

        public bool AddsPrefix { get; set; } = true;

        public bool RemovesExtraSpaces { get; set; } = true;
    }

    /// <summary>The wire format of protocol buffers, as far as it is needed: fields of numbers and of bytes.</summary>
    private ref struct ProtobufReader(ReadOnlySpan<byte> content, string file)
    {
        private readonly ReadOnlySpan<byte> content = content;
        private int position;
        private int wireType;

        /// <summary>Reads the key of the next field; false at the end.</summary>
        public bool Next(out int field)
        {
            field = 0;
            if (position == content.Length)
                return false;
            ulong key = ReadVarint();
            wireType = (int)(key & 7);
            field = (int)Math.Min(key >> 3, int.MaxValue);
            return true;
        }

        public ulong Varint()
        {
            Expect(0);
            return ReadVarint();
        }

        public float Single()
        {
            Expect(5);
            return BinaryPrimitives.ReadSingleLittleEndian(Take(4));
        }

        public ReadOnlySpan<byte> Bytes()
        {
            Expect(2);
            return Take(ReadVarint());
        }

        public void Skip()
        {
            switch (wireType)
            {
                case 0:
                    ReadVarint();
                    break;
                case 1:
                    Take(8);
                    break;
                case 2:
                    Take(ReadVarint());
                    break;
                case 5:
                    Take(4);
                    break;
                default:
                    throw Error($"the wire type {wireType} is not known");
            }
        }

        private ulong ReadVarint()
        {
            ulong value = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                byte next = Take(1)[0];
                value |= (ulong)(next & 0x7F) << shift;
                if (next < 0x80)
                    return value;
            }
            throw Error("a number has more than ten bytes");
        }

        private ReadOnlySpan<byte> Take(ulong count)
        {
            if (count > (ulong)(content.Length - position))
                throw Error("the message ends early");
            ReadOnlySpan<byte> taken = content.Slice(position, (int)count);
            position += (int)count;
            return taken;
        }

        private readonly void Expect(int type)
        {
            if (wireType != type)
                throw Error($"expected wire type {type}, found {wireType}");
        }

        private readonly EngineException Error(string problem) => new($"this is not a SentencePiece model: {problem}", file);
    }
}
