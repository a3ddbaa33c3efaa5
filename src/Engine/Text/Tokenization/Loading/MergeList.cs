using System.Runtime.CompilerServices;

namespace Engine.Text.Tokenization.Loading;

/// <summary>Merges that are written out in the order of their rank.</summary>
internal static class MergeList
{
    /// <summary>Builds the table of merges that are written as "left right".</summary>
    /// <param name="merges">
    /// The merges, lowest rank first. They are read once: hundreds of thousands of strings need not live together.
    /// </param>
    /// <param name="count">Their number.</param>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="file">For messages.</param>
    /// <param name="key">For messages.</param>
    /// <exception cref="EngineException">A merge is not two tokens, or one of them or their union is not in the vocabulary.</exception>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static MergeTable Build(IEnumerable<string> merges, int count, TokenVocabulary vocabulary, string file, string key)
    {
        var table = new MergeTable(count);
        var joiner = new Joiner(vocabulary, table, file, key);
        int rank = 0;
        foreach (string merge in merges)
        {
            // A token may begin with a space, so the separator is looked for behind the first character.
            int space = merge.Length > 2 ? merge.IndexOf(' ', 1) : -1;
            if (space < 0 || space == merge.Length - 1)
                throw new EngineException($"expected two tokens with a space between, found \"{merge}\"", file, $"{key}[{rank}]");
            joiner.Add(merge.AsSpan(0, space), merge.AsSpan(space + 1), rank++);
        }
        return table;
    }

    /// <summary>Builds the table of merges that are written as pairs.</summary>
    /// <exception cref="EngineException">One of the two tokens or their union is not in the vocabulary.</exception>
    public static MergeTable Build(
        IEnumerable<(string Left, string Right)> merges, int count, TokenVocabulary vocabulary, string file, string key)
    {
        var table = new MergeTable(count);
        var joiner = new Joiner(vocabulary, table, file, key);
        int rank = 0;
        foreach ((string left, string right) in merges)
            joiner.Add(left, right, rank++);
        return table;
    }

    private sealed class Joiner(TokenVocabulary vocabulary, MergeTable table, string file, string key)
    {
        private char[] buffer = new char[256];
        private int last = -1;

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Add(ReadOnlySpan<char> left, ReadOnlySpan<char> right, int rank)
        {
            int length = left.Length + right.Length;
            if (length > buffer.Length)
                buffer = new char[2 * length];
            left.CopyTo(buffer);
            right.CopyTo(buffer.AsSpan(left.Length));
            last = FindNear(buffer.AsSpan(0, length), rank);
            table.Add(Find(left, rank), Find(right, rank), rank, last, replace: true);
        }

        /// <summary>
        /// Most vocabularies number tokens as their merges come, so the token is the last one again or its neighbour: no need to hash.
        /// </summary>
        private int FindNear(ReadOnlySpan<char> token, int rank)
        {
            if (token.SequenceEqual(vocabulary.TextOf(last + 1)))
                return last + 1;
            return last >= 0 && token.SequenceEqual(vocabulary.TextOf(last)) ? last : Find(token, rank);
        }

        private int Find(ReadOnlySpan<char> token, int rank) => vocabulary.TryGetId(token, out int id)
            ? id
            : throw new EngineException($"{TokenVocabulary.Describe(token.ToString())} is not in the vocabulary", file, $"{key}[{rank}]");
    }
}
