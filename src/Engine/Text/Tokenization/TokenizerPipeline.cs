using System.Collections.Frozen;

namespace Engine.Text.Tokenization;

/// <summary>
/// What every tokenizer file boils down to: added tokens are cut out, what lies between is normalized, cut into pieces and encoded, and
/// special tokens are put around it all.
/// </summary>
internal sealed class TokenizerPipeline
{
    private readonly AddedTokenFinder rawTokens;
    private readonly AddedTokenFinder normalizedTokens;
    private readonly SplitterChain splitters;
    private readonly IReadOnlyList<Normalizer> normalizers;
    private readonly IReadOnlyList<Normalizer> prefixes;
    private readonly SubwordModel model;

    /// <summary>Puts the parts together and spells the vocabulary.</summary>
    /// <param name="parts">What a loader found.</param>
    public TokenizerPipeline(TokenizerParts parts)
    {
        Vocabulary = parts.Vocabulary;
        Spelling = parts.Spelling;
        model = parts.Model;
        normalizers = parts.Normalizers;
        prefixes = parts.Prefixes;
        splitters = new SplitterChain(parts.Splitters);
        Before = parts.Before;
        After = parts.After;
        SpecialIds = parts.AddedTokens.Where(static token => token.Special).Select(static token => token.Id).ToFrozenSet();
        rawTokens = new AddedTokenFinder(parts.AddedTokens.Where(static token => !token.Normalized)
            .Select(static token => (token, token.Content)));
        normalizedTokens = new AddedTokenFinder(parts.AddedTokens.Where(static token => token.Normalized).Select(token =>
            (token, token.Content.Length == 0 ? "" : Normalize(token.Content, atStart: true))));
        FrozenSet<int> added = parts.AddedTokens.Select(static token => token.Id).ToFrozenSet();
        Vocabulary.Spell((id, text) => added.Contains(id) ? System.Text.Encoding.UTF8.GetBytes(text) : Spelling.Bytes(text));
    }

    public TokenVocabulary Vocabulary { get; }

    public TokenSpelling Spelling { get; }

    /// <summary>Tokens that steer the model and are no text.</summary>
    public FrozenSet<int> SpecialIds { get; }

    /// <summary>What is put before a text.</summary>
    public IReadOnlyList<int> Before { get; }

    /// <summary>What is put behind a text.</summary>
    public IReadOnlyList<int> After { get; }

    /// <summary>Encodes a text.</summary>
    public List<int> Encode(string text, bool addSpecial, bool parseSpecial)
    {
        var run = new Run(this, parseSpecial) { Ids = new List<int>(text.Length / 3 + 8) };
        if (addSpecial)
            run.Ids.AddRange(Before);
        run.AddRaw(text);
        if (addSpecial)
            run.Ids.AddRange(After);
        return run.Ids;
    }

    private string Normalize(string text, bool atStart)
    {
        foreach (Normalizer normalizer in normalizers)
        {
            if (text.Length > 0)
                text = normalizer.Apply(text, atStart);
        }
        return text;
    }

    /// <summary>The encoding of one text.</summary>
    private sealed class Run(TokenizerPipeline pipeline, bool parseSpecial)
    {
        private List<Piece> pieces = [];
        private List<Piece> spare = [];

        public required List<int> Ids { get; init; }

        public void AddRaw(string text)
        {
            int done = 0;
            while (Next(pipeline.rawTokens, text, done, out Piece found) is { } token)
            {
                AddStretch(text[done..found.Start], done == 0);
                Ids.Add(token.Id);
                done = found.End;
            }
            AddStretch(text[done..], done == 0);
        }

        private AddedToken? Next(AddedTokenFinder finder, string text, int from, out Piece found)
        {
            found = default;
            return finder.IsEmpty ? null : finder.Next(text, from, parseSpecial, out found);
        }

        private void AddStretch(string stretch, bool atStart)
        {
            if (stretch.Length == 0)
                return;
            string text = pipeline.Normalize(stretch, atStart);
            int done = 0;
            while (Next(pipeline.normalizedTokens, text, done, out Piece found) is { } token)
            {
                AddText(text[done..found.Start], atStart && done == 0);
                Ids.Add(token.Id);
                done = found.End;
            }
            AddText(text[done..], atStart && done == 0);
        }

        private void AddText(string text, bool atStart)
        {
            if (text.Length == 0)
                return;
            foreach (Normalizer prefix in pipeline.prefixes)
                text = prefix.Apply(text, atStart);
            pipeline.splitters.Split(text, ref pieces, ref spare);
            foreach (Piece piece in pieces)
                pipeline.model.Encode(text.AsSpan(piece.Start, piece.End - piece.Start), Ids);
        }
    }
}

/// <summary>What a loader finds in a file.</summary>
internal sealed record TokenizerParts
{
    public required TokenVocabulary Vocabulary { get; init; }

    public required SubwordModel Model { get; init; }

    public required TokenSpelling Spelling { get; init; }

    public IReadOnlyList<AddedToken> AddedTokens { get; init; } = [];

    /// <summary>Rewritings of the text, in which normalized added tokens are then looked for.</summary>
    public IReadOnlyList<Normalizer> Normalizers { get; init; } = [];

    /// <summary>Rewritings of what lies between added tokens.</summary>
    public IReadOnlyList<Normalizer> Prefixes { get; init; } = [];

    public IReadOnlyList<Splitter> Splitters { get; init; } = [];

    public IReadOnlyList<int> Before { get; init; } = [];

    public IReadOnlyList<int> After { get; init; } = [];
}
