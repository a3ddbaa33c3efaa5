using Tools.StoryGrammar;

namespace Tools.Trainer;

/// <summary>
/// Rows of packed documents, each beginning with the end-of-text token, which also is the target of the last token before it.
/// </summary>
/// <param name="Tokens">Token of each row.</param>
/// <param name="Targets">The token to predict, or −1.</param>
/// <param name="Positions">Rotary position of each row.</param>
/// <param name="DocumentStart">First row of each row's document.</param>
public sealed record Batch(int[] Tokens, int[] Targets, int[] Positions, int[] DocumentStart)
{
    /// <summary>Rows.</summary>
    public int Length => Tokens.Length;

    /// <summary>Fresh stories: <paramref name="sequences"/> rows of <paramref name="context"/> tokens, positions from 0 in each.</summary>
    public static Batch OfStories(BytePairEncoding tokenizer, ref ulong seed, int sequences, int context)
    {
        Batch batch = Empty(sequences * context);
        var tokens = new List<int>(context + 256);
        for (int sequence = 0; sequence < sequences; sequence++)
        {
            tokens.Clear();
            while (tokens.Count <= context)
            {
                tokens.Add(tokenizer.EndOfText);
                tokenizer.Encode(StoryGenerator.Write(seed++), tokens);
            }

            int first = sequence * context;
            for (int i = 0; i < context; i++)
            {
                int row = first + i;
                batch.Set(row, tokens[i], tokens[i + 1], i, tokens[i] == tokenizer.EndOfText ? row : batch.DocumentStart[row - 1]);
            }
        }

        return batch;
    }

    /// <summary>One text, filled up to a multiple of 8 rows with its own last token.</summary>
    public static Batch ForText(ReadOnlySpan<int> tokens)
    {
        Batch batch = Empty((tokens.Length + 7) / 8 * 8);
        for (int i = 0; i < batch.Length; i++)
            batch.Set(i, tokens[Math.Min(i, tokens.Length - 1)], -1, i, 0);
        return batch;
    }

    private static Batch Empty(int rows) => new(new int[rows], new int[rows], new int[rows], new int[rows]);

    private void Set(int row, int token, int target, int position, int documentStart) =>
        (Tokens[row], Targets[row], Positions[row], DocumentStart[row]) = (token, target, position, documentStart);
}
